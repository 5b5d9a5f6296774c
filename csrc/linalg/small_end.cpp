#include "linalg/small_end.hpp"

#include <algorithm>
#include <cmath>
#include <vector>

#include "core/aligned.hpp"
#include "core/error.hpp"
#include "core/interrupt.hpp"
#include "core/isa.hpp"
#include "core/lent.hpp"
#include "core/parallel.hpp"
#include "linalg/compact_wy.hpp"
#include "linalg/wide_band.hpp"

namespace pyspectra::linalg {
namespace {

using detail::kTileSize;
using detail::kWide;

using Factor = detail::Factor<double>;
using TileKernels = detail::TileKernels<double>;

// Products that one call of the kernel adds up: their right-hand tiles stay in the first-level
// cache while the rows of the result go by.
constexpr int kTogether = 4;

Index blocks_of(Index n) { return (n + kWide - 1) / kWide; }

// Tile (I, J), I >= J, of a lower triangle: row after row.
template <typename Real>
Real* tile_at(Real* L, Index I, Index J) {
  return L + (I * (I + 1) / 2 + J) * kTileSize;
}

void negate(const double* in, double* out) {
  for (Index k = 0; k < kTileSize; ++k) out[k] = -in[k];
}

void negate_transposed(const double* in, double* out) {
  for (Index i0 = 0; i0 < kWide; i0 += 8)
    for (Index j = 0; j < kWide; ++j)
      for (Index i = i0; i < i0 + 8; ++i) out[j * kWide + i] = -in[i * kWide + j];
}

// Adds up products, a few in each call of the kernel.
class Sum {
 public:
  Sum(const TileKernels& kernels, double* out) : kernels_(kernels), out_(out) {}
  void add(const Factor& factor) {
    factors_[count_++] = factor;
    if (count_ == kTogether) finish();
  }
  void finish() {
    if (count_ > 0) kernels_.product(out_, factors_, count_);
    count_ = 0;
  }

 private:
  const TileKernels& kernels_;
  double* out_;
  Factor factors_[kTogether];
  int count_ = 0;
};

// The inverse of the Cholesky factor of a tile, in its place; pivots below `least` become `least`.
void invert_factor(double* A, double least) {
  double column[kWide], reciprocal[kWide], inverse[kTileSize] = {};
  for (Index j = 0; j < kWide; ++j) {
    reciprocal[j] = 1.0 / std::sqrt(std::max(A[j * kWide + j], least));
    for (Index i = j + 1; i < kWide; ++i) column[i] = A[i * kWide + j] *= reciprocal[j];
    for (Index i = j + 1; i < kWide; ++i) {
      const double factor = column[i];
      for (Index q = j + 1; q <= i; ++q) A[i * kWide + q] -= factor * column[q];
    }
  }
  for (Index i = 0; i < kWide; ++i) {
    double* const row = inverse + i * kWide;
    for (Index k = 0; k < i; ++k) {
      const double factor = A[i * kWide + k];
      for (Index j = 0; j <= k; ++j) row[j] -= factor * inverse[k * kWide + j];
    }
    row[i] = 1.0;
    for (Index j = 0; j <= i; ++j) row[j] *= reciprocal[i];
  }
  std::copy(inverse, inverse + kTileSize, A);
}

void fill_tile(const double* G, Index n, Index lda, double shift, Index I, Index J, double* out) {
  std::fill(out, out + kTileSize, 0.0);
  const Index rows = std::min(n - I * kWide, kWide), columns = std::min(n - J * kWide, kWide);
  for (Index j = 0; j < columns; ++j)
    for (Index i = I == J ? j : 0; i < rows; ++i)
      out[i * kWide + j] = G[(J * kWide + j) * lda + I * kWide + i];
  if (I != J) return;
  for (Index j = 0; j < kWide; ++j)
    out[j * kWide + j] = j < columns ? out[j * kWide + j] + shift : 1.0;
}

// Blocks of vectors as panels of kWide columns, each row-major with whole tiles of rows.
class Panels {
 public:
  Panels(const TileKernels& kernels, Index n, Index p)
      : kernels_(kernels),
        n_(n),
        p_(p),
        blocks_(blocks_of(n)),
        panels_(blocks_of(p)),
        size_(blocks_ * kTileSize),
        data_(aligned_buffer<double>(panels_ * size_)),
        scratch_(aligned_buffer<double>(panels_ * size_)) {}

  void read(const double* X) {
    std::fill(data_.get(), data_.get() + panels_ * size_, 0.0);
    for (Index i = 0; i < n_; ++i)
      for (Index j = 0; j < p_; ++j) *at(i, j) = X[i * p_ + j];
    // Columns of the last panel that X has not: any others, which go along.
    for (Index j = p_; j < panels_ * kWide; ++j) *at((j * 7919) % n_, j) = 1.0;
  }

  void write(double* X) {
    for (Index i = 0; i < n_; ++i)
      for (Index j = 0; j < p_; ++j) X[i * p_ + j] = *at(i, j);
  }

  // x := L^-T L^-1 x, a few tiles of x at a time: those by their triangle, then all rows that wait
  // for them, spread over threads.
  void solve(const double* L) {
    for (Index first = 0; first < blocks_; first += kTogether) {
      check_interrupt();
      const Index last = std::min(blocks_, first + kTogether);
      parallel_for(panels_, [&](Index k) { forward(L, first, last, panel(k), scratch(k)); });
      parallel_for((blocks_ - last) * panels_, [&](Index task) {
        const Index I = last + task / panels_, k = task % panels_;
        Sum rest(kernels_, panel(k) + I * kTileSize);
        for (Index K = first; K < last; ++K)
          rest.add({tile_at(L, I, K), kWide, 1, scratch(k) + K * kTileSize});
        rest.finish();
      });
    }
    for (Index last = blocks_; last > 0; last = (last - 1) / kTogether * kTogether) {
      check_interrupt();
      const Index first = (last - 1) / kTogether * kTogether;
      parallel_for(panels_, [&](Index k) { backward(L, first, last, panel(k), scratch(k)); });
      parallel_for(first * panels_, [&](Index task) {
        const Index I = task / panels_, k = task % panels_;
        Sum rest(kernels_, panel(k) + I * kTileSize);
        for (Index K = first; K < last; ++K)
          rest.add({tile_at(L, K, I), 1, kWide, scratch(k) + K * kTileSize});
        rest.finish();
      });
    }
  }

  void orthonormalise() {
    for (Index k = 0; k < panels_; ++k) {
      for (int again = 0; again < (k > 0 ? 2 : 1); ++again) {
        for (Index before = 0; before < k; ++before) project(panel(before), panel(k), scratch(k));
        check_interrupt();
        orthonormalise(panel(k), scratch(k));
      }
    }
  }

 private:
  double* panel(Index k) const { return data_.get() + k * size_; }
  double* scratch(Index k) const { return scratch_.get() + k * size_; }
  double* at(Index i, Index j) const { return panel(j / kWide) + i * kWide + j % kWide; }

  // The tiles [first, last) of L^-1 x, of which the rows before them have had their part. `minus`
  // holds minus the solution, since the kernel only adds.
  void forward(const double* L, Index first, Index last, double* x, double* minus) const {
    for (Index I = first; I < last; ++I) {
      Sum rest(kernels_, x + I * kTileSize);
      for (Index K = first; K < I; ++K)
        rest.add({tile_at(L, I, K), kWide, 1, minus + K * kTileSize});
      rest.finish();
      times_diagonal({tile_at(L, I, I), kWide, 1, x + I * kTileSize}, x + I * kTileSize,
                     minus + I * kTileSize);
    }
  }

  // The same for L^-T x and the rows after them.
  void backward(const double* L, Index first, Index last, double* x, double* minus) const {
    for (Index I = last - 1; I >= first; --I) {
      Sum rest(kernels_, x + I * kTileSize);
      for (Index K = last - 1; K > I; --K)
        rest.add({tile_at(L, K, I), 1, kWide, minus + K * kTileSize});
      rest.finish();
      times_diagonal({tile_at(L, I, I), 1, kWide, x + I * kTileSize}, x + I * kTileSize,
                     minus + I * kTileSize);
    }
  }

  // x := the product, and minus it.
  void times_diagonal(const Factor& own, double* x, double* minus) const {
    alignas(64) double sum[kTileSize] = {};
    kernels_.product(sum, &own, 1);
    std::copy(sum, sum + kTileSize, x);
    negate(sum, minus);
  }

  // x -= q (q^T x) for orthonormal q.
  void project(const double* q, double* x, double* minus) const {
    alignas(64) double C[kTileSize];
    std::fill(C, C + kTileSize, 0.0);
    for (Index I = 0; I < blocks_; ++I) {
      const Factor one{q + I * kTileSize, 1, kWide, x + I * kTileSize};
      kernels_.product(C, &one, 1);
    }
    negate(C, minus);
    for (Index I = 0; I < blocks_; ++I) {
      const Factor one{q + I * kTileSize, kWide, 1, minus};
      kernels_.product(x + I * kTileSize, &one, 1);
    }
  }

  // x := the leading kWide columns of the Q of its QR factorisation, [I; 0] - V (T V_top^T).
  void orthonormalise(double* x, double* out) const {
    alignas(64) double r[kTileSize], G[kTileSize], T[kTileSize], top[kTileSize], M[kTileSize];
    double tau[kWide];
    scale(x);
    kernels_.factor(x, blocks_ * kWide, r, tau);
    std::fill(G, G + kTileSize, 0.0);
    for (Index I = 0; I < blocks_; ++I) {
      const Factor one{x + I * kTileSize, 1, kWide, x + I * kTileSize};
      kernels_.product(G, &one, 1);
    }
    detail::compact_wy(G, tau, T);
    negate_transposed(x, top);
    std::fill(M, M + kTileSize, 0.0);
    const Factor middle{T, kWide, 1, top};
    kernels_.product(M, &middle, 1);
    std::fill(out, out + blocks_ * kTileSize, 0.0);
    for (Index k = 0; k < kWide; ++k) out[k * kWide + k] = 1.0;
    for (Index I = 0; I < blocks_; ++I) {
      const Factor one{x + I * kTileSize, kWide, 1, M};
      kernels_.product(out + I * kTileSize, &one, 1);
    }
    std::copy(out, out + blocks_ * kTileSize, x);
  }

  // By a power of two, to a largest entry in [1/2, 1): the factorisation squares entries.
  void scale(double* x) const {
    double largest = 0.0;
    for (Index k = 0; k < size_; ++k) largest = std::max(largest, std::abs(x[k]));
    int exponent = 0;
    std::frexp(largest, &exponent);
    const double factor = std::ldexp(1.0, -exponent);
    for (Index k = 0; k < size_; ++k) x[k] *= factor;
  }

  const TileKernels& kernels_;
  const Index n_, p_, blocks_, panels_, size_;
  Buffer<double> data_, scratch_;
};

}  // namespace

Index shifted_factor_size(Index n) { return blocks_of(n) * (blocks_of(n) + 1) / 2 * kTileSize; }

void shifted_factor(const double* G, Index n, Index lda, double shift, double* L) {
  PS_REQUIRE(n >= 1 && lda >= n && shift > 0.0, "shifted_factor: no shift, or no matrix");
  const TileKernels kernels = PS_SELECT_ISA(detail::wide_band).tiles;
  const Index blocks = blocks_of(n);
  const Buffer<double> minus =
      aligned_buffer<double>(blocks * kTileSize);  // minus the transposes of row J
  for (Index J = 0; J < blocks; ++J) {
    check_interrupt();
    for (Index K = 0; K < J; ++K) negate_transposed(tile_at(L, J, K), minus.get() + K * kTileSize);
    const auto update = [&](Index I) {
      check_interrupt();
      double* const out = tile_at(L, I, J);
      fill_tile(G, n, lda, shift, I, J, out);
      Sum sum(kernels, out);
      for (Index K = 0; K < J; ++K)
        sum.add({tile_at(L, I, K), kWide, 1, minus.get() + K * kTileSize});
      sum.finish();
    };
    update(J);
    double* const diagonal = tile_at(L, J, J);
    invert_factor(diagonal, shift);
    // L(I, J) = A(I, J) L(J, J)^-T
    alignas(64) double right[kTileSize];
    negate_transposed(diagonal, right);
    negate(right, right);
    parallel_for(blocks - J - 1, [&](Index k) {
      const Index I = J + 1 + k;
      update(I);
      alignas(64) double product[kTileSize] = {};
      double* const out = tile_at(L, I, J);
      const Factor one{out, kWide, 1, right};
      kernels.product(product, &one, 1);
      std::copy(product, product + kTileSize, out);
    });
  }
}

namespace {

// A thread keeps what a factor of up to 8 MiB takes: to touch new memory costs as much as the
// factor of a small matrix.
struct Room {
  Buffer<double> data;
  Index size = 0;

  double* of(Index count) {
    if (count > size) {
      data = aligned_buffer<double>(count);
      size = count;
    }
    return data.get();
  }
  void trim() {
    constexpr Index kKept = Index{1} << 20;
    if (size <= kKept) return;
    data.reset();
    size = 0;
  }
};

}  // namespace

void leading_pivots(const double* G, Index n, Index lda, double shift, double* pivots) {
  Lent<Room> room;
  double* const L = (*room).of(shifted_factor_size(n));
  shifted_factor(G, n, lda, shift, L);
  for (Index i = 0; i < n; ++i) {
    const double inverse = tile_at(L, i / kWide, i / kWide)[i % kWide * (kWide + 1)];
    pivots[i] = 1.0 / (inverse * inverse);
  }
}

void apply_inverse(const double* L, Index n, double* X, Index p) {
  PS_REQUIRE(n >= 1 && p >= 1, "apply_inverse: no matrix");
  const TileKernels kernels = PS_SELECT_ISA(detail::wide_band).tiles;
  Panels panels(kernels, n, p);
  panels.read(X);
  panels.solve(L);
  panels.write(X);
}

void inverse_steps(const double* L, Index n, double* X, Index p, Index steps) {
  PS_REQUIRE(n >= 1 && p >= 1 && p <= n, "inverse_steps: more vectors than they have entries");
  const TileKernels kernels = PS_SELECT_ISA(detail::wide_band).tiles;
  Panels panels(kernels, n, p);
  panels.read(X);
  panels.orthonormalise();
  for (Index step = 0; step < steps; ++step) {
    panels.solve(L);
    panels.orthonormalise();
  }
  panels.write(X);
}

}  // namespace pyspectra::linalg
