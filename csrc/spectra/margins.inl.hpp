// The sums of one piece of a strip, once for every instruction set. Included inside the anonymous
// namespace of a unit that has defined kLanes and included simd.inl.hpp and widen.inl.hpp.

using pyspectra::DType;
using pyspectra::Index;
using pyspectra::MatrixView;
using pyspectra::spectra::detail::kPiece;
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

template <typename T>
static void add_piece(const MatrixView& X, Index begin, Index count, Strip& strip) {
  const Index padded = (count + kWidth - 1) / kWidth * kWidth;
  double row[kPiece], sums[kPiece] = {}, squares[kPiece] = {};
  Sums quartic{};
  for (Index k = strip.first; k < strip.last; ++k) {
    const T* in = (const T*)X.data + k * X.row_stride + begin * X.col_stride;
    widen_piece(in, X.col_stride, count, padded, row);
    Sums sum{}, square{};
    for (Index i = 0; i < padded; i += kWidth) {
#pragma GCC unroll 8
      for (int v = 0; v < kVectors; ++v) {
        const Index at = i + v * kLanes;
        const vd w = load(row + at), w2 = w * w;
        sum.part[v] += w;
        square.part[v] += w2;
        quartic.part[v] += w2 * w2;
        store(sums + at, load(sums + at) + w);
        store(squares + at, load(squares + at) + w2);
      }
    }
    strip.row_sum[k - strip.first] += total(sum);
    strip.row_square[k - strip.first] += total(square);
  }
  strip.quartic += total(quartic);
  for (Index i = 0; i < count; ++i) {
    strip.col_sum[begin + i] += sums[i];
    strip.col_square[begin + i] += squares[i];
  }
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
