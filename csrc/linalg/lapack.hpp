// BLAS and LAPACK as a table of function pointers, filled once at import from the capsules of
// scipy.linalg.cython_lapack (see bindings/bind_linalg.cpp). No link-time dependency.
#pragma once

namespace pyspectra::linalg {

using lapack_int = int;

struct LapackTable {
  using sytrd_t = void(char* uplo, lapack_int* n, double* a, lapack_int* lda, double* d, double* e,
                       double* tau, double* work, lapack_int* lwork, lapack_int* info);
  using sterf_t = void(lapack_int* n, double* d, double* e, lapack_int* info);
  using gesdd_t = void(char* jobz, lapack_int* m, lapack_int* n, double* a, lapack_int* lda,
                       double* s, double* u, lapack_int* ldu, double* vt, lapack_int* ldvt,
                       double* work, lapack_int* lwork, lapack_int* iwork, lapack_int* info);
  sytrd_t* sytrd = nullptr;
  sterf_t* sterf = nullptr;
  gesdd_t* gesdd = nullptr;
};

inline LapackTable& lapack_table() {
  static LapackTable table;
  return table;
}

}  // namespace pyspectra::linalg
