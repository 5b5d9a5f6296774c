#include "linalg/sign_draws.hpp"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "core/error.hpp"
#include "core/lent.hpp"
#include "core/parallel.hpp"
#include "linalg/gram.hpp"
#include "linalg/lane_draws.hpp"
#include "linalg/tridiagonalize.hpp"

namespace pyspectra::linalg {
namespace {

constexpr Index kByte = 8;

// The signs that the bits of a byte stand for, the highest bit first.
struct SignTable {
  double of[256][kByte];
};

constexpr SignTable make_signs() {
  SignTable signs{};
  for (int byte = 0; byte < 256; ++byte)
    for (int i = 0; i < kByte; ++i)
      signs.of[byte][i] = (byte >> (kByte - 1 - i) & 1) != 0 ? -1.0 : 1.0;
  return signs;
}

constexpr SignTable kSigns = make_signs();

// Threads keep their buffers from one draw to the next; larger ones go back to the system.
struct Buffers {
  std::vector<double> flipped, means, gram, work, diagonal, beside;

  void trim() {
    constexpr std::size_t kKept = std::size_t{1} << 20;
    for (auto* buffer : {&flipped, &gram, &work})
      if (buffer->capacity() > kKept) std::vector<double>().swap(*buffer);
  }
};

// Eight bits from number `first` on, the first of them the highest; zeros beyond the last byte.
unsigned byte_at(std::span<const std::uint8_t> bits, Index first) {
  const auto shift = static_cast<unsigned>(first % kByte);
  const auto at = static_cast<std::size_t>(first / kByte);
  const unsigned next = shift != 0 && at + 1 < bits.size() ? bits[at + 1] : 0u;
  return ((bits[at] << kByte | next) >> (kByte - shift)) & 0xffu;
}

// `count` entries with the signs of the bits from number `first` on.
void flip(const double* in, Index count, std::span<const std::uint8_t> bits, Index first,
          double* out) {
  for (Index i = 0; i < count; i += kByte) {
    const double* const signs = kSigns.of[byte_at(bits, first + i)];
    if (i + kByte <= count) {
      for (Index b = 0; b < kByte; ++b) out[i + b] = in[i + b] * signs[b];
    } else {
      for (Index b = 0; i + b < count; ++b) out[i + b] = in[i + b] * signs[b];
    }
  }
}

double sum_of(const double* x, Index count) {
  double parts[kByte] = {}, sum = 0.0;
  Index i = 0;
  for (; i + kByte <= count; i += kByte)
    for (Index b = 0; b < kByte; ++b) parts[b] += x[i + b];
  for (; i < count; ++i) sum += x[i];
  for (double part : parts) sum += part;
  return sum;
}

// Takes the means of rows and columns away.
void centre(double* w, Index rows, Index cols, std::vector<double>& means) {
  means.assign(static_cast<std::size_t>(cols), 0.0);
  double* const of_cols = means.data();
  for (Index k = 0; k < rows; ++k) {
    double* const row = w + k * cols;
    const double mean = sum_of(row, cols) / static_cast<double>(cols);
    for (Index i = 0; i < cols; ++i) {
      row[i] -= mean;
      of_cols[i] += row[i];
    }
  }
  for (Index i = 0; i < cols; ++i) of_cols[i] /= static_cast<double>(rows);
  for (Index k = 0; k < rows; ++k)
    for (Index i = 0; i < cols; ++i) w[k * cols + i] -= of_cols[i];
}

// Largest eigenvalue of a positive semidefinite tridiagonal matrix.
double largest_eigenvalue(const double* d, const double* e, Index n) {
  double x = 0.0;
  for (Index i = 0; i < n; ++i)
    x = std::max(x, d[i] + (i > 0 ? std::abs(e[i - 1]) : 0.0) + (i + 1 < n ? std::abs(e[i]) : 0.0));
  if (x == 0.0) return 0.0;
  constexpr int kMostSteps = 100;  // eight do, unless several are the largest
  constexpr double kDone = 0x1p-51;
  x *= 1.0 + kDone;
  const auto order = static_cast<double>(n);
  for (int step = 0; step < kMostSteps; ++step) {
    double g = 0.0, h = 0.0, own = 0.0, slope = 0.0, inverse = 0.0;
    for (Index i = 0; i < n; ++i) {
      const double coupling = i > 0 ? e[i - 1] * e[i - 1] * inverse : 0.0;
      const double pivot = d[i] - x - coupling;
      if (!(pivot < 0.0)) return x;  // which has come to the eigenvalue but for rounding
      inverse = 1.0 / pivot;
      // The logarithm's derivatives of this pivot, from those of the one before.
      const double second = coupling * (slope - own * own) * inverse;
      own = (coupling * own - 1.0) * inverse;
      slope = second - own * own;
      g += own;
      h -= slope;
    }
    const double spread = std::max(0.0, (order - 1.0) * (order * h - g * g));
    const double moved = order / (g + std::sqrt(spread));
    x -= moved;
    if (!(moved > kDone * x)) break;
  }
  return x;
}

class Drawing {
 public:
  Drawing(const MatrixStack& stack, std::span<const std::uint8_t> bits, bool centred)
      : stack_(stack), bits_(bits), centred_(centred) {}

  SignDraw draw(Index number) const {
    Lent<Buffers> lent;
    Buffers& buffers = *lent;
    const Index rows = stack_.rows, cols = stack_.cols, size = rows * cols;
    const Index M = std::min(rows, cols);
    buffers.flipped.resize(static_cast<std::size_t>(size));
    buffers.gram.resize(static_cast<std::size_t>(M * M));
    double sum = 0.0, squares = 0.0, largest = 0.0;
    for (Index k = 0; k < stack_.count; ++k) {
      const Index first = (number * stack_.count + k) * size;
      double* const w = buffers.flipped.data();
      flip(stack_.data + k * size, size, bits_, first, w);
      if (centred_) centre(w, rows, cols, buffers.means);
      const MatrixView view{w, DType::float64, rows, cols, cols, 1};
      double* const gram = buffers.gram.data();
      gram_batch({&view, 1}, {&gram, 1});
      for (Index j = 0; j < M; ++j) {
        const double* const column = gram + j * M;
        double below = 0.0;
        for (Index i = j + 1; i < M; ++i) below += column[i] * column[i];
        sum += column[j];
        squares += column[j] * column[j] + 2.0 * below;
      }
      if (!std::isfinite(squares)) return sign_statistics(sum, squares, largest);
      largest = std::max(largest, largest_of(gram, M, buffers));
    }
    return sign_statistics(sum, squares, largest);
  }

 private:
  static double largest_of(const double* gram, Index M, Buffers& buffers) {
    buffers.work.resize(static_cast<std::size_t>(tridiagonalize_work(M)));
    buffers.diagonal.resize(static_cast<std::size_t>(M));
    buffers.beside.resize(static_cast<std::size_t>(M));
    double *const d = buffers.diagonal.data(), *const e = buffers.beside.data();
    tridiagonalize(gram, M, M, d, e, buffers.work.data());
    return largest_eigenvalue(d, e, M);
  }

  const MatrixStack stack_;
  const std::span<const std::uint8_t> bits_;
  const bool centred_;
};

}  // namespace

void sign_draws(const MatrixStack& stack, std::span<const std::uint8_t> bits, bool centred,
                std::span<SignDraw> out) {
  const Index draws = static_cast<Index>(out.size());
  const Index size = stack.count * stack.rows * stack.cols;
  PS_REQUIRE(size > 0, "sign_draws: the stack is empty");
  PS_REQUIRE(static_cast<Index>(bits.size()) >= (draws * size + kByte - 1) / kByte,
             "sign_draws: there are too few bits");
  if (lanes_serve(std::min(stack.rows, stack.cols))) return lane_draws(stack, bits, centred, out);
  const Drawing drawing(stack, bits, centred);
  parallel_for(draws, [&](Index d) { out[static_cast<std::size_t>(d)] = drawing.draw(d); });
}

}  // namespace pyspectra::linalg
