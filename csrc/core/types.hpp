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

// What became of one item of a batch. Python's names of the numbers are in pyspectra/types.py;
// pyspectra/ops/core.py compares the two when it is imported.
#define PS_STATUSES(STATUS) \
  STATUS(ok)                \
  STATUS(not_finite)        \
  STATUS(too_few_points)    \
  STATUS(no_convergence)    \
  STATUS(degenerate)
#define PS_NAME(name) name,
enum class Status : std::int32_t { PS_STATUSES(PS_NAME) };
#undef PS_NAME

}  // namespace pyspectra
