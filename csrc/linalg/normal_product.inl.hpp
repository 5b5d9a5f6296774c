// Conversion and the multiply kernel, once for every instruction set. Included inside the anonymous
// namespace of a unit that has defined kLanes (doubles a vector), and for each type kVectors
// (vectors a panel) and kRows (rows of a register tile), and included half, simd and widen.inl.hpp.
// kRows * kVectors accumulators plus kVectors + 1 must fit the register file.

using pyspectra::DType;
using pyspectra::Index;
using pyspectra::MatrixView;
using pyspectra::linalg::detail::kBlockCols;
using pyspectra::linalg::detail::kBlockRows;
using pyspectra::linalg::detail::kMostPanel;
using pyspectra::linalg::detail::kPackedRow;
using pyspectra::linalg::detail::Packed;
using pyspectra::linalg::detail::ProductKernels;
using pyspectra::linalg::detail::ProductSteps;

typedef float vf __attribute__((vector_size(kLanes * 8)));
static inline vf load(const float* p) {
  vf v;
  __builtin_memcpy(&v, p, sizeof v);
  return v;
}
static inline void store(float* p, vf v) { __builtin_memcpy(p, &v, sizeof v); }
static inline vf splat(float x) { return x - vf{}; }

// Columns of a panel of V vectors.
template <int V, typename Real>
constexpr int kPanel = V * kLanes * 8 / (int)sizeof(Real);
static_assert(kPanel<kVectors<double>, double> <= kMostPanel &&
              kPanel<kVectors<float>, float> <= kMostPanel);

template <typename T, typename Real>
static Packed<Real> pack_block(const MatrixView& W, Index i0, Index rows, Index j0, Index cols,
                               Real* to) {
  const T* const from = (const T*)W.data + i0 * W.row_stride + j0 * W.col_stride;
  // The axis along which the matrix is contiguous, or nearly so, stays the inner one.
  const Index row = W.row_stride < 0 ? -W.row_stride : W.row_stride;
  const Index col = W.col_stride < 0 ? -W.col_stride : W.col_stride;
  if (col <= row) {
    for (Index i = 0; i < rows; ++i) {
      const T* const in = from + i * W.row_stride;
      Real* const out = to + i * kPackedRow<Real>;
      if (W.col_stride == 1) {
        for (Index j = 0; j < cols; ++j) out[j] = (Real)widen(in[j]);
      } else {
        for (Index j = 0; j < cols; ++j) out[j] = (Real)widen(in[j * W.col_stride]);
      }
    }
    return {to, kPackedRow<Real>, 1};
  }
  for (Index j = 0; j < cols; ++j) {
    const T* const in = from + j * W.col_stride;
    Real* const out = to + j * kBlockRows;
    if (W.row_stride == 1) {
      for (Index i = 0; i < rows; ++i) out[i] = (Real)widen(in[i]);
    } else {
      for (Index i = 0; i < rows; ++i) out[i] = (Real)widen(in[i * W.row_stride]);
    }
  }
  return {to, 1, kBlockRows};
}

template <typename Real>
static Packed<Real> pack(const MatrixView& W, Index i0, Index rows, Index j0, Index cols,
                         Real* to) {
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

template <int V, int R, Index RowStep, typename Real>
static inline void tile(const Real* a, Index col_step, Index depth, const Real* x, Real* out) {
  constexpr int P = kPanel<V, Real>, L = P / V;
  typedef decltype(load(x)) Vector;
  Vector acc[R][V];
#pragma GCC unroll 32
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) acc[r][v] = Vector{};
  for (Index k = 0; k < depth; ++k) {
    Vector y[V];
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) y[v] = load(x + v * L);
#pragma GCC unroll 32
    for (int r = 0; r < R; ++r) {
      const Vector w = splat(a[r * RowStep]);
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) acc[r][v] += w * y[v];
    }
    a += col_step;
    x += P;
  }
#pragma GCC unroll 32
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) {
      Real* const at = out + r * P + v * L;
      store(at, load(at) + acc[r][v]);
    }
}

// Steps between rows are known when this is compiled, so that a tile needs one address.
template <int V, int R, Index RowStep, typename Real>
static void accumulate_rows(const Packed<Real>& a, Index rows, Index depth, const Real* x,
                            Real* out) {
  constexpr int P = kPanel<V, Real>;
  Index i = 0;
  for (; i + R <= rows; i += R)
    tile<V, R, RowStep>(a.a + i * RowStep, a.col_step, depth, x, out + i * P);
  for (; i + R / 2 <= rows; i += R / 2)
    tile<V, R / 2, RowStep>(a.a + i * RowStep, a.col_step, depth, x, out + i * P);
  for (; i < rows; ++i) tile<V, 1, RowStep>(a.a + i * RowStep, a.col_step, depth, x, out + i * P);
}

template <int V, int R, typename Real>
static void accumulate(const Packed<Real>& a, Index rows, Index depth, const Real* x, Real* out) {
  if (a.row_step == 1) return accumulate_rows<V, R, 1>(a, rows, depth, x, out);
  if (a.row_step == kBlockRows) return accumulate_rows<V, R, kBlockRows>(a, rows, depth, x, out);
  accumulate_rows<V, R, kPackedRow<Real>>(a, rows, depth, x, out);
}

template <int V, int R, typename Real>
static ProductSteps<Real> product_steps() {
  return {kPanel<V, Real>, pack<Real>, accumulate<V, R, Real>};
}

static ProductKernels product_kernels() {
  return {product_steps<kVectors<double>, kRows<double>, double>(),
          product_steps<1, kVectors<double> * kRows<double>, double>(),
          product_steps<kVectors<float>, kRows<float>, float>()};
}
