#include "linalg/tall_qr.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <utility>
#include <vector>

#include "core/interrupt.hpp"
#include "core/isa.hpp"
#include "core/parallel.hpp"
#include "linalg/compact_wy.hpp"
#include "linalg/wide_band.hpp"

namespace pyspectra::linalg::detail {
namespace {

#include "core/half.inl.hpp"
#include "core/widen.inl.hpp"

// Rows of tiles in a chunk: a panel of it fits the first-level cache a vector's width at a time.
constexpr Index kChunk = 16;
// Products that one call of the kernel adds up.
constexpr int kTogether = 4;
// Largest entries between which squares and their sums stay in the range of double.
constexpr double kSmallest = 0x1p-200, kLargest = 0x1p200;
constexpr int kMostExponent = 1000;  // of a power of two that double holds, and its inverse

Index blocks_of(Index n) { return (n + kWide - 1) / kWide; }

// `by` times rows x cols entries, zero past them. Adds zero, or NaN where an entry is not finite,
// to the kWide numbers of `checks`, which vectorises.
template <typename T>
void read_tile(const T* in, Index row_stride, Index col_stride, Index rows, Index cols, double by,
               double* out, double* checks) {
  if (rows < kWide || cols < kWide) std::fill(out, out + kTileSize, 0.0);
  const auto read_row = [&](Index i, Index count) {
    const T* const from = in + i * row_stride;
    double* const to = out + i * kWide;
    for (Index j = 0; j < count; ++j) {
      const double x = widen(from[j]);
      to[j] = by * x;
      checks[j] += 0.0 * x;
    }
  };
  if (col_stride == 1 && cols == kWide) {
    for (Index i = 0; i < rows; ++i) read_row(i, kWide);
  } else if (col_stride == 1) {
    for (Index i = 0; i < rows; ++i) read_row(i, cols);
  } else {
    for (Index j = 0; j < cols; ++j)
      for (Index i = 0; i < rows; ++i) {
        const double x = widen(in[i * row_stride + j * col_stride]);
        out[i * kWide + j] = by * x;
        checks[j] += 0.0 * x;
      }
  }
}

// Tiles of a matrix, scaled, as they are asked for.
class Reader {
 public:
  Reader(const MatrixView& X, double by)
      : X_(X), by_(by), finite_(static_cast<std::size_t>(blocks_of(X.cols)), 1) {}

  // `height` tiles from the row I of tiles on, one after the other. One task a column at a time.
  void read(Index I, Index height, Index J, double* out) {
    alignas(64) double checks[kWide] = {};
    const Index j0 = J * kWide, cols = std::min(X_.cols - j0, kWide);
    const auto read_as = [&]<typename T>(const T* typed) {
      for (Index k = 0; k < height; ++k) {
        const Index i0 = (I + k) * kWide, rows = std::min(X_.rows - i0, kWide);
        read_tile(typed + i0 * X_.row_stride + j0 * X_.col_stride, X_.row_stride, X_.col_stride,
                  rows, cols, by_, out + k * kTileSize, checks);
      }
    };
    switch (X_.dtype) {
      case DType::float16:
        read_as(static_cast<const Half*>(X_.data));
        break;
      case DType::bfloat16:
        read_as(static_cast<const BFloat*>(X_.data));
        break;
      case DType::float32:
        read_as(static_cast<const float*>(X_.data));
        break;
      case DType::float64:
        read_as(static_cast<const double*>(X_.data));
        break;
    }
    if (!std::all_of(checks, checks + kWide, [](double x) { return x == 0.0; }))
      finite_[static_cast<std::size_t>(J)] = 0;
  }

  // Whether all that was read is.
  bool finite() const {
    return std::all_of(finite_.begin(), finite_.end(), [](char one) { return one != 0; });
  }

 private:
  const MatrixView X_;
  const double by_;
  std::vector<char> finite_;  // by columns of tiles
};

class Triangle {
 public:
  Triangle(const MatrixView& X, double by)
      : tiles_(PS_SELECT_ISA(wide_band).tiles),
        reader_(X, by),
        rows_(blocks_of(X.rows)),
        columns_(blocks_of(X.cols)),
        R_(aligned_buffer<double>(columns_ * columns_ * kTileSize)),
        chunk_(aligned_buffer<double>(columns_ * (kChunk + 1) * kTileSize)) {
    std::fill(R_.get(), R_.get() + columns_ * columns_ * kTileSize, 0.0);
  }

  // R, or none where an entry is not finite.
  Buffer<double> run() && {
    for (Index begin = 0; begin < rows_; begin += kChunk) {
      height_ = std::min(kChunk, rows_ - begin);
      parallel_for(columns_, [&](Index J) {
        check_interrupt();
        reader_.read(begin, height_, J, tile(0, J));
      });
      if (!reader_.finite()) return nullptr;
      take_in();
      filled_ = std::min(columns_, filled_ + height_);
    }
    return std::move(R_);
  }

 private:
  // A panel's reflectors I - V T V^T: V begins with the tile of R, or within the chunk.
  struct Panel {
    alignas(64) double T[kTileSize];
    double* V;
    Index height;  // in tiles
  };

  double* R(Index I, Index J) const { return R_.get() + (J * columns_ + I) * kTileSize; }
  // Row I of tiles of the chunk; row -1 has room for a tile of R above them.
  double* tile(Index I, Index J) const {
    return chunk_.get() + (J * (kChunk + 1) + 1 + I) * kTileSize;
  }

  // [R; chunk] becomes R. Rows of tiles from filled_ on are those of the chunk, in order.
  void take_in() {
    const Index panels = std::min(columns_, filled_ + height_);
    factor(0, panel_[0]);
    for (Index p = 0; p < panels; ++p) {
      const Panel& now = panel_[p % 2];
      parallel_for(columns_ - p - 1, [&](Index k) {
        check_interrupt();
        const Index J = p + 1 + k;
        apply(now, p, J);
        if (k == 0 && J < panels) factor(J, panel_[J % 2]);
      });
    }
  }

  void factor(Index p, Panel& panel) {
    double tau[kWide];
    alignas(64) double r[kTileSize], G[kTileSize] = {};
    if (p < filled_) {
      panel.V = tile(-1, p);
      panel.height = height_ + 1;
      std::copy(R(p, p), R(p, p) + kTileSize, panel.V);
    } else {
      panel.V = tile(p - filled_, p);
      panel.height = height_ - (p - filled_);
    }
    tiles_.factor(panel.V, panel.height * kWide, r, tau);
    std::copy(r, r + kTileSize, R(p, p));
    add_products(panel, panel.V, 0, G);
    compact_wy(G, tau, panel.T);
  }

  // out += V^T A from tile `first` of both on.
  void add_products(const Panel& panel, const double* A, Index first, double* out) const {
    Factor<double> factors[kTogether];
    int count = 0;
    for (Index I = first; I < panel.height; ++I) {
      factors[count++] = {panel.V + I * kTileSize, 1, kWide, A + I * kTileSize};
      if (count < kTogether && I + 1 < panel.height) continue;
      tiles_.product(out, factors, count);
      count = 0;
    }
  }

  // A column of tiles A becomes A - V T^T (V^T A). Of R's tile, V has the unit matrix.
  void apply(const Panel& panel, Index p, Index J) const {
    alignas(64) double sum[kTileSize] = {}, z[kTileSize] = {};
    const bool above = p < filled_;
    double* const A = above ? tile(-1, J) : tile(p - filled_, J);
    if (above) std::copy(R(p, J), R(p, J) + kTileSize, sum);
    add_products(panel, A, above, sum);
    const Factor<double> turned{panel.T, 1, kWide, sum};
    tiles_.product(z, &turned, 1);
    for (Index k = 0; k < kTileSize; ++k) z[k] = -z[k];
    for (Index I = above; I < panel.height; ++I) {
      const Factor<double> one{panel.V + I * kTileSize, kWide, 1, z};
      tiles_.product(A + I * kTileSize, &one, 1);
    }
    double* const out = R(p, J);
    for (Index k = 0; k < kTileSize; ++k) out[k] = above ? out[k] + z[k] : A[k];
  }

  const TileKernels<double> tiles_;
  Reader reader_;
  const Index rows_, columns_;
  Buffer<double> R_, chunk_;
  Index height_ = 0, filled_ = 0;  // rows of tiles of the chunk, and of R so far
  Panel panel_[2];
};

// max |x|; infinity or NaN where there is one: as integers, magnitudes compare the same, and NaN is
// above everything.
double largest_magnitude(const MatrixView& X) {
  constexpr std::uint64_t kMagnitude = ~(std::uint64_t{1} << 63);
  const auto* const in = static_cast<const double*>(X.data);
  const Index tasks = blocks_of(X.rows);
  std::vector<std::uint64_t> largest(static_cast<std::size_t>(tasks), 0);
  parallel_for(tasks, [&](Index task) {
    check_interrupt();
    std::uint64_t most = 0;
    const auto look = [&](Index i, Index j) {
      const double x = in[i * X.row_stride + j * X.col_stride];
      most = std::max(most, std::bit_cast<std::uint64_t>(x) & kMagnitude);
    };
    const Index begin = task * kWide, end = std::min(X.rows, begin + kWide);
    if (X.row_stride == 1) {
      for (Index j = 0; j < X.cols; ++j)
        for (Index i = begin; i < end; ++i) look(i, j);
    } else {
      for (Index i = begin; i < end; ++i)
        for (Index j = 0; j < X.cols; ++j) look(i, j);
    }
    largest[static_cast<std::size_t>(task)] = most;
  });
  return std::bit_cast<double>(*std::max_element(largest.begin(), largest.end()));
}

}  // namespace

std::optional<SquareTiles> square_tiles(const MatrixView& X) {
  SquareTiles out;
  out.blocks = blocks_of(X.cols);
  if (X.dtype == DType::float64) {  // other types have no entries whose squares leave the range
    const double largest = largest_magnitude(X);
    if (!(largest <= std::numeric_limits<double>::max())) return std::nullopt;
    if (largest != 0.0 && (largest < kSmallest || largest > kLargest)) {
      std::frexp(largest, &out.exponent);
      out.exponent = std::clamp(out.exponent, -kMostExponent, kMostExponent);
    }
  }
  const double by = std::ldexp(1.0, -out.exponent);
  if (X.rows > X.cols) {
    out.data = Triangle(X, by).run();
    if (!out.data) return std::nullopt;
    return out;
  }
  out.data = aligned_buffer<double>(out.blocks * out.blocks * kTileSize);
  Reader reader(X, by);
  parallel_for(out.blocks, [&](Index J) {
    check_interrupt();
    reader.read(0, out.blocks, J, out.data.get() + J * out.blocks * kTileSize);
  });
  if (!reader.finite()) return std::nullopt;
  return out;
}

}  // namespace pyspectra::linalg::detail
