// The sums of one piece of a strip, once for every instruction set. Included inside the anonymous
// namespace of a unit that has defined kLanes and included simd.inl.hpp and widen.inl.hpp.

using pyspectra::DType;
using pyspectra::Index;
using pyspectra::MatrixView;
using pyspectra::spectra::detail::kPiece;
using pyspectra::spectra::detail::Means;
using pyspectra::spectra::detail::Strip;

// A piece of a row as doubles, filled up with zeros, which add nothing to any sum.
template <typename T>
static inline void widen_piece(const T* in, Index stride, Index count, Index padded, double* out) {
  if (stride == 1) {
    for (Index i = 0; i < count; ++i) out[i] = widen(in[i]);
  } else {
    for (Index i = 0; i < count; ++i) out[i] = widen(in[i * stride]);
  }
  for (Index i = count; i < padded; ++i) out[i] = 0.0;
}

// Eight sums side by side on each instruction set, so that results have the same bits.
constexpr int kWidth = 8, kVectors = kWidth / kLanes;

struct Sums {
  vd part[kVectors];
};

static inline double total(const Sums& sums) {
  double lanes[kWidth], sum = 0.0;
  for (int v = 0; v < kVectors; ++v) store(lanes + v * kLanes, sums.part[v]);
  for (int l = 0; l < kWidth; ++l) sum += lanes[l];
  return sum;
}

// The sums of one row's piece as it is taken in, and of all rows for its columns.
struct PieceSums {
  double sums[kPiece] = {}, squares[kPiece] = {};
  Sums quartic{};

  inline void add_row(const double* row, Index padded, double& row_sum, double& row_square) {
    Sums sum{}, square{}, fourth = quartic;  // which stays in registers: stores might change it
    for (Index i = 0; i < padded; i += kWidth) {
#pragma GCC unroll 8
      for (int v = 0; v < kVectors; ++v) {
        const Index at = i + v * kLanes;
        const vd w = load(row + at), w2 = w * w;
        sum.part[v] += w;
        square.part[v] += w2;
        fourth.part[v] += w2 * w2;
        store(sums + at, load(sums + at) + w);
        store(squares + at, load(squares + at) + w2);
      }
    }
    quartic = fourth;
    row_sum += total(sum);
    row_square += total(square);
  }

  inline void finish(Index begin, Index count, Strip& strip) {
    strip.quartic += total(quartic);
    for (Index i = 0; i < count; ++i) {
      strip.col_sum[begin + i] += sums[i];
      strip.col_square[begin + i] += squares[i];
    }
  }
};

template <typename T>
static void add_piece(const MatrixView& X, Index begin, Index count, Strip& strip) {
  const Index padded = (count + kWidth - 1) / kWidth * kWidth;
  double row[kPiece];
  PieceSums piece;
  for (Index k = strip.first; k < strip.last; ++k) {
    const T* in = (const T*)X.data + k * X.row_stride + begin * X.col_stride;
    widen_piece(in, X.col_stride, count, padded, row);
    const Index at = k - strip.first;
    piece.add_row(row, padded, strip.row_sum[at], strip.row_square[at]);
  }
  piece.finish(begin, count, strip);
}

template <typename T>
static void add_centred_piece(const MatrixView& X, Index begin, Index count, Strip& strip,
                              double mean, const Means& means) {
  const Index padded = (count + kWidth - 1) / kWidth * kWidth;
  double row[kPiece], shift[kPiece] = {}, col_sum[kPiece] = {}, transposed[kPiece] = {};
  for (Index i = 0; i < count; ++i) {
    col_sum[i] = means.col_sum[begin + i];
    shift[i] = col_sum[i] / (double)X.rows - mean;
  }
  PieceSums piece;
  for (Index k = strip.first; k < strip.last; ++k) {
    const T* in = (const T*)X.data + k * X.row_stride + begin * X.col_stride;
    widen_piece(in, X.col_stride, count, padded, row);
    const double row_sum = means.row_sum[k];
    const vd own = splat(row_sum), own_mean = splat(row_sum / (double)X.cols);
    Sums product{};
    for (Index i = 0; i < padded; i += kWidth) {
#pragma GCC unroll 8
      for (int v = 0; v < kVectors; ++v) {
        const Index at = i + v * kLanes;
        const vd w = load(row + at);
        product.part[v] += w * load(col_sum + at);
        store(transposed + at, load(transposed + at) + w * own);
        store(row + at, w - own_mean - load(shift + at));
      }
    }
    for (Index i = count; i < padded; ++i) row[i] = 0.0;
    const Index at = k - strip.first;
    means.product[at] += total(product);
    piece.add_row(row, padded, strip.row_sum[at], strip.row_square[at]);
  }
  piece.finish(begin, count, strip);
  for (Index i = 0; i < count; ++i) means.transposed[begin + i] += transposed[i];
}

static void add(const MatrixView& X, Index begin, Index count, Strip& strip) {
  switch (X.dtype) {
    case DType::float16:
      return add_piece<Half>(X, begin, count, strip);
    case DType::bfloat16:
      return add_piece<BFloat>(X, begin, count, strip);
    case DType::float32:
      return add_piece<float>(X, begin, count, strip);
    case DType::float64:
      return add_piece<double>(X, begin, count, strip);
  }
}

static void add_centred(const MatrixView& X, Index begin, Index count, Strip& strip, double mean,
                        const Means& means) {
  switch (X.dtype) {
    case DType::float16:
      return add_centred_piece<Half>(X, begin, count, strip, mean, means);
    case DType::bfloat16:
      return add_centred_piece<BFloat>(X, begin, count, strip, mean, means);
    case DType::float32:
      return add_centred_piece<float>(X, begin, count, strip, mean, means);
    case DType::float64:
      return add_centred_piece<double>(X, begin, count, strip, mean, means);
  }
}
