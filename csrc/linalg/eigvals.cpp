#include "linalg/eigvals.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <numeric>
#include <optional>

#include "core/error.hpp"
#include "core/interrupt.hpp"
#include "core/isa.hpp"
#include "core/lent.hpp"
#include "core/parallel.hpp"
#include "linalg/bidiagonal.hpp"
#include "linalg/bisection.hpp"
#include "linalg/lapack_steps.hpp"
#include "linalg/tridiagonal.hpp"
#include "linalg/tridiagonalize.hpp"
#include "linalg/wide_band.hpp"

namespace pyspectra::linalg {
namespace {

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

#include "core/half.inl.hpp"
#include "core/pace.inl.hpp"
#include "core/widen.inl.hpp"

// Tridiagonal form of A in d (n) and e (n - 1), scaled by 2^-exponent where A's norm is extreme.
struct Reduced {
  std::vector<double> d, e;
  int exponent = 0;
  Status status = Status::ok;
};

// The lower triangle of A, column-major with n rows. Blocks of columns, so that a row-major A is
// also read a cache line at a time.
void copy_lower(const SymmetricView& A, double* out) {
  constexpr Index kBlock = 8;
  Pace pace{check_interrupt};
  for (Index j0 = 0; j0 < A.n; j0 += kBlock) {
    const Index j1 = std::min(A.n, j0 + kBlock);
    pace.spend(32 * kBlock * (A.n - j0));
    if (A.row_stride == 1) {
      for (Index j = j0; j < j1; ++j)
        std::copy_n(A.data + j + j * A.col_stride, A.n - j, out + j * A.n + j);
    } else {
      for (Index i = j0; i < A.n; ++i)
        for (Index j = j0; j < std::min(i + 1, j1); ++j)
          out[j * A.n + i] = A.data[i * A.row_stride + j * A.col_stride];
    }
  }
}

// max |a| over the lower triangle; infinity or NaN where there is one. Magnitudes compare as
// integers, where NaN is above everything, and a maximum of integers vectorises.
double largest_magnitude(const double* a, Index n) {
  constexpr std::uint64_t kMagnitude = ~(std::uint64_t{1} << 63);
  std::uint64_t largest = 0;
  Pace pace{check_interrupt};
  for (Index j = 0; j < n; ++j) {
    pace.spend(16 * (n - j));
    for (Index i = j; i < n; ++i)
      largest = std::max(largest, std::bit_cast<std::uint64_t>(a[j * n + i]) & kMagnitude);
  }
  return std::bit_cast<double>(largest);
}

// Without vectors of four lanes LAPACK's kernels are faster from n = 65 on.
bool lapack_is_faster(Index n) { return current_isa() == Isa::baseline && n > 64; }

// Orders from which on a matrix that comes alone is spread over all threads.
constexpr Index kLarge = 1024;

// Orders up to which QL, one matrix a lane, beats bisection of each by itself.
constexpr Index kTiny = 12;

bool on_all_threads(Index n, bool alone) { return alone && n >= kLarge && !lapack_is_faster(n); }

// The power of two that takes the largest entry to [1/2, 1) where it is outside (low, high), else
// none: within, every step of the reduction stays in the range of double, and so does its result.
int extreme_exponent(double largest, double low, double high) {
  int exponent = 0;
  if (largest != 0.0 && (largest < low || largest > high)) std::frexp(largest, &exponent);
  return exponent;
}

// By 2^-exponent. Exact but for entries that are then negligible beside the largest.
void scale_by(double* a, Index count, int exponent) {
  Pace pace{check_interrupt};
  for (Index i = 0; i < count; ++i) {
    if (i % 4096 == 0) pace.spend(Index{1} << 17);
    a[i] = std::ldexp(a[i], exponent);
  }
}

// Undoes the scaling of eigenvalues or singular values. False if one is beyond the range of double.
bool restore_scale(double* values, Index count, int exponent) {
  if (exponent == 0) return true;
  scale_by(values, count, exponent);
  return std::all_of(values, values + count, [](double v) { return std::isfinite(v); });
}

// Threads keep their buffers from one matrix to the next; larger ones go back to the system.
struct Buffers {
  std::vector<double> copy, work;

  void trim() {
    constexpr std::size_t kKept = std::size_t{1} << 20;
    for (auto* buffer : {&copy, &work})
      if (buffer->capacity() > kKept) std::vector<double>().swap(*buffer);
  }
};

void reduce_by_lapack(const SymmetricView& A, double* copy, Reduced& out) {
  copy_lower(A, copy);
  const double largest = largest_magnitude(copy, A.n);
  if (!(largest <= std::numeric_limits<double>::max())) {
    out.status = Status::not_finite;
    return;
  }
  out.exponent = extreme_exponent(largest, 1e-140, 1e140);  // it squares entries
  if (out.exponent != 0)
    for (Index j = 0; j < A.n; ++j) scale_by(copy + j * (A.n + 1), A.n - j, -out.exponent);
  out.status = lapack_tridiagonalize(copy, A.n, out.d.data(), out.e.data());
}

Reduced reduce(const SymmetricView& A, bool alone) {
  Lent<Buffers> buffers;
  std::vector<double>&copy = (*buffers).copy, &work = (*buffers).work;
  Reduced out;
  out.d.resize(A.n);
  out.e.resize(std::max<Index>(A.n - 1, 0));
  if (A.n == 0) return out;
  if (A.n > 1 && lapack_is_faster(A.n)) {
    copy.resize(A.n * A.n);
    reduce_by_lapack(A, copy.data(), out);
    return out;
  }
  std::optional<int> exponent;
  if (on_all_threads(A.n, alone)) {
    exponent = tridiagonalize_large(A, out.d.data(), out.e.data());
  } else {
    SymmetricView in = A;
    const bool columns = A.row_stride == 1 && A.col_stride >= A.n;
    const bool rows = A.col_stride == 1 && A.row_stride >= A.n;
    if (!columns && !rows) {
      copy.resize(A.n * A.n);
      copy_lower(A, copy.data());
      in = {copy.data(), A.n, 1, A.n};
    }
    work.resize(tridiagonalize_work(A.n));
    exponent = tridiagonalize(in, out.d.data(), out.e.data(), work.data());
  }
  out.exponent = exponent.value_or(0);
  if (!exponent) out.status = Status::not_finite;
  return out;
}

// Columns [j0, j1) of a column-major copy with N rows, and the largest magnitude as an integer: NaN
// is above everything. In blocks, so that any strides are read a cache line at a time.
template <typename T>
std::uint64_t copy_columns(const T* in, Index row_stride, Index col_stride, Index N, Index j0,
                           Index j1, double* out) {
  constexpr Index kBlock = 64;
  constexpr std::uint64_t kMagnitude = ~(std::uint64_t{1} << 63);
  std::uint64_t largest = 0;
  for (Index i0 = 0; i0 < N; i0 += kBlock) {
    check_interrupt();
    for (Index j = j0; j < j1; ++j)
      for (Index i = i0; i < std::min(N, i0 + kBlock); ++i) {
        const double x = widen(in[i * row_stride + j * col_stride]);
        out[j * N + i] = x;
        largest = std::max(largest, std::bit_cast<std::uint64_t>(x) & kMagnitude);
      }
  }
  return largest;
}

// A column-major copy with N rows, in float64; returns its largest magnitude, NaN or infinity if
// there is one.
double copy_matrix(const void* in, DType dtype, Index row_stride, Index col_stride, Index N,
                   Index M, double* out) {
  constexpr Index kColumns = 32;
  const Index tasks = (M + kColumns - 1) / kColumns;
  std::vector<std::uint64_t> largest(tasks);
  parallel_for(tasks, [&](Index task) {
    const Index j0 = task * kColumns, j1 = std::min(M, j0 + kColumns);
    const auto copy = [&]<typename T>(const T* typed) {
      largest[task] = copy_columns(typed, row_stride, col_stride, N, j0, j1, out);
    };
    switch (dtype) {
      case DType::float16:
        return copy(static_cast<const Half*>(in));
      case DType::bfloat16:
        return copy(static_cast<const BFloat*>(in));
      case DType::float32:
        return copy(static_cast<const float*>(in));
      case DType::float64:
        return copy(static_cast<const double*>(in));
    }
  });
  return std::bit_cast<double>(*std::max_element(largest.begin(), largest.end()));
}

// Orders from which on our bidiagonal form is faster than LAPACK's.
constexpr Index kBidiagonal = 96;

// Descending singular values of X, whose rows are at least as many as its columns.
Status singular_values(const MatrixView& X, double* sv) {
  const Index M = X.cols;
  std::vector<double> d(M), e(M), diagonal(2 * M, 0.0), beside(2 * M, 0.0);
  const auto exponent = bidiagonalize(X, d.data(), e.data());
  if (!exponent) return Status::not_finite;
  for (Index k = 0; k < M; ++k) {
    beside[2 * k] = d[k];
    if (k + 1 < M) beside[2 * k + 1] = e[k];
  }
  bisect(diagonal.data(), beside.data(), 2 * M);
  for (Index k = 0; k < M; ++k) sv[k] = std::abs(diagonal[2 * M - 1 - k]);
  return restore_scale(sv, M, *exponent) ? Status::ok : Status::not_finite;
}

Status singular_values_by_lapack(const MatrixView& X, double* sv) {
  const Index N = X.rows, M = X.cols;
  std::vector<double> a(N * M);
  const double largest = copy_matrix(X.data, X.dtype, X.row_stride, X.col_stride, N, M, a.data());
  if (!(largest <= std::numeric_limits<double>::max())) return Status::not_finite;
  // Outside of this, LAPACK would scale by a factor that is no power of two, and overflow in
  // silence on the way back.
  const int exponent = extreme_exponent(largest, 1e-138, 1e138);
  if (exponent != 0) scale_by(a.data(), N * M, -exponent);
  const Status status = lapack_singular_values(a.data(), N, M, sv);
  if (status != Status::ok) return status;
  return restore_scale(sv, M, exponent) ? Status::ok : Status::not_finite;
}

Status svdvals_one(const MatrixView& X, double* sv) {
  const Index count = std::min(X.rows, X.cols);
  if (count == 0) return Status::ok;
  // The long side as rows; rows of a square matrix become columns, as they are mostly contiguous
  // and LAPACK's matrices are column-major.
  const MatrixView tall =
      X.rows > X.cols ? X : MatrixView{X.data, X.dtype, X.cols, X.rows, X.col_stride, X.row_stride};
  const Status status = count >= kBidiagonal && !lapack_is_faster(count)
                            ? singular_values(tall, sv)
                            : singular_values_by_lapack(tall, sv);
  if (status != Status::ok) std::fill(sv, sv + count, kNaN);
  return status;
}

// Indices of a batch, most work first, so that no thread is left with a large matrix at the end.
template <typename Work>
std::vector<Index> descending(Index count, Work work) {
  std::vector<Index> order(count);
  std::iota(order.begin(), order.end(), Index{0});
  std::stable_sort(order.begin(), order.end(), [&](Index a, Index b) { return work(a) > work(b); });
  return order;
}

constexpr Index kMaxOrder = 46340;  // n^2 must fit LAPACK's 32-bit index arithmetic
constexpr Index kMaxRows = std::numeric_limits<int>::max();  // so must a side of any matrix

}  // namespace

std::vector<Status> eigvals_batch(std::span<const SymmetricView> A,
                                  std::span<double* const> evals) {
  PS_REQUIRE(A.size() == evals.size(), "eigvals: one output a matrix is needed");
  for (const auto& a : A) PS_REQUIRE(a.n <= kMaxOrder, "eigvals: a matrix is larger than 46340");
  const Index count = static_cast<Index>(A.size());
  const auto order = descending(count, [&](Index k) { return A[k].n; });
  std::vector<Reduced> reduced(count);
  parallel_for(count, [&](Index task) {
    const Index k = order[task];
    Reduced& r = reduced[k] = reduce(A[k], count == 1);
    if (r.status != Status::ok) return;
    std::copy(r.d.begin(), r.d.end(), evals[k]);
    if (A[k].n > kTiny) bisect(evals[k], r.e.data(), A[k].n);
  });

  std::vector<Tridiagonal> tiny;
  std::vector<Index> source;
  for (Index k = 0; k < count; ++k) {
    if (reduced[k].status != Status::ok || A[k].n > kTiny) continue;
    tiny.push_back({evals[k], reduced[k].e.data(), A[k].n});
    source.push_back(k);
  }
  const std::vector<Status> solved = tridiagonal_eigvals(tiny);
  for (std::size_t t = 0; t < source.size(); ++t)
    if (solved[t] != Status::ok) bisect(tiny[t].d, tiny[t].e, tiny[t].n);

  std::vector<Status> status(count);
  parallel_for(count, [&](Index k) {
    status[k] = reduced[k].status;
    if (status[k] == Status::ok && !restore_scale(evals[k], A[k].n, reduced[k].exponent))
      status[k] = Status::not_finite;
  });
  for (Index k = 0; k < count; ++k)
    if (status[k] != Status::ok) std::fill(evals[k], evals[k] + A[k].n, kNaN);
  return status;
}

std::vector<Status> svdvals_batch(std::span<const MatrixView> X, std::span<double* const> sv) {
  PS_REQUIRE(X.size() == sv.size(), "svdvals: one output a matrix is needed");
  for (const auto& x : X)
    PS_REQUIRE(std::max(x.rows, x.cols) <= kMaxRows && std::min(x.rows, x.cols) <= kMaxOrder,
               "svdvals: a matrix is larger than 2147483647 by 46340");
  const Index count = static_cast<Index>(X.size());
  std::vector<Status> status(count);
  const auto order = descending(count, [&](Index k) { return X[k].rows * X[k].cols; });
  parallel_for(count, [&](Index task) {
    status[order[task]] = svdvals_one(X[order[task]], sv[order[task]]);
  });
  return status;
}

}  // namespace pyspectra::linalg
