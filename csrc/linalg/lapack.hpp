// BLAS and LAPACK as a table of function pointers, filled once at import from the capsules of
// scipy.linalg.cython_lapack (see bindings/bind_linalg.cpp). No link-time dependency.
#pragma once

namespace pyspectra::linalg {

using lapack_int = int;

template <typename T>
struct LapackTable {
  using sytrd_t = void(char* uplo, lapack_int* n, T* a, lapack_int* lda, T* d, T* e, T* tau,
                       T* work, lapack_int* lwork, lapack_int* info);
  using sterf_t = void(lapack_int* n, T* d, T* e, lapack_int* info);
  using gesdd_t = void(char* jobz, lapack_int* m, lapack_int* n, T* a, lapack_int* lda, T* s, T* u,
                       lapack_int* ldu, T* vt, lapack_int* ldvt, T* work, lapack_int* lwork,
                       lapack_int* iwork, lapack_int* info);
  sytrd_t* sytrd = nullptr;
  sterf_t* sterf = nullptr;
  gesdd_t* gesdd = nullptr;
};

template <typename T>
LapackTable<T>& lapack_table() {
  static LapackTable<T> table;
  return table;
}

}  // namespace pyspectra::linalg
