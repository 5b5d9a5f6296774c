#include "linalg/wide_band.hpp"

#include <algorithm>
#include <atomic>
#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <utility>
#include <vector>

#include "core/aligned.hpp"
#include "core/interrupt.hpp"
#include "core/isa.hpp"
#include "core/parallel.hpp"
#include "linalg/compact_wy.hpp"
#include "linalg/sweeps.hpp"

namespace pyspectra::linalg {
namespace {

using detail::kTileSize;
using detail::kWide;
using detail::WideBandKernels;

// Block rows whose sums are taken by one task; their sums are added in order.
constexpr Index kGroup = 4;
// A product is taken in about so many stripes of block rows, of heights between these: a high one
// adds up less beside its own rows, many of them keep many threads busy.
constexpr Index kStripes = 10, kLowest = 2, kTallest = 16;

// The lower triangle in strips of kWide columns, tile after tile, each row-major; the tiles of the
// diagonal are whole.
template <typename Real>
struct Tiles {
  Real* data;
  Index blocks;
  Real* at(Index I, Index J) const {
    return data + (blocks * J - J * (J - 1) / 2 + I - J) * kTileSize;
  }
};

// The tiles, the wide band and the narrow band are of `Real`, what comes in and goes out of double.
template <typename Real>
class Reduction {
 public:
  Reduction(const SymmetricView& a, const WideBandKernels<Real>& kernels)
      : kernels_(kernels),
        n_(a.n),
        blocks_((n_ + kWide - 1) / kWide),
        store_(aligned_buffer<Real>(blocks_ * (blocks_ + 1) / 2 * kTileSize)),
        panels_(aligned_buffer<Real>((4 * blocks_ + 2 * groups(blocks_) + 5) * kTileSize)),
        above_(aligned_buffer<Real>(std::max(2 * kStripes, blocks_ / kTallest + 1) * blocks_ *
                                    kTileSize)),
        band_(aligned_buffer<Real>(band_size(blocks_))),
        A_{store_.get(), blocks_},
        early_(static_cast<std::size_t>(blocks_)) {
    W_ = panels_.get();
    Y_ = W_ + blocks_ * kTileSize;
    Vt_ = Y_ + blocks_ * kTileSize;
    Wt_ = Vt_ + blocks_ * kTileSize;
    sums_ = Wt_ + blocks_ * kTileSize;
    T_ = sums_ + 2 * groups(blocks_) * kTileSize;
    finite_ = find_scale(a);
    fill(a);
  }

  bool finite() const { return finite_; }
  int exponent() const { return exponent_; }

  void run(double* d, double* e) {
    to_wide_band();
    store_.reset();
    narrow(kernels_, band_.get(), n_, d, e);
  }

  // The first stage alone, and all that it leaves.
  detail::FloatStage run_first() && {
    to_wide_band();
    detail::FloatStage out{n_, blocks_, scale(), std::move(store_), std::move(tau_), {}};
    const Index columns = (blocks_ + 2) * kWide;
    constexpr Index kOut = detail::kBandStride<double>;
    out.band = aligned_buffer<double>(columns * (kOut + 1) + 2 * kWide);
    std::fill_n(out.band.get(), columns * (kOut + 1) + 2 * kWide, 0.0);
    for (Index j = 0; j < n_; ++j)
      for (Index i = j; i < std::min(n_, j + 2 * kWide); ++i)
        out.band[j * kOut + i] = band_[j * kBandStride + i];
    return out;
  }

  // Second and third stage.
  static void narrow(const WideBandKernels<Real>& kernels, Real* band, Index n, double* d,
                     double* e) {
    to_narrow_band(kernels, band, n);
    const Buffer<Real> work = aligned_buffer<Real>((n + 3 * kernels.lanes) * 2 * kernels.lanes);
    kernels.take(band, n, work.get());
    // Groups of as many sweeps as go down together: the next group starts when they are on their
    // way. A thread alone does better without the steps at both ends of a group.
    const Index each = num_threads() > 1 ? kernels.sweeps : n;
    detail::in_groups(n - 1, each, [&](Index first, Index last, const detail::Following& follow) {
      kernels.chase(work.get(), n, first, last, follow, check_interrupt);
    });
    kernels.read(work.get(), n, d, e);
  }

 private:
  using Factor = detail::Factor<Real>;
  using WideSweep = detail::WideSweep<Real>;
  static constexpr Index kBandStride = detail::kBandStride<Real>;

  // Two blocks of columns more than the matrix: the last steps of a sweep overhang it. Element
  // (i, j) is at j * kBandStride + i, so that a column takes kBandStride + 1.
  static Index band_size(Index blocks) {
    return (blocks + 2) * kWide * (kBandStride + 1) + 2 * kWide;
  }
  static Index groups(Index blocks) { return (blocks + kGroup - 1) / kGroup; }

  // The power of two that takes the largest entry to [1/2, 1), or near it at the ends of the range.
  double scale() const { return std::ldexp(1.0, -exponent_); }

  // False where an entry is not finite. Magnitudes compare as integers, where NaN is above
  // everything, and a maximum of integers vectorises.
  bool find_scale(const SymmetricView& a) {
    const auto magnitude = [](double x) {
      return std::bit_cast<std::uint64_t>(x) & ~(std::uint64_t{1} << 63);
    };
    constexpr int kMostExponent = 1000;
    std::vector<std::uint64_t> most(static_cast<std::size_t>(blocks_), 0);
    parallel_for(blocks_, [&](Index J) {
      check_interrupt();
      const Index begin = J * kWide, end = std::min(n_, begin + kWide);
      std::uint64_t largest = 0;
      const auto look = [&](const double* run, Index count, Index step) {
        if (step == 1)
          for (Index k = 0; k < count; ++k) largest = std::max(largest, magnitude(run[k]));
        else
          for (Index k = 0; k < count; ++k) largest = std::max(largest, magnitude(run[k * step]));
      };
      for (Index k = begin; k < end; ++k) {
        if (a.row_stride == 1)
          look(a.data + k * (1 + a.col_stride), n_ - k, 1);
        else
          look(a.data + k * a.row_stride, k + 1, a.col_stride);
      }
      most[static_cast<std::size_t>(J)] = largest;
    });
    const double largest = std::bit_cast<double>(*std::max_element(most.begin(), most.end()));
    if (!(largest <= std::numeric_limits<double>::max())) return false;
    std::frexp(largest, &exponent_);
    exponent_ = std::clamp(exponent_, -kMostExponent, kMostExponent);
    return true;
  }

  // The tiles, scaled, and a band of zeros.
  void fill(const SymmetricView& a) {
    const double by = scale();
    parallel_for(blocks_, [&](Index J) {
      check_interrupt();
      for (Index I = J; I < blocks_; ++I) fill_tile(a, by, I, J);
    });
    std::fill(band_.get(), band_.get() + band_size(blocks_), Real{0});
  }

  void fill_tile(const SymmetricView& a, double by, Index I, Index J) {
    Real* const out = A_.at(I, J);
    const Index rows = std::min(n_ - I * kWide, kWide), columns = std::min(n_ - J * kWide, kWide);
    if (rows < kWide || columns < kWide) std::fill(out, out + kTileSize, Real{0});
    const double* const in = a.data + I * kWide * a.row_stride + J * kWide * a.col_stride;
    if (I != J && a.row_stride == 1 && rows == kWide && columns == kWide)
      return kernels_.take_columns(in, a.col_stride, by, out);
    const auto copy = [&](const double* row, Index count, Index step, Real* to) {
      if (step == 1)
        for (Index j = 0; j < count; ++j) to[j] = static_cast<Real>(by * row[j]);
      else
        for (Index j = 0; j < count; ++j) to[j] = static_cast<Real>(by * row[j * step]);
    };
    for (Index i = 0; i < rows; ++i)
      copy(in + i * a.row_stride, I == J ? i + 1 : columns, a.col_stride, out + i * kWide);
    if (I != J) return;
    for (Index i = 0; i < rows; ++i)
      for (Index j = 0; j < i; ++j) out[j * kWide + i] = out[i * kWide + j];
  }

  Real* V(Index p, Index I) const { return A_.at(I, p); }
  Real* tau(Index p) { return tau_.data() + p * kWide; }

  void to_wide_band() {
    std::vector<Real> r(kTileSize);
    tau_.assign(static_cast<std::size_t>(blocks_ * kWide), Real{0});
    for (Index p = 0; p < blocks_; ++p) {
      check_interrupt();
      const Index left = blocks_ - p - 1;
      if (p > 0)
        parallel_for(left + 1, [&](Index k) {
          update(p, p + k, p, A_.at(std::min(p + k + 1, blocks_ - 1), p));
        });
      if (left > 0) factor(p, r.data());
      keep_band(p, left > 0 ? r.data() : nullptr);
      if (left == 0) break;
      multiply(p);
      finish_panel(p);
      std::swap(W_, Y_);
    }
  }

  // The block rows of the product with panel p, in stripes of `height` of them.
  struct Stripes {
    Index first, height, count;
    Index begin(Index stripe) const { return first + stripe * height; }
  };
  Stripes stripes(Index p) const {
    const Index left = blocks_ - p - 1, height = std::clamp(left / kStripes, kLowest, kTallest);
    return {p + 1, height, (left + height - 1) / height};
  }

  // One thread factors the panel. For as long as that takes, others bring columns of the last
  // stripe, with which the product begins, to what the panel before leaves.
  void factor(Index p, Real* r) {
    const Stripes all = stripes(p);
    const Index first = all.first, begin = all.begin(all.count - 1);
    std::atomic<bool> factored{false};
    std::fill(early_.begin(), early_.end(), false);
    parallel_for(p > 0 ? 1 + blocks_ - first : 1, [&](Index task) {
      if (task == 0) {
        kernels_.tiles.factor(A_.at(first, p), (blocks_ - first) * kWide, r, tau(p));
        factored.store(true, std::memory_order_relaxed);
      } else if (!factored.load(std::memory_order_relaxed)) {
        const Index J = p + task;
        for (Index I = std::max(J, begin); I < blocks_; ++I)
          update(p, I, J, A_.at(std::min(I + 1, blocks_ - 1), J));
        early_[static_cast<std::size_t>(J)] = true;
      }
    });
  }

  // Y = A V, and before it A as the panel before p leaves it. A task has some block rows, whose
  // part in the rows above them it adds up apart: each tile is in the cache once.
  void multiply(Index p) {
    const Stripes all = stripes(p);
    const Index first = all.first;
    parallel_for(all.count, [&](Index task) {
      const Index stripe = all.count - 1 - task;  // most work first
      const Index begin = all.begin(stripe), end = std::min(blocks_, begin + all.height);
      Real* const above = above_.get() + stripe * blocks_ * kTileSize;
      std::fill(above + first * kTileSize, above + end * kTileSize, Real{0});
      std::fill(Y_ + begin * kTileSize, Y_ + end * kTileSize, Real{0});
      for (Index J = first; J < end; ++J) {
        // Next come a tile of this column or the first one of the column after, and what belongs to
        // the rows of that column.
        const Index after = std::min(J + 1, end - 1), top = std::max(J, begin);
        const Real* const wanted[] = {V(p, after), Wt_ + after * kTileSize, Vt_ + after * kTileSize,
                                      above + after * kTileSize};
        const bool updated = p == 0 || (task == 0 && early_[static_cast<std::size_t>(J)]);
        for (Index I = top; I < end; ++I) {
          const Real* const next =
              I + 1 < end ? A_.at(I + 1, J) : A_.at(std::max(after, begin), after);
          if (!updated) update(p, I, J, next);
          const Factor row{A_.at(I, J), kWide, 1, V(p, J)}, column{A_.at(I, J), 1, kWide, V(p, I)};
          kernels_.product_ahead(Y_ + I * kTileSize, &row, 1, wanted[std::min<Index>(I - top, 3)]);
          if (I > J) kernels_.tiles.product(above + J * kTileSize, &column, 1);
        }
      }
    });
    parallel_for(groups(blocks_ - first), [&](Index g) { add_up(p, all, g); });
  }

  // Y of a group of block rows from its parts, and the group's part in V^T V and V^T Y.
  void add_up(Index p, const Stripes& all, Index g) {
    Real* const vv = sums_ + 2 * g * kTileSize;
    Real* const vy = vv + kTileSize;
    std::fill(vv, vy + kTileSize, Real{0});
    const Index begin = all.first + g * kGroup;
    for (Index J = begin; J < std::min(blocks_, begin + kGroup); ++J) {
      Real* const y = Y_ + J * kTileSize;
      for (Index stripe = (J - all.first) / all.height; stripe < all.count; ++stripe) {
        const Real* const part = above_.get() + (stripe * blocks_ + J) * kTileSize;
        for (Index q = 0; q < kTileSize; ++q) y[q] += part[q];
      }
      const Factor squares{V(p, J), 1, kWide, V(p, J)}, products{V(p, J), 1, kWide, y};
      kernels_.tiles.product(vv, &squares, 1);
      kernels_.tiles.product(vy, &products, 1);
    }
  }

  // Tile (I, J) as the panel before p leaves it, while the tile `next` comes into the cache.
  void update(Index p, Index I, Index J, const Real* next) {
    const Factor factors[2] = {{V(p - 1, I), kWide, 1, Wt_ + J * kTileSize},
                               {W_ + I * kTileSize, kWide, 1, Vt_ + J * kTileSize}};
    kernels_.product_ahead(A_.at(I, J), factors, 2, next);
  }

  void keep_band(Index p, const Real* r) {
    const Real* const diagonal = A_.at(p, p);
    for (Index c = 0; c < kWide; ++c) {
      const Index column = p * kWide + c;
      Real* const out = band_.get() + column * kBandStride + p * kWide;
      for (Index i = c; i < kWide; ++i) out[i] = diagonal[i * kWide + c];
      if (r == nullptr) continue;
      for (Index i = 0; i <= c; ++i) out[kWide + i] = r[i * kWide + c];
    }
  }

  // W from Y = A V, and minus the transposes of V and W.
  void finish_panel(Index p) {
    const Index first = p + 1, left = blocks_ - first;
    Real* const G = sums_;
    Real* const Z = sums_ + kTileSize;
    for (Index g = 1; g < groups(left); ++g)
      for (Index k = 0; k < 2 * kTileSize; ++k) G[k] += sums_[2 * g * kTileSize + k];
    Real* const T = T_;
    Real* const half = T + kTileSize;
    Real* const scratch = half + kTileSize;
    std::fill(half, half + 2 * kTileSize, Real{0});
    detail::compact_wy(G, tau(p), T);
    const Factor right{Z, kWide, 1, T};
    kernels_.tiles.product(scratch, &right, 1);
    const Factor transposed{T, 1, kWide, scratch};
    kernels_.tiles.product(half, &transposed, 1);
    for (Index k = 0; k < kTileSize; ++k) half[k] *= Real{-0.5};
    parallel_for(left, [&](Index k) {
      const Index I = first + k;
      Real* const y = Y_ + I * kTileSize;
      alignas(64) Real w[kTileSize] = {};
      const Factor factors[2] = {{y, kWide, 1, T}, {V(p, I), kWide, 1, half}};
      kernels_.tiles.product(w, factors, 2);
      std::copy(w, w + kTileSize, y);
      kernels_.negated_transpose(w, Wt_ + I * kTileSize);
      kernels_.negated_transpose(V(p, I), Vt_ + I * kTileSize);
    });
  }

  static void to_narrow_band(const WideBandKernels<Real>& kernels, Real* band, Index n) {
    detail::in_waves<WideSweep>(
        n, kernels.lanes, [&](Index s, WideSweep& sweep) { kernels.begin(band, s, sweep); },
        [&](WideSweep& sweep) { kernels.advance(band, sweep); });
  }

  const WideBandKernels<Real> kernels_;
  const Index n_, blocks_;
  Buffer<Real> store_, panels_, above_, band_;
  const Tiles<Real> A_;
  Real *W_, *Y_, *Vt_, *Wt_, *sums_, *T_;
  std::vector<char> early_;  // columns of the last stripe that are up to date
  std::vector<Real> tau_;
  int exponent_ = 0;
  bool finite_ = true;
};

}  // namespace

std::optional<int> tridiagonalize_large(const SymmetricView& a, double* d, double* e) {
  Reduction<double> reduction(a, PS_SELECT_ISA(detail::wide_band));
  if (!reduction.finite()) return std::nullopt;
  reduction.run(d, e);
  return reduction.exponent();
}

namespace detail {

FloatStage to_wide_band_float(const double* a, Index n, Index lda) {
  return Reduction<float>({a, n, 1, lda}, PS_SELECT_ISA(wide_band_float)).run_first();
}

void wide_band_to_tridiagonal(double* band, Index n, double* d, double* e) {
  Reduction<double>::narrow(PS_SELECT_ISA(wide_band), band, n, d, e);
}

}  // namespace detail

}  // namespace pyspectra::linalg
