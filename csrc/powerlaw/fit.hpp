// Power-law tail fits p(x) ~ x^-alpha, x >= xmin, by maximum likelihood, xmin chosen by the
// Kolmogorov-Smirnov distance.
//
// Formulas. For ascending x_0..x_{n-1} and a candidate start i with m = n - i points in the tail,
//   T_i     = sum_{j>=i} ln(x_j / x_i)
//
//   alpha_i = 1 + m / T_i                    for n >= 20 (Clauset, Shalizi, Newman 2009, 3.1)
//
//   alpha_i = 1 + (m - 1) / T_i, m >= 8      for n < 20 (bias-corrected)
//
//   D_i     = max_{j>=i} | 1 - (x_j/x_i)^(1-alpha_i) - (j-i)/m |
//
// and the first i with the smallest D_i wins (WeightWatcher 0.7.7, estimator `ww`). The empirical
// distribution takes one side of each step only; that is WeightWatcher's choice, kept for parity.
// A tail of points that rounding cannot tell apart (T_i <= 1e-12) is no candidate.
//
// Bias. Given xmin, (alpha - 1) T is Gamma distributed, of m - 1 where xmin is a point of the tail
// (whose logarithm is zero) and of m where it is not; so E[1/T] = (alpha - 1) / (m - 2), or / (m -
// 1), and
//   alpha_corrected = 1 + (m - 2) / T, or 1 + (m - 1) / T
// is unbiased but for the choice of xmin by D, which leaves about half of the bias.
//
// The other estimators change one part each:
//   csn          candidates are distinct values with m >= min_tail; alpha_i = 1 + (m - 1) / T_i,
//   the
//                unbiased one (Clauset et al., 3.1 and appendix B); D_i looks at both sides of each
//                step, max_j max(|F_j - (j-i)/m|, |F_j - (j-i+1)/m|) = max_j |F_j - (j-i+1/2)/m| +
//                1/(2m), which among equal points is attained at the first or the last
//   fix_finger   candidates have x_i in [log10(0.95 p), xmin_max or 1.5 p], p the left edge of the
//                fullest (first of them) of 100 bins of log10 x. The lower bound is a logarithm
//                where an eigenvalue is meant: a slip that every implementation copied, so the
//                definition
//   median       no scan: i = n / 2 (integer division), alpha_i as above (TempBalance)
//   hill         no scan: the k largest points, xmin the next one below them
//
// Complexity. All alpha_i in O(n) from T_i = T_{i+1} + (n-i-1) ln(x_{i+1}/x_i), a sum of terms >= 0
// that cannot cancel. D_i over any subset of j bounds D_i from below, so a candidate stops as soon
// as it exceeds the best D found; and since both curves rise with j, their values at two probes
// bound the deviation between them from above, so most stretches between probes are never looked
// at. The answer is the exhaustive scan's: bounds only skip what cannot win.
//
// Determinism: the same bits on every instruction set and for any number of threads (the unit is
// compiled with -ffp-contract=off, and a maximum does not depend on order).
#pragma once

#include <limits>
#include <span>
#include <vector>

#include "core/types.hpp"

namespace pyspectra::powerlaw {

enum class Estimator : int { ww = 0, hill = 1, csn = 2, median = 3, fix_finger = 4 };

struct FitOptions {
  Estimator estimator = Estimator::ww;
  double threshold = 1e-5;                                 // points must exceed it (absolute)
  double xmin = std::numeric_limits<double>::quiet_NaN();  // NaN: scan (estimators ww, csn only)
  double xmax = std::numeric_limits<double>::infinity();   // points above it are left out
  Index k = 0;          // estimator hill: number of top points; 0 means n / 2
  Index min_tail = 10;  // estimator csn: points a tail must have, at least 3
  double xmin_max = std::numeric_limits<double>::quiet_NaN();  // estimator fix_finger; NaN: 1.5 p
};

struct Fit {
  double alpha = std::numeric_limits<double>::quiet_NaN();
  double xmin = std::numeric_limits<double>::quiet_NaN();
  double xmax = std::numeric_limits<double>::quiet_NaN();
  double D = std::numeric_limits<double>::quiet_NaN();
  double alpha_stderr = std::numeric_limits<double>::quiet_NaN();  // (alpha - 1) / sqrt(m)
  double alpha_corrected = std::numeric_limits<double>::quiet_NaN();
  Index n = 0;       // points that entered the fit
  Index n_tail = 0;  // #(x >= xmin) among them; hill: k
  Index index = -1;  // of the tail's first point, counted among the n that entered the fit
  Status status = Status::ok;
};

// Spectra ascending; parallel over spectra. Destroys nothing.
std::vector<Fit> fit_batch(std::span<const std::span<const double>> spectra,
                           const FitOptions& options);

namespace detail {

// What the scan works on: logarithms, T_i, and the logarithms at every `stride`-th point (probes).
struct ScanInput {
  const double* log_x;     // n
  const double* tail_sum;  // n
  const double* probe;     // ceil(n / stride): log_x[0], log_x[stride], ...
  double* scratch;         // as long as probe, plus 16
  Index n;
  Index stride;
  Index first, last;  // candidates, both included; last <= n - 2
  Index likely;       // is looked at first: a good one bounds the others
  double correction;  // alpha_i = 1 + (m - correction) / T_i
  double shift;       // D_i = max_j |F_j - (j - i + shift) / m| + shift / m
  bool distinct;      // of equal points only the first is a candidate
  void (*check)();    // check_interrupt, called about once a millisecond
};

struct ScanResult {
  Index index;  // -1: no candidate was valid
  double D;
};

// D of the tail starting at point i with logarithm of xmin `log_xmin` and alpha - 1 = `beta`, where
// the tail has m points; `shift` as in ScanInput.
using DistanceFn = double (*)(const double* log_x, Index i, Index n, double log_xmin, double beta,
                              double shift);
using ScanFn = ScanResult (*)(const ScanInput& in);

struct Kernels {
  void (*logarithms)(const double* x, Index n, double* out);  // x > 0; out may be x
  DistanceFn distance;
  ScanFn scan;
};

Kernels kernels_baseline();
Kernels kernels_avx2();
Kernels kernels_avx512();

struct Workspace {
  std::vector<double> log_x, tail_sum, probe, scratch;
};

// A fitted tail of the n ascending logarithms in w.log_x: points start.. n - 1.
struct Tail {
  Index start = -1;
  double log_xmin = 0.0, beta = 0.0, D = 0.0;  // beta = alpha - 1
  double T = 0.0;                              // T_start, from xmin
  Status status = Status::ok;
};

// What every fit is: `fit_batch` calls it for data, the bootstrap for replicates. `likely`: the
// first point >= options.xmin; where that is NaN, a guess, which changes nothing but the time.
Tail fit_logs(Workspace& w, const FitOptions& options, const Kernels& kernels, Index likely);

}  // namespace detail
}  // namespace pyspectra::powerlaw
