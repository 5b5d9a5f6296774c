// The elementary reflector. Included inside the anonymous namespace of a unit; includes nothing.

constexpr double kNegligible = 0x1p-900;  // as a sum of squares, beside a largest entry near one

// H = I - tau v v^T with v = (1, inverse * x) takes (alpha, x) to (beta, 0); `tail` is |x|^2.
// A tail that is negligible is dropped (v = e1, tau = 0): where squares lose digits to underflow,
// H would not be orthogonal. In double also for matrices of floats: it costs a reflector little,
// and keeps H as orthogonal as the rounding of tau and v lets it be.
struct Reflector {
  double beta, tau, inverse;
};
static inline PS_HD Reflector reflector(double alpha, double tail, double dropped = kNegligible) {
  if (tail < dropped) return {alpha, 0.0, 0.0};
  const double norm = __builtin_sqrt(alpha * alpha + tail);
  const double beta = alpha < 0.0 ? norm : -norm;
  return {beta, (beta - alpha) / beta, 1.0 / (alpha - beta)};
}
