#include "linalg/bisection.hpp"

#include <algorithm>
#include <cmath>
#include <vector>

#include "core/interrupt.hpp"
#include "core/isa.hpp"
#include "core/parallel.hpp"

namespace pyspectra::linalg {
namespace {

// Eigenvalues number [first, last) lie in it.
struct Interval {
  double low, high;
  Index first, last;
};

// Widths, beside a norm of one, at which an interval is done.
constexpr double kWidth = 0x1p-53;

}  // namespace

void bisect(double* d, const double* e, Index n) {
  if (n <= 1) return;
  const detail::BisectionKernels kernels = PS_SELECT_ISA(detail::bisection);
  double norm = 0.0;
  for (Index i = 0; i < n; ++i) {
    const double left = i > 0 ? std::abs(e[i - 1]) : 0.0;
    const double right = i + 1 < n ? std::abs(e[i]) : 0.0;
    norm = std::max(norm, std::abs(d[i]) + (left + right));
  }
  if (norm == 0.0) return;
  int exponent = 0;
  std::frexp(norm, &exponent);
  std::vector<double> diagonal(static_cast<std::size_t>(n)), squares(static_cast<std::size_t>(n));
  for (Index i = 0; i < n; ++i) diagonal[i] = std::ldexp(d[i], -exponent);
  for (Index i = 0; i + 1 < n; ++i) {
    const double scaled = std::ldexp(e[i], -exponent);
    squares[i] = std::max(scaled * scaled, detail::kLeastSquare);
  }
  // By Gershgorin's theorem, and room for the rounding of the counts.
  std::vector<Interval> open{{-1.0 - 0x1p-40, 1.0 + 0x1p-40, 0, n}}, next;
  const Index width = kernels.width;
  std::vector<double> points, below;
  while (!open.empty()) {
    const Index count = static_cast<Index>(open.size());
    const Index calls = (count + width - 1) / width;
    points.assign(calls * width, 0.0);
    below.resize(calls * width);
    for (Index k = 0; k < count; ++k) points[k] = 0.5 * (open[k].low + open[k].high);
    parallel_for(calls, [&](Index c) {
      check_interrupt();
      kernels.count(diagonal.data(), squares.data(), n, points.data() + c * width,
                    below.data() + c * width);
    });
    next.clear();
    const auto keep = [&](double low, double high, Index first, Index last) {
      if (first >= last) return;
      if (high - low > kWidth)
        next.push_back({low, high, first, last});
      else
        for (Index k = first; k < last; ++k) d[k] = std::ldexp(0.5 * (low + high), exponent);
    };
    for (Index k = 0; k < count; ++k) {
      const Interval& in = open[k];
      // Rounding may make a count larger than that of a point to its right.
      const Index split = std::clamp(static_cast<Index>(below[k]), in.first, in.last);
      keep(in.low, points[k], in.first, split);
      keep(points[k], in.high, split, in.last);
    }
    open.swap(next);
  }
}

}  // namespace pyspectra::linalg
