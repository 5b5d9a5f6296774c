#include "linalg/float_band.hpp"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <limits>
#include <memory>
#include <new>
#include <vector>

#include "core/error.hpp"
#include "core/interrupt.hpp"
#include "core/isa.hpp"
#include "core/parallel.hpp"
#include "linalg/amx_gram.hpp"
#include "linalg/bisection.hpp"
#include "linalg/compact_wy.hpp"
#include "linalg/gram.hpp"
#include "linalg/normal_product.hpp"

namespace pyspectra::linalg {
namespace {

using detail::FloatBandKernels;
using detail::FloatStage;
using detail::kGroup;
using detail::kTileSize;
using detail::kWide;

constexpr Index kThin = kWide * kGroup;  // a tile's rows of a group of probes
constexpr Index kRows = 8;               // block rows of a task

// Q B Q^T of a stage as an operator on groups of vectors.
class Reduced {
 public:
  explicit Reduced(const FloatStage& stage)
      : kernels_(PS_SELECT_ISA(detail::float_band)),
        stage_(stage),
        band_(stage.band.get(), stage.band.get() + stage.n * (detail::kBandStride<double> + 1)),
        T_(static_cast<std::size_t>(stage.blocks * kTileSize), 0.0) {
    parallel_for(stage.blocks - 1, [&](Index p) { find_triangle(p); });
  }

  // x (blocks * kWide rows of kGroup, zero past n) becomes Q B Q^T x.
  void apply(std::vector<double>& x) const {
    std::vector<double> y(x.size(), 0.0);
    reflect(x.data(), true);
    times_band(x.data(), y.data());
    reflect(y.data(), false);
    x.swap(y);
  }

 private:
  // The T of panel p that makes I - V T V^T orthogonal, with V in place of its float32 twin's.
  void find_triangle(Index p) {
    std::vector<double> G(kTileSize, 0.0);
    alignas(64) double y[kThin], s[kThin];
    for (Index c0 = 0; c0 < kWide; c0 += kGroup) {  // so many columns of V^T V
      std::fill(s, s + kThin, 0.0);
      for (Index I = p + 1; I < stage_.blocks; ++I) {
        const float* const V = stage_.tile(I, p);
        for (Index i = 0; i < kWide; ++i)
          for (Index c = 0; c < kGroup; ++c) y[i * kGroup + c] = V[i * kWide + c0 + c];
        kernels_.dots(V, y, s);
      }
      for (Index k = 0; k < kWide; ++k)
        std::copy_n(s + k * kGroup, kGroup, G.data() + k * kWide + c0);
    }
    double tau[kWide];
    for (Index k = 0; k < kWide; ++k) {
      const bool reflects = stage_.tau[static_cast<std::size_t>(p * kWide + k)] != 0.0f;
      tau[k] = reflects ? 2.0 / G[static_cast<std::size_t>(k * kWide + k)] : 0.0;
    }
    detail::compact_wy(G.data(), tau, T_.data() + p * kTileSize);
  }

  // x becomes Q x, or Q^T x. A panel is one pass over x, in which the panel before it changes the
  // rows first; the sums of the block rows of a task are added in order.
  void reflect(double* x, bool transposed) const {
    const Index panels = stage_.blocks - 1, tasks = stage_.blocks / kRows + 1;
    std::vector<double> sums(static_cast<std::size_t>(tasks * kThin));
    alignas(64) double t[kThin];
    for (Index step = 0; step <= panels; ++step) {
      const Index before = transposed ? step - 1 : panels - step;  // which t is of
      const Index p = transposed ? step : before - 1;
      const bool changes = step > 0, adds = step < panels;
      const Index first = (changes && adds ? std::min(before, p) : changes ? before : p) + 1;
      const Index begin = first / kRows;
      check_interrupt();
      parallel_for(tasks - begin, [&](Index k) {
        const Index g = begin + k, end = std::min(stage_.blocks, (g + 1) * kRows);
        double* const s = sums.data() + g * kThin;
        std::fill(s, s + kThin, 0.0);
        for (Index I = std::max(first, g * kRows); I < end; ++I) {
          if (changes && I > before) kernels_.add(stage_.tile(I, before), t, x + I * kThin);
          if (adds && I > p) kernels_.dots(stage_.tile(I, p), x + I * kThin, s);
        }
      });
      if (!adds) break;
      double* const s = sums.data() + begin * kThin;
      for (Index g = begin + 1; g < tasks; ++g)
        for (Index k = 0; k < kThin; ++k) s[k] += sums[static_cast<std::size_t>(g * kThin + k)];
      times_triangle(T_.data() + p * kTileSize, transposed, s, t);
    }
  }

  // t = -T s, or -T^T s.
  static void times_triangle(const double* T, bool transposed, const double* s, double* t) {
    for (Index k = 0; k < kWide; ++k)
      for (Index c = 0; c < kGroup; ++c) {
        double sum = 0.0;
        for (Index q = transposed ? 0 : k; q < (transposed ? k + 1 : kWide); ++q)
          sum -= (transposed ? T[q * kWide + k] : T[k * kWide + q]) * s[q * kGroup + c];
        t[k * kGroup + c] = sum;
      }
  }

  void times_band(const double* x, double* y) const {
    constexpr Index kStride = detail::kBandStride<double>;
    const Index n = stage_.n;
    for (Index j = 0; j < n; ++j)
      for (Index i = j; i < std::min(n, j + kWide + 1); ++i) {
        const double b = band_[static_cast<std::size_t>(j * kStride + i)];
        for (Index c = 0; c < kGroup; ++c) {
          y[i * kGroup + c] += b * x[j * kGroup + c];
          if (i > j) y[j * kGroup + c] += b * x[i * kGroup + c];
        }
      }
  }

  const FloatBandKernels kernels_;
  const FloatStage& stage_;
  const std::vector<double> band_;  // the chase uses up the stage's
  std::vector<double> T_;
};

// The largest |x_j| over the columns.
double largest_norm(const std::vector<double>& x) {
  double largest = 0.0;
  for (Index c = 0; c < kProbes; ++c) {
    double sum = 0.0;
    for (std::size_t i = static_cast<std::size_t>(c); i < x.size(); i += kProbes)
      sum += x[i] * x[i];
    largest = std::max(largest, std::sqrt(sum));
  }
  return largest;
}

// A bound of |scale W^T W - Q B Q^T|; see float_band.hpp.
double measured_norm(const MatrixView& W, const FloatStage& stage, const Reduced& reduced,
                     const double* probes) {
  const Index n = stage.n, padded = stage.blocks * kWide;
  std::vector<double> x(probes, probes + n * kProbes);
  double bound = std::numeric_limits<double>::infinity();
  for (Index power = 1; power <= kPowers; ++power) {
    std::vector<double> y(static_cast<std::size_t>(W.rows * kProbes), 0.0), z(x.size());
    normal_product(W, x.data(), kProbes, y.data(), z.data());
    for (Index g = 0; g < kProbes / kGroup; ++g) {
      std::vector<double> part(static_cast<std::size_t>(padded * kGroup), 0.0);
      for (Index i = 0; i < n; ++i)
        std::copy_n(x.data() + i * kProbes + g * kGroup, kGroup, part.data() + i * kGroup);
      reduced.apply(part);
      for (Index i = 0; i < n; ++i)
        for (Index c = 0; c < kGroup; ++c) {
          double& out = x[static_cast<std::size_t>(i * kProbes + g * kGroup + c)];
          out = stage.scale * z[static_cast<std::size_t>(i * kProbes + g * kGroup + c)] -
                part[static_cast<std::size_t>(i * kGroup + c)];
        }
    }
    bound =
        std::min(bound, std::pow(largest_norm(x) / kSmallest, 1.0 / static_cast<double>(power)));
  }
  return bound;
}

}  // namespace

Status fast_eigvals(const MatrixView& X, const double* probes, double* evals, double* bound) {
  MatrixView W = X;
  if (W.rows < W.cols) {
    std::swap(W.rows, W.cols);
    std::swap(W.row_stride, W.col_stride);
  }
  const Index M = W.cols;
  PS_REQUIRE(M >= 2, "fast_eigvals: the matrix has fewer than two columns");
  FloatStage stage;
  {
    // Zeros that cost no memory until they are written to: half of them never are.
    const std::unique_ptr<double, decltype(&std::free)> G(
        static_cast<double*>(std::calloc(static_cast<std::size_t>(M * M), sizeof(double))),
        &std::free);
    if (G == nullptr) throw std::bad_alloc();
    double* const out = G.get();
    if (W.dtype != DType::float64 && amx_available())
      amx_gram(W, out);
    else
      gram_batch({&W, 1}, {&out, 1});
    double trace = 0.0;
    for (Index j = 0; j < M; ++j) trace += out[j * (M + 1)];
    if (!(trace > 0x1p-400 && trace < 0x1p400)) return Status::degenerate;
    stage = detail::to_wide_band_float(out, M, M);
  }
  const Reduced reduced(stage);
  *bound = measured_norm(W, stage, reduced, probes) / stage.scale;
  if (!std::isfinite(*bound)) return Status::degenerate;
  std::vector<double> e(static_cast<std::size_t>(M));
  detail::wide_band_to_tridiagonal(stage.band.get(), M, evals, e.data());
  bisect(evals, e.data(), M);
  for (Index i = 0; i < M; ++i) evals[i] /= stage.scale;
  return Status::ok;
}

}  // namespace pyspectra::linalg
