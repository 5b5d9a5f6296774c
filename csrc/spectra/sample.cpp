#include "spectra/sample.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "core/error.hpp"
#include "core/interrupt.hpp"
#include "core/lent.hpp"

namespace pyspectra::spectra {
namespace {

#include "core/half.inl.hpp"
#include "core/widen.inl.hpp"

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

// Sums side by side, which the compiler makes vectors of.
constexpr Index kWidth = 8;

// Fewer rows are orthogonal by chance.
constexpr Index kFewest = 4;

// Entries beyond two to this power, or below its inverse, are brought to about one first.
constexpr int kModerate = 100;

// Columns that are read at a time: rows that share cache lines take them from the nearest cache.
constexpr Index kBlock = 64;

// Rows 0, step, 2 step, ... below `end`, one after the other.
template <typename T>
void widen_rows(const MatrixView& X, Index end, Index step, double* out) {
  const Index block = X.col_stride == 1 ? X.cols : kBlock;
  for (Index first = 0; first < X.cols; first += block) {
    const Index last = std::min(X.cols, first + block);
    double* to = out;
    for (Index k = 0; k < end; k += step, to += X.cols) {
      const T* in = static_cast<const T*>(X.data) + k * X.row_stride;
      if (X.col_stride == 1) {
        for (Index i = first; i < last; ++i) to[i] = widen(in[i]);
      } else {
        for (Index i = first; i < last; ++i) to[i] = widen(in[i * X.col_stride]);
      }
    }
  }
}

void rows_of(const MatrixView& X, Index end, Index step, double* out) {
  switch (X.dtype) {
    case DType::float16:
      return widen_rows<Half>(X, end, step, out);
    case DType::bfloat16:
      return widen_rows<BFloat>(X, end, step, out);
    case DType::float32:
      return widen_rows<float>(X, end, step, out);
    case DType::float64:
      return widen_rows<double>(X, end, step, out);
  }
}

// The sum of f(i) for i in [0, count).
template <typename F>
double sum_over(Index count, const F& f) {
  double parts[kWidth] = {}, sum = 0.0;
  Index i = 0;
  for (; i + kWidth <= count; i += kWidth)
    for (Index b = 0; b < kWidth; ++b) parts[b] += f(i + b);
  for (; i < count; ++i) sum += f(i);
  for (double part : parts) sum += part;
  return sum;
}

double largest_size(const double* x, Index count) {
  double parts[kWidth] = {}, largest = 0.0;
  Index i = 0;
  for (; i + kWidth <= count; i += kWidth)
    for (Index b = 0; b < kWidth; ++b) parts[b] = std::max(parts[b], std::abs(x[i + b]));
  for (; i < count; ++i) largest = std::max(largest, std::abs(x[i]));
  for (double part : parts) largest = std::max(largest, part);
  return largest;
}

struct Buffer {
  std::vector<double> values;

  void trim() {
    constexpr std::size_t kKept = std::size_t{1} << 20;
    if (values.capacity() > kKept) std::vector<double>().swap(values);
  }
};

double kurtosis_of(double* x, Index count) {
  // Their mean may be a rounding away from them.
  if (std::all_of(x, x + count, [x](double one) { return one == x[0]; })) return kNaN;
  const auto n = static_cast<double>(count);
  const double mean = sum_over(count, [&](Index i) { return x[i]; }) / n;
  if (!std::isfinite(mean)) return kNaN;
  for (Index i = 0; i < count; ++i) x[i] -= mean;
  const double largest = largest_size(x, count);
  int exponent = 0;
  std::frexp(largest, &exponent);
  if (std::abs(exponent) > kModerate)
    for (Index i = 0; i < count; ++i) x[i] = std::ldexp(x[i], -exponent);
  const double second = sum_over(count, [&](Index i) { return x[i] * x[i]; });
  const double fourth = sum_over(count, [&](Index i) { return x[i] * x[i] * (x[i] * x[i]); });
  return fourth * n / (second * second) - 3.0;
}

}  // namespace

EntrySample entry_sample(std::span<const MatrixView> X, Index step) {
  PS_REQUIRE(step >= 1, "entry_sample: the step must be positive");
  Index count = 0;
  for (const auto& x : X) count += (x.rows + step - 1) / step * x.cols;
  if (count == 0) return {kNaN, 1.0};
  Lent<Buffer> lent;
  std::vector<double>& values = (*lent).values;
  values.resize(static_cast<std::size_t>(count));
  double* next = values.data();
  for (const auto& x : X) {
    check_interrupt();
    rows_of(x, x.rows, step, next);
    next += (x.rows + step - 1) / step * x.cols;
  }
  const double* const w = values.data();
  const double zeros = sum_over(count, [&](Index i) { return w[i] == 0.0 ? 1.0 : 0.0; });
  return {kurtosis_of(values.data(), count), zeros / static_cast<double>(count)};
}

bool rows_are_orthogonal(std::span<const MatrixView> X, Index probed, double tolerance) {
  if (X.empty()) return false;
  const Index rows = std::min(probed, X[0].rows), cols = X[0].cols;
  for (const auto& x : X)
    PS_REQUIRE(x.rows == X[0].rows && x.cols == cols,
               "rows_are_orthogonal: the matrices must have one shape");
  if (rows < kFewest) return false;
  Lent<Buffer> lent;
  std::vector<double>& values = (*lent).values;
  values.resize(static_cast<std::size_t>(rows * cols));
  double* const A = values.data();
  const auto read = [&](const MatrixView& x) {
    check_interrupt();
    rows_of(x, rows, 1, A);
  };
  std::vector<double> lengths(static_cast<std::size_t>(rows), 0.0);
  for (const auto& x : X) {
    read(x);
    for (Index k = 0; k < rows; ++k) {
      const double* const a = A + k * cols;
      lengths[static_cast<std::size_t>(k)] += sum_over(cols, [&](Index i) { return a[i] * a[i]; });
    }
  }
  double scale = 0.0;
  for (double length : lengths) scale += length / static_cast<double>(rows);
  if (!(scale > 0.0) || !std::isfinite(scale)) return false;
  for (double length : lengths)
    if (!(std::abs(length / scale - 1.0) < tolerance)) return false;
  std::vector<double> products(static_cast<std::size_t>(rows * rows), 0.0);
  for (const auto& x : X) {
    if (X.size() > 1) read(x);
    for (Index k = 0; k < rows; ++k)
      for (Index l = 0; l < k; ++l) {
        const double *const a = A + k * cols, *const b = A + l * cols;
        products[static_cast<std::size_t>(k * rows + l)] +=
            sum_over(cols, [&](Index i) { return a[i] * b[i]; });
      }
  }
  return std::all_of(products.begin(), products.end(),
                     [&](double p) { return std::abs(p / scale) < tolerance; });
}

}  // namespace pyspectra::spectra
