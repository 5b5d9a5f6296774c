// Plain data that every ring shares: index type, element types, strided views, result codes.
#pragma once

#include <cstdint>

// On functions of the .inl.hpp files that CUDA compiles too.
#if defined(__CUDACC__)
#define PS_HD __host__ __device__
#else
#define PS_HD
#endif

namespace pyspectra {

using Index = std::int64_t;

// Element types a read-only matrix may have. float16 and bfloat16 arrive as their 16-bit patterns.
enum class DType : int { float16 = 0, bfloat16 = 1, float32 = 2, float64 = 3 };

constexpr Index item_size(DType t) { return t == DType::float64 ? 8 : t == DType::float32 ? 4 : 2; }

// A read-only matrix with any strides (in elements, may be negative).
struct MatrixView {
  const void* data;
  DType dtype;
  Index rows, cols;
  Index row_stride, col_stride;
};

// What became of one item of a batch. The numbers are part of the binding: keep in step with
// pyspectra/types.py (a test compares the two).
enum class Status : std::int32_t {
  ok = 0,
  not_finite = 1,
  too_few_points = 2,
  no_convergence = 3,
  degenerate = 4,
};

}  // namespace pyspectra
