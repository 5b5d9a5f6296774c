// BLAS and LAPACK as a table of function pointers, filled from the capsules of
// scipy.linalg.cython_blas and cython_lapack (see bindings/bind_linalg.cpp) when a kernel first
// needs one: to import them takes SciPy a quarter of a second. No link-time dependency.
#pragma once

#include <atomic>

#include "core/error.hpp"

namespace pyspectra::linalg {

using lapack_int = int;

// ROUTINE(name without the d of double precision, result, arguments...)
#define PS_LAPACK_ROUTINES(ROUTINE)                                                                \
  ROUTINE(axpy, void, lapack_int* n, double* alpha, double* x, lapack_int* incx, double* y,        \
          lapack_int* incy)                                                                        \
  ROUTINE(dot, double, lapack_int* n, double* x, lapack_int* incx, double* y, lapack_int* incy)    \
  ROUTINE(scal, void, lapack_int* n, double* alpha, double* x, lapack_int* incx)                   \
  ROUTINE(gemv, void, char* trans, lapack_int* m, lapack_int* n, double* alpha, double* a,         \
          lapack_int* lda, double* x, lapack_int* incx, double* beta, double* y, lapack_int* incy) \
  ROUTINE(symv, void, char* uplo, lapack_int* n, double* alpha, double* a, lapack_int* lda,        \
          double* x, lapack_int* incx, double* beta, double* y, lapack_int* incy)                  \
  ROUTINE(gemm, void, char* transa, char* transb, lapack_int* m, lapack_int* n, lapack_int* k,     \
          double* alpha, double* a, lapack_int* lda, double* b, lapack_int* ldb, double* beta,     \
          double* c, lapack_int* ldc)                                                              \
  ROUTINE(syr2k, void, char* uplo, char* trans, lapack_int* n, lapack_int* k, double* alpha,       \
          double* a, lapack_int* lda, double* b, lapack_int* ldb, double* beta, double* c,         \
          lapack_int* ldc)                                                                         \
  ROUTINE(larfg, void, lapack_int* n, double* alpha, double* x, lapack_int* incx, double* tau)     \
  ROUTINE(sytrd, void, char* uplo, lapack_int* n, double* a, lapack_int* lda, double* d,           \
          double* e, double* tau, double* work, lapack_int* lwork, lapack_int* info)               \
  ROUTINE(gebrd, void, lapack_int* m, lapack_int* n, double* a, lapack_int* lda, double* d,        \
          double* e, double* tauq, double* taup, double* work, lapack_int* lwork,                  \
          lapack_int* info)                                                                        \
  ROUTINE(geqrf, void, lapack_int* m, lapack_int* n, double* a, lapack_int* lda, double* tau,      \
          double* work, lapack_int* lwork, lapack_int* info)                                       \
  ROUTINE(larft, void, char* direct, char* storev, lapack_int* n, lapack_int* k, double* v,        \
          lapack_int* ldv, double* tau, double* t, lapack_int* ldt)                                \
  ROUTINE(larfb, void, char* side, char* trans, char* direct, char* storev, lapack_int* m,         \
          lapack_int* n, lapack_int* k, double* v, lapack_int* ldv, double* t, lapack_int* ldt,    \
          double* c, lapack_int* ldc, double* work, lapack_int* ldwork)                            \
  ROUTINE(lasq1, void, lapack_int* n, double* d, double* e, double* work, lapack_int* info)        \
  ROUTINE(gesdd, void, char* jobz, lapack_int* m, lapack_int* n, double* a, lapack_int* lda,       \
          double* s, double* u, lapack_int* ldu, double* vt, lapack_int* ldvt, double* work,       \
          lapack_int* lwork, lapack_int* iwork, lapack_int* info)

struct LapackTable {
#define PS_POINTER(name, result, ...) result (*name)(__VA_ARGS__) = nullptr;
  PS_LAPACK_ROUTINES(PS_POINTER)
#undef PS_POINTER
};

inline LapackTable& lapack_table() {
  static LapackTable table;
  return table;
}

// Whether the table is filled, and what fills it: set by whoever knows where LAPACK is.
struct LapackSource {
  std::atomic<bool> loaded{false};
  std::atomic<void (*)()> load{nullptr};
};

inline LapackSource& lapack_source() {
  static LapackSource source;
  return source;
}

// Before the first use of the table, and not while a fork is held off: loading waits for Python.
inline void need_lapack() {
  LapackSource& source = lapack_source();
  if (source.loaded.load(std::memory_order_acquire)) return;
  const auto load = source.load.load(std::memory_order_acquire);
  PS_REQUIRE(load != nullptr, "nothing was said about where LAPACK is");
  load();
}

}  // namespace pyspectra::linalg
