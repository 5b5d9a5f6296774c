// The elementary reflector. Included inside the anonymous namespace of a unit; includes nothing.

constexpr double kNegligible = 0x1p-900;  // as a sum of squares, beside a largest entry near one

// H = I - tau v v^T with v = (1, inverse * x) takes (alpha, x) to (beta, 0); `tail` is |x|^2.
// A tail that is negligible is dropped (v = e1, tau = 0): where squares lose digits to underflow,
// H would not be orthogonal.
struct Reflector {
  double beta, tau, inverse;
};
static inline PS_HD Reflector reflector(double alpha, double tail) {
  if (tail < kNegligible) return {alpha, 0.0, 0.0};
  const double norm = __builtin_sqrt(alpha * alpha + tail);
  const double beta = alpha < 0.0 ? norm : -norm;
  return {beta, (beta - alpha) / beta, 1.0 / (alpha - beta)};
}
