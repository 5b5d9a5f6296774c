// One candidate for the start of the tail: formulas of fit.hpp that the scans of CPU and CUDA
// share. Included inside the anonymous namespace of a unit after elementary.inl.hpp; includes
// nothing.

// Below this many points WeightWatcher (from 0.7.6) corrects the bias and wants a tail of 8.
constexpr Index kSmall = 20;
constexpr Index kSmallTail = 8;
constexpr double kDegenerate = 1e-12;  // smallest T_i that still tells points apart

// Where its tail starts, and the constants of its two curves.
struct Candidate {
  Index i, n;
  double log_xmin, beta, inv_m, shift;
};

// False where T_i has no exponent.
static inline PS_HD bool find_exponent(Index m, double T, double correction, double& beta) {
  beta = ((double)m - correction) / T;
  return T > kDegenerate && beta > 0.0;
}

// Of one candidate, or of one in each lane.
template <typename C, typename V>
static inline PS_HD V model_cdf(C log_xmin, C beta, V log_x) {
  return 1.0 - exp_nonpositive((log_xmin - log_x) * beta);
}

template <typename V>
static inline PS_HD V model_cdf(const Candidate& c, V log_x) {
  return model_cdf(c.log_xmin, c.beta, log_x);
}

// alpha, its error and what it is without bias, for the tail that begins at `start`: beta = alpha -
// 1, T = T_start; `spent`: 2 where xmin is the first point of the tail, else 1.
static inline PS_HD void set_exponent(Fit& out, Index start, double beta, double T, Index spent) {
  const Index m = out.n - start;
  out.alpha = 1.0 + beta;
  out.alpha_stderr = beta / __builtin_sqrt((double)m);
  if (m > spent) out.alpha_corrected = 1.0 + (double)(m - spent) / T;
  out.index = start;
}
