#include "linalg/lane_draws.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <vector>

#include "core/aligned.hpp"
#include "core/isa.hpp"
#include "core/lent.hpp"
#include "core/parallel.hpp"

namespace pyspectra::linalg {
namespace {

using detail::kDraws;
constexpr Index kByte = 8, kWordBits = 64;
constexpr double kInfinity = std::numeric_limits<double>::infinity();

// Numbers from the beginning of a cache line on, which are set by whoever reads them.
class Room {
 public:
  double* of(Index count) {
    if (count > size_) data_ = aligned_buffer<double>(count), size_ = count;
    return data_.get();
  }
  void trim() {
    constexpr Index kKept = Index{1} << 20;
    if (size_ > kKept) *this = Room();
  }

 private:
  Buffer<double> data_;
  Index size_ = 0;
};

// Threads keep their buffers from one group of draws to the next.
struct Rooms {
  Room gram, doubtful, work;
  std::vector<detail::LaneWords> signs;

  void trim() {
    constexpr std::size_t kKept = std::size_t{1} << 17;
    for (Room* room : {&gram, &doubtful, &work}) room->trim();
    if (signs.capacity() > kKept) std::vector<detail::LaneWords>().swap(signs);
  }
};

// 64 bits from number `first` on, the first of them the highest; zeros beyond the last byte.
std::uint64_t word_at(std::span<const std::uint8_t> bits, Index first) {
  const auto shift = static_cast<unsigned>(first % kByte);
  const auto at = static_cast<std::size_t>(first / kByte);
  std::uint64_t word = 0;
  if (at + kByte < bits.size()) {
    const std::uint8_t* const from = bits.data() + at;
    for (Index b = 0; b < kByte; ++b) word = word << kByte | from[b];
    return shift == 0 ? word : word << shift | from[kByte] >> (kByte - shift);
  }
  for (std::size_t b = 0; b < kByte; ++b)
    word = word << kByte | (at + b < bits.size() ? bits[at + b] : 0u);
  return word << shift;
}

// What is known of the largest eigenvalue of each draw of a group, while matrices are added.
class Largest {
 public:
  Largest(const detail::LaneKernels& kernels, Index M, Index count, Rooms& rooms)
      : kernels_(kernels), M_(M), all_((1u << count) - 1u), rooms_(rooms) {}

  // Uses up `gram`.
  void add(double* gram, const detail::LaneSums& sums) {
    unsigned reaching = is_first_ ? all_ : by_sums(sums);
    if (reaching == 0) return;
    if (!is_first_) reaching &= kernels_.reaching(gram, M_, values, work());
    is_first_ = false;
    if (reaching == all_) {
      double found[kDraws];
      kernels_.largest(gram, M_, work(), found);
      for (Index d = 0; d < kDraws; ++d) values[d] = std::max(values[d], found[d]);
      return;
    }
    for (Index d = 0; d < kDraws; ++d)
      if ((reaching >> d & 1u) != 0) set_aside(gram, d);
  }

  void settle() {
    if (doubtful_ == 0) return;
    double found[kDraws];
    kernels_.largest(rooms_.doubtful.of(detail::lane_size(M_)), M_, work(), found);
    for (Index i = 0; i < doubtful_; ++i) values[draws_[i]] = std::max(values[draws_[i]], found[i]);
    doubtful_ = 0;
  }

  double values[kDraws] = {};

 private:
  // Draws in which the largest eigenvalue may reach `values`. It exceeds the mean of all by
  // sqrt(M - 1) of their standard deviations at most. Where eigenvalues are alike, their variance
  // is a difference of two numbers that rounding may have made equal: a few roundings a row.
  unsigned by_sums(const detail::LaneSums& sums) const {
    const auto order = static_cast<double>(M_);
    const double rounding = 0x1p-50 * order;
    unsigned found = 0;
    for (Index d = 0; d < kDraws; ++d) {
      const double mean = sums.sum[d] / order, square = sums.squares[d] / order;
      const double variance = std::max(0.0, square - mean * mean) + rounding * square;
      if (!(mean + std::sqrt((order - 1.0) * variance) < values[d])) found |= 1u << d;
    }
    return found & all_;
  }

  double* work() {
    return rooms_.work.of(std::max(detail::lane_gram_work(M_), detail::lane_factor_work(M_)));
  }

  void set_aside(const double* gram, Index draw) {
    double* const to = rooms_.doubtful.of(detail::lane_size(M_)) + doubtful_;
    for (Index i = 0; i < M_; ++i) {
      const Index row = i * detail::lane_stride(M_);
      for (Index j = row; j <= row + i; ++j) to[j * kDraws] = gram[j * kDraws + draw];
    }
    draws_[doubtful_++] = draw;
    if (doubtful_ == kDraws) settle();
  }

  const detail::LaneKernels& kernels_;
  const Index M_;
  const unsigned all_;
  Rooms& rooms_;
  bool is_first_ = true;
  Index doubtful_ = 0, draws_[kDraws] = {};
};

class LaneDrawing {
 public:
  LaneDrawing(const MatrixStack& stack, std::span<const std::uint8_t> bits, bool centred)
      : stack_(stack),
        bits_(bits),
        centred_(centred),
        size_(stack.rows * stack.cols),
        kernels_(PS_SELECT_ISA(detail::lane_kernels)),
        order_(static_cast<std::size_t>(stack.count)) {
    std::iota(order_.begin(), order_.end(), Index{0});
    if (stack.count == 1) return;
    std::vector<double> promise;
    for (Index k : order_) promise.push_back(promised(stack.data + k * size_));
    std::stable_sort(order_.begin(), order_.end(), [&](Index a, Index b) {
      return promise[static_cast<std::size_t>(a)] > promise[static_cast<std::size_t>(b)];
    });
  }

  // Draws [first, first + kDraws), or those of them that `out` has.
  void draw(Index first, std::span<SignDraw> out) const {
    Lent<Rooms> lent;
    Rooms& rooms = *lent;
    const Index N = std::max(stack_.rows, stack_.cols), M = std::min(stack_.rows, stack_.cols);
    const Index count = std::min(kDraws, static_cast<Index>(out.size()) - first);
    rooms.signs.resize(static_cast<std::size_t>((size_ + kWordBits - 1) / kWordBits));
    double* const gram = rooms.gram.of(detail::lane_size(M));
    double sum[kDraws] = {}, squares[kDraws] = {};
    Largest largest(kernels_, M, count, rooms);
    for (Index k : order_) {
      take_signs(rooms.signs, first, count, k);
      const detail::LaneMatrix W{stack_.data + k * size_, rooms.signs.data(), N, M,
                                 stack_.rows >= stack_.cols};
      detail::LaneSums found;
      kernels_.gram(W, centred_, gram, rooms.work.of(detail::lane_gram_work(M)), found);
      for (Index d = 0; d < count; ++d) {
        sum[d] += found.sum[d];
        squares[d] += found.squares[d];
      }
      largest.add(gram, found);
    }
    largest.settle();
    for (Index d = 0; d < count; ++d)
      out[static_cast<std::size_t>(first + d)] =
          sign_statistics(sum[d], squares[d], largest.values[d]);
  }

 private:
  // Where random signs put about the largest singular value: that of the largest row and of the
  // largest column together.
  double promised(const double* entries) const {
    std::vector<double> of_cols(static_cast<std::size_t>(stack_.cols));
    double most = 0.0;
    for (Index r = 0; r < stack_.rows; ++r) {
      double of_row = 0.0;
      for (Index c = 0; c < stack_.cols; ++c) {
        const double x = entries[r * stack_.cols + c];
        of_row += x * x;
        of_cols[static_cast<std::size_t>(c)] += x * x;
      }
      most = std::max(most, of_row);
    }
    const double found =
        std::sqrt(most) + std::sqrt(*std::max_element(of_cols.begin(), of_cols.end()));
    return found >= 0.0 ? found : kInfinity;
  }

  // The signs of matrix k in `count` draws; pluses in what is left of the lanes.
  void take_signs(std::vector<detail::LaneWords>& signs, Index first, Index count, Index k) const {
    Index at = (first * stack_.count + k) * size_;
    for (Index d = 0; d < kDraws; ++d, at += stack_.count * size_)
      for (std::size_t w = 0; w < signs.size(); ++w)
        signs[w].of[d] = d < count ? word_at(bits_, at + static_cast<Index>(w) * kWordBits) : 0;
  }

  const MatrixStack stack_;
  const std::span<const std::uint8_t> bits_;
  const bool centred_;
  const Index size_;
  const detail::LaneKernels& kernels_;
  std::vector<Index> order_;
};

}  // namespace

SignDraw sign_statistics(double sum, double squares, double largest) {
  if (!std::isfinite(squares) || !(sum > 0.0)) return {kInfinity, kInfinity};
  return {squares / (sum * sum), largest / sum};
}

bool lanes_serve(Index M) { return M <= PS_SELECT_ISA(detail::lane_kernels).most; }

void lane_draws(const MatrixStack& stack, std::span<const std::uint8_t> bits, bool centred,
                std::span<SignDraw> out) {
  const LaneDrawing drawing(stack, bits, centred);
  const auto draws = static_cast<Index>(out.size());
  parallel_for((draws + kDraws - 1) / kDraws,
               [&](Index group) { drawing.draw(group * kDraws, out); });
}

}  // namespace pyspectra::linalg
