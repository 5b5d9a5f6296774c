#include "linalg/lapack_steps.hpp"

#include <algorithm>
#include <limits>
#include <memory>
#include <utility>
#include <vector>

#include "core/fork.hpp"
#include "core/interrupt.hpp"
#include "linalg/lapack.hpp"

namespace pyspectra::linalg {
namespace {

constexpr Index kBlock = 32;            // columns a panel, as LAPACK has it
constexpr Index kWhole = 256;           // orders that LAPACK reduces in one call
constexpr double kFlops = 4e8;          // of a matrix product in one call
constexpr double kSmallWork = 1e8;      // rows times columns squared that xGESDD takes whole
constexpr Index kLongIteration = 1500;  // orders from which QL and dqds take tens of milliseconds

// One call of BLAS or LAPACK.
template <typename F>
void call(const F& f) {
  check_interrupt();
  need_lapack();
  const ForkHeldOff held;
  f();
}

lapack_int as_int(Index n) { return static_cast<lapack_int>(n); }

// The BLAS calls that the panels are made of, with arguments by value. Empty ones are left out.

void gemv(char trans, Index m, Index n, double alpha, double* a, Index lda, double* x, Index incx,
          double beta, double* y, Index incy) {
  const Index length = trans == 'N' ? m : n, terms = trans == 'N' ? n : m;
  if (length == 0 || (terms == 0 && beta == 1.0)) return;
  lapack_int m_ = as_int(m), n_ = as_int(n), lda_ = as_int(lda), incx_ = as_int(incx),
             incy_ = as_int(incy);
  call([&] {
    lapack_table().gemv(&trans, &m_, &n_, &alpha, a, &lda_, x, &incx_, &beta, y, &incy_);
  });
}

double larfg(Index n, double* alpha, double* x, Index incx) {
  lapack_int n_ = as_int(n), incx_ = as_int(incx);
  double tau = 0.0;
  call([&] { lapack_table().larfg(&n_, alpha, x, &incx_, &tau); });
  return tau;
}

void scal(Index n, double alpha, double* x) {
  lapack_int n_ = as_int(n), one = 1;
  call([&] { lapack_table().scal(&n_, &alpha, x, &one); });
}

// c += alpha a b or alpha a b^T, in blocks of columns that are not long.
void gemm(bool transposed, Index m, Index n, Index k, double alpha, double* a, Index lda, double* b,
          Index ldb, double* c, Index ldc) {
  char trans_a = 'N', trans_b = transposed ? 'T' : 'N';
  double one = 1.0;
  lapack_int m_ = as_int(m), k_ = as_int(k), lda_ = as_int(lda), ldb_ = as_int(ldb),
             ldc_ = as_int(ldc);
  const double a_column = 2.0 * static_cast<double>(m) * static_cast<double>(k);
  const Index width = std::max<Index>(1, static_cast<Index>(kFlops / a_column));
  for (Index j = 0; j < n; j += width) {
    lapack_int n_ = as_int(std::min(width, n - j));
    double* const from = b + (transposed ? j : j * ldb);
    call([&] {
      lapack_table().gemm(&trans_a, &trans_b, &m_, &n_, &k_, &alpha, a, &lda_, from, &ldb_, &one,
                          c + j * ldc, &ldc_);
    });
  }
}

// Lower triangle of c -= v w^T + w v^T, in blocks of columns: the diagonal block and what is below.
void syr2k(Index n, Index k, double* v, Index ldv, double* w, Index ldw, double* c, Index ldc) {
  char lower = 'L', no = 'N';
  double minus = -1.0, one = 1.0;
  lapack_int k_ = as_int(k), ldv_ = as_int(ldv), ldw_ = as_int(ldw), ldc_ = as_int(ldc);
  const double whole = 2.0 * static_cast<double>(n) * static_cast<double>(n) * double(k);
  const Index width =
      whole <= kFlops ? n : std::max<Index>(64, static_cast<Index>(kFlops / whole * double(n)));
  for (Index j = 0; j < n; j += width) {
    const Index columns = std::min(width, n - j), rest = n - j - columns;
    lapack_int columns_ = as_int(columns);
    call([&] {
      lapack_table().syr2k(&lower, &no, &columns_, &k_, &minus, v + j, &ldv_, w + j, &ldw_, &one,
                           c + j * (ldc + 1), &ldc_);
    });
    if (rest == 0) break;
    double* const below = c + j * (ldc + 1) + columns;
    gemm(true, rest, columns, k, -1.0, v + j + columns, ldv, w + j, ldw, below, ldc);
    gemm(true, rest, columns, k, -1.0, w + j + columns, ldw, v + j, ldv, below, ldc);
  }
}

// xLATRD, lower: columns [0, nb) of the order-n matrix a become reflectors v, and w is such that
// the rest is to become a - v w^T - w v^T.
void tridiagonal_panel(double* a, Index n, Index nb, Index lda, double* d, double* e, double* w,
                       Index ldw) {
  for (Index i = 0; i < nb; ++i) {
    double* const column = a + i * lda + i;
    gemv('N', n - i, i, -1.0, a + i, lda, w + i, ldw, 1.0, column, 1);
    gemv('N', n - i, i, -1.0, w + i, ldw, a + i, lda, 1.0, column, 1);
    d[i] = *column;
    const Index m = n - i - 1;
    double* const v = column + 1;
    double tau = larfg(m, v, v + std::min<Index>(1, m - 1), 1);
    e[i] = *v;
    *v = 1.0;
    double* const top = w + i * ldw;
    double* const out = top + i + 1;
    char lower = 'L';
    double one = 1.0, zero = 0.0;
    lapack_int m_ = as_int(m), lda_ = as_int(lda), step = 1;
    call([&] {
      lapack_table().symv(&lower, &m_, &one, v + lda, &lda_, v, &step, &zero, out, &step);
    });
    gemv('T', m, i, 1.0, w + i + 1, ldw, v, 1, 0.0, top, 1);
    gemv('N', m, i, -1.0, a + i + 1, lda, top, 1, 1.0, out, 1);
    gemv('T', m, i, 1.0, a + i + 1, lda, v, 1, 0.0, top, 1);
    gemv('N', m, i, -1.0, w + i + 1, ldw, top, 1, 1.0, out, 1);
    scal(m, tau, out);
    call([&] {
      double alpha = -0.5 * tau * lapack_table().dot(&m_, out, &step, v, &step);
      lapack_table().axpy(&m_, &alpha, v, &step, out, &step);
    });
  }
}

// xLABRD, m >= n: rows and columns [0, nb) of the m x n matrix a become reflectors, and x and y
// are such that the rest is to become a - v y^T - x u^T. Ends in the bidiagonal form's d and e.
void bidiagonal_panel(double* a, Index m, Index n, Index nb, Index lda, double* d, double* e,
                      double* x, Index ldx, double* y, Index ldy) {
  for (Index i = 0; i < nb; ++i) {
    double* const column = a + i * lda + i;
    gemv('N', m - i, i, -1.0, a + i, lda, y + i, ldy, 1.0, column, 1);
    gemv('N', m - i, i, -1.0, x + i, ldx, a + i * lda, 1, 1.0, column, 1);
    const double tau_q = larfg(m - i, column, column + std::min<Index>(1, m - i - 1), 1);
    d[i] = *column;
    *column = 1.0;
    const Index right = n - i - 1, under = m - i - 1;
    double* const row = column + lda;
    double* const yi = y + i * ldy;
    double* const y_out = yi + i + 1;
    gemv('T', m - i, right, 1.0, row, lda, column, 1, 0.0, y_out, 1);
    gemv('T', m - i, i, 1.0, a + i, lda, column, 1, 0.0, yi, 1);
    gemv('N', right, i, -1.0, y + i + 1, ldy, yi, 1, 1.0, y_out, 1);
    gemv('T', m - i, i, 1.0, x + i, ldx, column, 1, 0.0, yi, 1);
    gemv('T', i, right, -1.0, a + (i + 1) * lda, lda, yi, 1, 1.0, y_out, 1);
    scal(right, tau_q, y_out);

    gemv('N', right, i + 1, -1.0, y + i + 1, ldy, a + i, lda, 1.0, row, lda);
    gemv('T', i, right, -1.0, a + (i + 1) * lda, lda, x + i, ldx, 1.0, row, lda);
    const double tau_p = larfg(right, row, row + std::min<Index>(1, right - 1) * lda, lda);
    e[i] = *row;
    *row = 1.0;
    double* const xi = x + i * ldx;
    double* const x_out = xi + i + 1;
    gemv('N', under, right, 1.0, row + 1, lda, row, lda, 0.0, x_out, 1);
    gemv('T', right, i + 1, 1.0, y + i + 1, ldy, row, lda, 0.0, xi, 1);
    gemv('N', under, i + 1, -1.0, a + i + 1, lda, xi, 1, 1.0, x_out, 1);
    gemv('N', i, right, 1.0, a + (i + 1) * lda, lda, row, lda, 0.0, xi, 1);
    gemv('N', under, i, -1.0, x + i + 1, ldx, xi, 1, 1.0, x_out, 1);
    scal(under, tau_p, x_out);
  }
}

// Upper bidiagonal form of the m x n matrix a, m >= n; e has room for n.
Status bidiagonalize(double* a, Index m, Index n, Index lda, double* d, double* e) {
  std::vector<double> x, y, tau(2 * std::min(n, kWhole)), work;
  Index i = 0;
  if (n > kWhole) {
    x.resize(m * kBlock);
    y.resize(n * kBlock);
  }
  for (; n - i > kWhole; i += kBlock) {
    double* const rest = a + i * (lda + 1);
    bidiagonal_panel(rest, m - i, n - i, kBlock, lda, d + i, e + i, x.data(), m, y.data(), n);
    const Index rows = m - i - kBlock, columns = n - i - kBlock;
    double* const next = rest + kBlock * (lda + 1);
    gemm(true, rows, columns, kBlock, -1.0, rest + kBlock, lda, y.data() + kBlock, n, next, lda);
    gemm(false, rows, columns, kBlock, -1.0, x.data() + kBlock, m, rest + kBlock * lda, lda, next,
         lda);
  }
  lapack_int rows = as_int(m - i), columns = as_int(n - i), lda_ = as_int(lda), info = 0;
  work.resize((m + n - 2 * i) * kBlock);
  lapack_int lwork = as_int(static_cast<Index>(work.size()));
  call([&] {
    lapack_table().gebrd(&rows, &columns, a + i * (lda + 1), &lda_, d + i, e + i, tau.data(),
                         tau.data() + (n - i), work.data(), &lwork, &info);
  });
  return info == 0 ? Status::ok : Status::no_convergence;
}

Status whole_gesdd(double* a, Index m, Index n, double* s) {
  char jobz = 'N';
  lapack_int m_ = as_int(m), n_ = as_int(n), one = 1, info = 0, lwork = -1;
  double wanted = 0.0, unused = 0.0;
  std::vector<lapack_int> iwork(8 * n);
  const auto gesdd = [&](double* work) {
    call([&] {
      lapack_table().gesdd(&jobz, &m_, &n_, a, &m_, s, &unused, &one, &unused, &one, work, &lwork,
                           iwork.data(), &info);
    });
  };
  gesdd(&wanted);
  if (info != 0) return Status::no_convergence;
  lwork = static_cast<lapack_int>(wanted);
  std::vector<double> work(lwork);
  gesdd(work.data());
  return info == 0 ? Status::ok : Status::no_convergence;
}

// Values of a bidiagonal form by xLASQ1 (dqds): `d` is replaced. It neither takes locks nor calls
// BLAS, so it may be left behind by an interrupt with memory of its own.
Status bidiagonal_values(Index n, double* d, const double* e) {
  struct Form {
    std::vector<double> d, e, work;
    lapack_int n, info = 0;
  };
  need_lapack();
  const auto form = std::make_shared<Form>();
  form->d.assign(d, d + n);
  form->e.assign(e, e + std::max<Index>(n - 1, 0));
  form->e.push_back(0.0);
  form->work.resize(4 * n);
  form->n = as_int(n);
  const auto work = [form] {
    lapack_table().lasq1(&form->n, form->d.data(), form->e.data(), form->work.data(), &form->info);
  };
  if (n >= kLongIteration)
    run_aside(work);
  else
    work();
  std::copy(form->d.begin(), form->d.end(), d);
  return form->info == 0 ? Status::ok : Status::no_convergence;
}

// The triangle R of a QR factorisation of the column-major m x n matrix a, m >= n, which is
// destroyed: n x n, column-major, zeros below the diagonal.
std::vector<double> triangle_of(double* a, Index m, Index n) {
  // A panel is read twice for each of its columns: a narrow one where columns are long.
  const Index nb = std::clamp<Index>((Index{1} << 21) / m, 4, kBlock);
  std::vector<double> tau(nb), T(nb * nb), work(std::max(n, Index{1}) * nb);
  lapack_int ldt = as_int(nb), lwork = as_int(static_cast<Index>(work.size()));
  for (Index j = 0; j < n; j += nb) {
    lapack_int rows = as_int(m - j), k = as_int(std::min(nb, n - j)), lda = as_int(m), info = 0;
    double* const panel = a + j * (m + 1);
    char forward = 'F', by_columns = 'C', left = 'L', trans = 'T';
    call([&] {
      lapack_table().geqrf(&rows, &k, panel, &lda, tau.data(), work.data(), &lwork, &info);
    });
    if (j + nb >= n) break;
    call([&] {
      lapack_table().larft(&forward, &by_columns, &rows, &k, panel, &lda, tau.data(), T.data(),
                           &ldt);
    });
    const double a_column = 4.0 * static_cast<double>(m - j) * static_cast<double>(nb);
    const Index width = std::max<Index>(nb, static_cast<Index>(kFlops / a_column));
    for (Index c = j + nb; c < n; c += width) {
      lapack_int columns = as_int(std::min(width, n - c));
      call([&] {
        lapack_table().larfb(&left, &trans, &forward, &by_columns, &rows, &columns, &k, panel, &lda,
                             T.data(), &ldt, a + c * m + j, &lda, work.data(), &columns);
      });
    }
  }
  std::vector<double> R(n * n, 0.0);
  for (Index j = 0; j < n; ++j) std::copy_n(a + j * m, j + 1, R.data() + j * n);
  return R;
}

}  // namespace

Status lapack_tridiagonalize(double* a, Index n, double* d, double* e) {
  const Index last = std::min(n, kWhole + kBlock);
  std::vector<double> w, tau(last), work(last * 64);
  if (n > last) w.resize(n * kBlock);
  Index i = 0;
  for (; n - i > last; i += kBlock) {
    double* const rest = a + i * (n + 1);
    tridiagonal_panel(rest, n - i, kBlock, n, d + i, e + i, w.data(), n);
    syr2k(n - i - kBlock, kBlock, rest + kBlock, n, w.data() + kBlock, n, rest + kBlock * (n + 1),
          n);
  }
  char uplo = 'L';
  lapack_int order = as_int(n - i), lda = as_int(n), lwork = as_int(last * 64), info = 0;
  call([&] {
    lapack_table().sytrd(&uplo, &order, a + i * (n + 1), &lda, d + i, e + i, tau.data(),
                         work.data(), &lwork, &info);
  });
  return info == 0 ? Status::ok : Status::no_convergence;
}

Status lapack_singular_values(double* a, Index m, Index n, double* s) {
  if (static_cast<double>(m) * double(n) * double(n) <= kSmallWork) return whole_gesdd(a, m, n, s);
  std::vector<double> R, e(n);
  Index rows = m;
  if (m >= n * 11 / 6) {  // from where xGESDD takes a QR first
    R = triangle_of(a, m, n);
    a = R.data();
    rows = n;
  }
  const Status status = bidiagonalize(a, rows, n, rows, s, e.data());
  if (status != Status::ok) return status;
  return bidiagonal_values(n, s, e.data());
}

}  // namespace pyspectra::linalg
