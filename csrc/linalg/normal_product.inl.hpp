// Conversion and the multiply kernel, once for every instruction set. Included inside the anonymous
// namespace of a unit that has defined kLanes (doubles a vector), kVectors (vectors a panel) and
// kRows (rows of a register tile), and included half, simd and widen.inl.hpp. kRows * kVectors
// accumulators plus kVectors + 1 must fit the register file.

using pyspectra::DType;
using pyspectra::Index;
using pyspectra::MatrixView;
using pyspectra::linalg::detail::kBlockCols;
using pyspectra::linalg::detail::kBlockRows;
using pyspectra::linalg::detail::kMostPanel;
using pyspectra::linalg::detail::Packed;

constexpr int kPanel = kLanes * kVectors;
static_assert(kPanel <= kMostPanel);

// Rows of the packed block are no power of two apart: twelve of them are read side by side, and
// would fall into the same sets of the first-level cache.
constexpr Index kPackedRow = kBlockCols + 8;

template <typename T>
static Packed pack_block(const MatrixView& W, Index i0, Index rows, Index j0, Index cols,
                         double* to) {
  const T* const from = (const T*)W.data + i0 * W.row_stride + j0 * W.col_stride;
  // The axis along which the matrix is contiguous, or nearly so, stays the inner one.
  const Index row = W.row_stride < 0 ? -W.row_stride : W.row_stride;
  const Index col = W.col_stride < 0 ? -W.col_stride : W.col_stride;
  if (col <= row) {
    for (Index i = 0; i < rows; ++i) {
      const T* const in = from + i * W.row_stride;
      double* const out = to + i * kPackedRow;
      if (W.col_stride == 1) {
        for (Index j = 0; j < cols; ++j) out[j] = widen(in[j]);
      } else {
        for (Index j = 0; j < cols; ++j) out[j] = widen(in[j * W.col_stride]);
      }
    }
    return {to, kPackedRow, 1};
  }
  for (Index j = 0; j < cols; ++j) {
    const T* const in = from + j * W.col_stride;
    double* const out = to + j * kBlockRows;
    if (W.row_stride == 1) {
      for (Index i = 0; i < rows; ++i) out[i] = widen(in[i]);
    } else {
      for (Index i = 0; i < rows; ++i) out[i] = widen(in[i * W.row_stride]);
    }
  }
  return {to, 1, kBlockRows};
}

static Packed pack(const MatrixView& W, Index i0, Index rows, Index j0, Index cols, double* to) {
  switch (W.dtype) {
    case DType::float16:
      return pack_block<Half>(W, i0, rows, j0, cols, to);
    case DType::bfloat16:
      return pack_block<BFloat>(W, i0, rows, j0, cols, to);
    case DType::float32:
      return pack_block<float>(W, i0, rows, j0, cols, to);
    case DType::float64:
      break;
  }
  return pack_block<double>(W, i0, rows, j0, cols, to);
}

template <int R>
static inline void tile(const double* a, Index row_step, Index col_step, Index depth,
                        const double* x, double* out) {
  vd acc[R][kVectors];
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) acc[r][v] = load(out + r * kPanel + v * kLanes);
  for (Index k = 0; k < depth; ++k) {
    vd y[kVectors];
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) y[v] = load(x + v * kLanes);
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
      const vd w = splat(a[r * row_step]);
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v) acc[r][v] += w * y[v];
    }
    a += col_step;
    x += kPanel;
  }
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) store(out + r * kPanel + v * kLanes, acc[r][v]);
}

static void accumulate(const Packed& a, Index rows, Index depth, const double* x, double* out) {
  Index i = 0;
  for (; i + kRows <= rows; i += kRows)
    tile<kRows>(a.a + i * a.row_step, a.row_step, a.col_step, depth, x, out + i * kPanel);
  for (; i + 3 <= rows; i += 3)
    tile<3>(a.a + i * a.row_step, a.row_step, a.col_step, depth, x, out + i * kPanel);
  for (; i < rows; ++i)
    tile<1>(a.a + i * a.row_step, a.row_step, a.col_step, depth, x, out + i * kPanel);
}
