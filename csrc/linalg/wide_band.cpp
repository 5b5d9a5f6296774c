#include "linalg/wide_band.hpp"

#include <algorithm>
#include <cmath>
#include <memory>
#include <new>
#include <vector>

#include "core/interrupt.hpp"
#include "core/isa.hpp"
#include "core/parallel.hpp"

namespace pyspectra::linalg {
namespace {

using detail::Factor;
using detail::kBandStride;
using detail::kWide;
using detail::WideBandKernels;
using detail::WideSweep;

constexpr Index kTile = kWide * kWide;
// Block rows whose sums are taken by one task; their sums are added in order.
constexpr Index kGroup = 4;
// A product is taken in about so many stripes of block rows, at most so high.
constexpr Index kStripes = 8, kTallest = 8;

struct AlignedFree {
  void operator()(double* p) const { ::operator delete(p, std::align_val_t{64}); }
};
using Buffer = std::unique_ptr<double[], AlignedFree>;

Buffer buffer(Index count) {
  return Buffer(static_cast<double*>(
      ::operator new(static_cast<std::size_t>(count) * sizeof(double), std::align_val_t{64})));
}

// The lower triangle in strips of kWide columns, tile after tile, each row-major; the tiles of the
// diagonal are whole.
struct Tiles {
  double* data;
  Index blocks;
  double* at(Index I, Index J) const {
    return data + (blocks * J - J * (J - 1) / 2 + I - J) * kTile;
  }
};

class Reduction {
 public:
  Reduction(const double* a, Index n, Index lda)
      : kernels_(PS_SELECT_ISA(detail::wide_band)),
        n_(n),
        blocks_((n + kWide - 1) / kWide),
        store_(buffer(blocks_ * (blocks_ + 1) / 2 * kTile)),
        panels_(buffer((4 * blocks_ + 2 * groups(blocks_) + 5) * kTile)),
        above_(buffer(std::max(2 * kStripes, blocks_ / kTallest + 1) * blocks_ * kTile)),
        band_(buffer(band_size(blocks_))),
        A_{store_.get(), blocks_} {
    W_ = panels_.get();
    Y_ = W_ + blocks_ * kTile;
    Vt_ = Y_ + blocks_ * kTile;
    Wt_ = Vt_ + blocks_ * kTile;
    sums_ = Wt_ + blocks_ * kTile;
    T_ = sums_ + 2 * groups(blocks_) * kTile;
    fill(a, lda);
  }

  void run(double* d, double* e) {
    to_wide_band();
    store_.reset();
    to_narrow_band();
    const Buffer work = buffer((n_ + 32) * 16);
    kernels_.finish(band_.get(), n_, d, e, work.get(), check_interrupt);
    for (Index i = 0; i < n_; ++i) d[i] /= scale_;
    for (Index i = 0; i + 1 < n_; ++i) e[i] /= scale_;
  }

 private:
  // Two blocks of columns more than the matrix: the last steps of a sweep overhang it. Element
  // (i, j) is at j * kBandStride + i, so that a column takes kBandStride + 1.
  static Index band_size(Index blocks) {
    return (blocks + 2) * kWide * (kBandStride + 1) + 2 * kWide;
  }
  static Index groups(Index blocks) { return (blocks + kGroup - 1) / kGroup; }

  // The tiles, scaled by a power of two to a largest entry in [1/2, 1), and a band of zeros.
  void fill(const double* a, Index lda) {
    std::vector<double> most(static_cast<std::size_t>(blocks_), 0.0);
    parallel_for(blocks_, [&](Index J) {
      double& largest = most[static_cast<std::size_t>(J)];
      for (Index j = J * kWide; j < std::min(n_, (J + 1) * kWide); ++j)
        for (Index i = j; i < n_; ++i) largest = std::max(largest, std::abs(a[j * lda + i]));
    });
    int exponent = 0;
    std::frexp(*std::max_element(most.begin(), most.end()), &exponent);
    scale_ = std::ldexp(1.0, -exponent);
    parallel_for(blocks_, [&](Index J) {
      for (Index I = J; I < blocks_; ++I) fill_tile(a, lda, I, J);
    });
    std::fill(band_.get(), band_.get() + band_size(blocks_), 0.0);
  }

  void fill_tile(const double* a, Index lda, Index I, Index J) {
    double* const out = A_.at(I, J);
    std::fill(out, out + kTile, 0.0);
    const Index rows = std::min(n_ - I * kWide, kWide), columns = std::min(n_ - J * kWide, kWide);
    for (Index j = 0; j < columns; ++j)
      for (Index i = I == J ? j : 0; i < rows; ++i) {
        const double x = scale_ * a[(J * kWide + j) * lda + I * kWide + i];
        out[i * kWide + j] = x;
        if (I == J) out[j * kWide + i] = x;
      }
  }

  double* V(Index p, Index I) const { return A_.at(I, p); }

  void to_wide_band() {
    std::vector<double> r(kTile), tau(kWide);
    for (Index p = 0; p < blocks_; ++p) {
      check_interrupt();
      const Index left = blocks_ - p - 1;
      if (p > 0) parallel_for(left + 1, [&](Index k) { update(p, p + k, p); });
      if (left > 0) kernels_.factor(A_.at(p + 1, p), left * kWide, r.data(), tau.data());
      keep_band(p, left > 0 ? r.data() : nullptr);
      if (left == 0) break;
      multiply(p);
      finish_panel(p, tau);
      std::swap(W_, Y_);
    }
  }

  // Y = A V, and before it A as the panel before p leaves it. A task has some block rows, whose
  // part in the rows above them it adds up apart: each tile is in the cache once.
  void multiply(Index p) {
    const Index first = p + 1, left = blocks_ - first;
    const Index height = std::clamp(left / kStripes, Index{1}, kTallest);
    const Index stripes = (left + height - 1) / height;
    parallel_for(stripes, [&](Index task) {
      const Index stripe = stripes - 1 - task;  // most work first
      const Index begin = first + stripe * height, end = std::min(blocks_, begin + height);
      double* const above = above_.get() + stripe * blocks_ * kTile;
      std::fill(above + first * kTile, above + end * kTile, 0.0);
      std::fill(Y_ + begin * kTile, Y_ + end * kTile, 0.0);
      for (Index J = first; J < end; ++J)
        for (Index I = std::max(J, begin); I < end; ++I) {
          if (p > 0) update(p, I, J);
          const Factor row{A_.at(I, J), kWide, 1, V(p, J)}, column{A_.at(I, J), 1, kWide, V(p, I)};
          kernels_.product(Y_ + I * kTile, &row, 1);
          if (I > J) kernels_.product(above + J * kTile, &column, 1);
        }
    });
    parallel_for(left, [&](Index k) {
      const Index J = first + k;
      double* const y = Y_ + J * kTile;
      for (Index stripe = k / height; stripe < stripes; ++stripe) {
        const double* const part = above_.get() + (stripe * blocks_ + J) * kTile;
        for (Index q = 0; q < kTile; ++q) y[q] += part[q];
      }
    });
  }

  // Tile (I, J) as the panel before p leaves it.
  void update(Index p, Index I, Index J) {
    const Factor factors[2] = {{V(p - 1, I), kWide, 1, Wt_ + J * kTile},
                               {W_ + I * kTile, kWide, 1, Vt_ + J * kTile}};
    kernels_.product(A_.at(I, J), factors, 2);
  }

  void keep_band(Index p, const double* r) {
    const double* const diagonal = A_.at(p, p);
    for (Index c = 0; c < kWide; ++c) {
      const Index column = p * kWide + c;
      double* const out = band_.get() + column * kBandStride + p * kWide;
      for (Index i = c; i < kWide; ++i) out[i] = diagonal[i * kWide + c];
      if (r == nullptr) continue;
      for (Index i = 0; i <= c; ++i) out[kWide + i] = r[i * kWide + c];
    }
  }

  // W from Y = A V, and minus the transposes of V and W.
  void finish_panel(Index p, const std::vector<double>& tau) {
    const Index first = p + 1, left = blocks_ - first, n_groups = groups(left);
    parallel_for(n_groups, [&](Index g) {
      double* const vv = sums_ + 2 * g * kTile;
      double* const vy = vv + kTile;
      std::fill(vv, vy + kTile, 0.0);
      for (Index I = first + g * kGroup; I < std::min(blocks_, first + (g + 1) * kGroup); ++I) {
        const Factor squares{V(p, I), 1, kWide, V(p, I)},
            products{V(p, I), 1, kWide, Y_ + I * kTile};
        kernels_.product(vv, &squares, 1);
        kernels_.product(vy, &products, 1);
      }
    });
    double* const G = sums_;
    double* const Z = sums_ + kTile;
    for (Index g = 1; g < n_groups; ++g)
      for (Index k = 0; k < 2 * kTile; ++k) G[k] += sums_[2 * g * kTile + k];
    double* const T = T_;
    double* const half = T + kTile;
    double* const scratch = half + kTile;
    std::fill(T, T + 3 * kTile, 0.0);
    for (Index k = 0; k < kWide; ++k) {
      T[k * kWide + k] = tau[k];
      for (Index i = 0; i < k; ++i) {
        double sum = 0.0;
        for (Index q = i; q < k; ++q) sum += T[i * kWide + q] * G[q * kWide + k];
        T[i * kWide + k] = -tau[k] * sum;
      }
    }
    const Factor right{Z, kWide, 1, T};
    kernels_.product(scratch, &right, 1);
    const Factor transposed{T, 1, kWide, scratch};
    kernels_.product(half, &transposed, 1);
    for (Index k = 0; k < kTile; ++k) half[k] *= -0.5;
    parallel_for(left, [&](Index k) {
      const Index I = first + k;
      double* const y = Y_ + I * kTile;
      double* const wt = Wt_ + I * kTile;  // first as scratch
      std::fill(wt, wt + kTile, 0.0);
      const Factor factors[2] = {{y, kWide, 1, T}, {V(p, I), kWide, 1, half}};
      kernels_.product(wt, factors, 2);
      std::copy(wt, wt + kTile, y);
      negated_transpose(y, wt);
      negated_transpose(V(p, I), Vt_ + I * kTile);
    });
  }

  static void negated_transpose(const double* in, double* out) {
    for (Index i0 = 0; i0 < kWide; i0 += 8)
      for (Index j = 0; j < kWide; ++j)
        for (Index i = i0; i < i0 + 8; ++i) out[j * kWide + i] = -in[i * kWide + j];
  }

  void to_narrow_band() {
    const Index lanes = kernels_.lanes;
    const Index total = (n_ - 1) / lanes;  // sweeps: columns [0, total * lanes) have rows below
    std::vector<WideSweep> sweeps(static_cast<std::size_t>(n_ / (2 * kWide) + 2));
    const Index ring = static_cast<Index>(sweeps.size());
    Index oldest = 0;
    for (Index time = 0; oldest < total; ++time) {
      // Sweep s does its block k at the time 2 s + k + 1, and begins at 2 s.
      const Index newest = std::min(total - 1, time / 2);
      parallel_for(newest - oldest + 1, [&](Index k) {
        const Index s = oldest + k;
        WideSweep& sweep = sweeps[static_cast<std::size_t>(s % ring)];
        if (time == 2 * s)
          kernels_.begin(band_.get(), s, sweep);
        else if (sweep.column < n_)
          kernels_.advance(band_.get(), sweep);
      });
      while (oldest <= newest && sweeps[static_cast<std::size_t>(oldest % ring)].column >= n_)
        ++oldest;
    }
  }

  const WideBandKernels kernels_;
  const Index n_, blocks_;
  Buffer store_, panels_, above_, band_;
  const Tiles A_;
  double *W_, *Y_, *Vt_, *Wt_, *sums_, *T_;
  double scale_ = 1.0;
};

}  // namespace

void tridiagonalize_large(const double* a, Index n, Index lda, double* d, double* e) {
  Reduction(a, n, lda).run(d, e);
}

}  // namespace pyspectra::linalg
