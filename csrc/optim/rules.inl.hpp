// Update rules: a line in the list and a struct each, and that is all of a rule on this side. The
// enum, its names, the dispatch of CPU and CUDA, the checks and what Python knows of a rule derive
// from the two.
//
// The file is read twice, and includes nothing itself. step.hpp reads the list. A unit that works
// with the structs includes it again, inside its anonymous namespace.
#ifndef PS_UPDATE_RULES

// Name, struct, and the keys of its moments in a saved state, which are torch's.
#define PS_UPDATE_RULES(RULE)                                 \
  RULE(adamw, AdamW, "exp_avg exp_avg_sq")                    \
  RULE(adamw_alicemind, AdamWAliceMind, "exp_avg exp_avg_sq") \
  RULE(adam, Adam, "exp_avg exp_avg_sq")                      \
  RULE(sgd, Descent, "")                                      \
  RULE(sgd_momentum, Momentum, "momentum_buffer")

#else

// S is the type of the arithmetic and of the moments. A rule sees one element: parameter p,
// gradient g (scaled and masked), moments m and v, and whether weight decay applies to it. Two
// members are for the rules that need them:
//   rest     where p goes that decays while gradient and moments are zero (for eps > 0): a rule
//            that has it can have compact moments
//   prepare  changes the scalars once a call, in double; scalars.inl.hpp has made them before

static inline PS_HD float root(float x) { return __builtin_sqrtf(x); }
static inline PS_HD double root(double x) { return __builtin_sqrt(x); }

// x^n for 0 <= x <= 1 by repeated squaring, in pairs of doubles (value and rounding error), so that
// the result is as good as correctly rounded, and the same wherever it is computed.
static inline PS_HD double power(double x, std::int64_t n) {
  double value = 1.0, error = 0.0, square = x, square_error = 0.0;
  for (; n > 0; n >>= 1) {
    if ((n & 1) != 0) {
      const double p = value * square;
      const double e = __builtin_fma(value, square, -p) + (value * square_error + error * square);
      value = p + e;
      error = e - (value - p);
    }
    const double p = square * square;
    const double e = __builtin_fma(square, square, -p) + 2.0 * square * square_error;
    square = p + e;
    square_error = e - (square - p);
  }
  return value;
}

// a + weight (b - a), as torch.lerp computes it: from the nearer end, so that what is small beside
// the other end is not lost (weight 1 gives b itself). Which end that is holds for the whole call.
template <typename S>
struct Lerp {
  S weight;
  bool from_b;
  explicit PS_HD Lerp(double w)
      : weight((S)w < (S)0.5 ? (S)w : (S)w - (S)1), from_b(!((S)w < (S)0.5)) {}
  PS_HD S operator()(S a, S b) const { return (from_b ? b : a) + weight * (b - a); }
};

template <typename R>
constexpr bool kCanBeCompact = requires(const R& rule, float p) { rule.rest(p); };

// Loshchilov and Hutter, arXiv 1711.05101, in the order of torch.optim.AdamW:
//   p <- (1 - lr wd) p;  m <- lerp(m, g, 1 - b1);  v <- b2 v + (1 - b2) g^2
//   p <- p - lr / (1 - b1^t) * m / (sqrt(v) / sqrt(1 - b2^t) + eps)
template <typename S>
struct AdamW {
  static constexpr int kMoments = 2;
  S keep_weight, beta2, gain2, step_size, root_scale, eps;
  Lerp<S> toward;
  explicit PS_HD AdamW(const Scalars& s)
      : keep_weight((S)s.keep_weight),
        beta2((S)s.beta2),
        gain2((S)s.one_minus_beta2),
        step_size((S)s.step_size),
        root_scale((S)s.root_scale),
        eps((S)s.eps),
        toward(s.one_minus_beta1) {}
  PS_HD void operator()(S& p, S g, S& m, S& v, bool decays) const {
    const S start = decays ? p * keep_weight : p;
    m = toward(m, g);
    v = v * beta2 + gain2 * g * g;
    p = start - step_size * (m / (root(v) * root_scale + eps));
  }
  PS_HD S rest(S p) const { return p * keep_weight; }
};

// The order of AliceMind's Child-Tuning and of Hugging Face's former AdamW: eps is not scaled by
// the bias correction, and weight decay comes last, on the updated parameter.
//   m <- b1 m + (1 - b1) g;  v <- b2 v + (1 - b2) g^2
//   p <- p - lr sqrt(1 - b2^t) / (1 - b1^t) * m / (sqrt(v) + eps);  p <- p - lr wd p
template <typename S>
struct AdamWAliceMind {
  static constexpr int kMoments = 2;
  S decay, beta1, gain1, beta2, gain2, step_size, eps;
  explicit PS_HD AdamWAliceMind(const Scalars& s)
      : decay((S)s.decay),
        beta1((S)s.beta1),
        gain1((S)s.one_minus_beta1),
        beta2((S)s.beta2),
        gain2((S)s.one_minus_beta2),
        step_size((S)s.step_size),
        eps((S)s.eps) {}
  PS_HD void operator()(S& p, S g, S& m, S& v, bool decays) const {
    m = m * beta1 + gain1 * g;
    v = v * beta2 + gain2 * g * g;
    const S moved = p - step_size * (m / (root(v) + eps));
    p = decays ? moved - decay * moved : moved;
  }
  PS_HD S rest(S p) const { return p - decay * p; }
  static PS_HD void prepare(const StepOptions& o, Scalars& s) {
    s.step_size = o.lr * s.root_correction2 / s.correction1;
  }
};

// Kingma and Ba, arXiv 1412.6980, with L2 regularisation, in the order of torch.optim.Adam:
// g <- g + wd p, then as AdamW without its first line.
template <typename S>
struct Adam {
  static constexpr int kMoments = 2;
  S weight_decay, beta2, gain2, step_size, root_scale, eps;
  Lerp<S> toward;
  explicit PS_HD Adam(const Scalars& s)
      : weight_decay((S)s.weight_decay),
        beta2((S)s.beta2),
        gain2((S)s.one_minus_beta2),
        step_size((S)s.step_size),
        root_scale((S)s.root_scale),
        eps((S)s.eps),
        toward(s.one_minus_beta1) {}
  PS_HD void operator()(S& p, S g, S& m, S& v, bool decays) const {
    g = decays ? g + weight_decay * p : g;
    m = toward(m, g);
    v = v * beta2 + gain2 * g * g;
    p = p - step_size * (m / (root(v) * root_scale + eps));
  }
};

// torch.optim.SGD: g <- g + wd p;  m <- mu m + (1 - dampening) g, where it begins m <- g;
// p <- p - lr m, with Nesterov p <- p - lr (g + mu m). (Sutskever et al., ICML 2013.)
template <typename S>
struct Momentum {
  static constexpr int kMoments = 1;
  S weight_decay, momentum, gain, nesterov, lr;
  explicit PS_HD Momentum(const Scalars& s)
      : weight_decay((S)s.weight_decay),
        momentum((S)s.momentum),
        gain((S)s.gain),
        nesterov((S)s.nesterov),
        lr((S)s.lr) {}
  PS_HD void operator()(S& p, S g, S& m, S&, bool decays) const {
    g = decays ? g + weight_decay * p : g;
    m = m * momentum + gain * g;
    p = p - lr * (nesterov != 0 ? g + nesterov * m : m);
  }
};

template <typename S>
struct Descent {
  static constexpr int kMoments = 0;
  S weight_decay, lr;
  explicit PS_HD Descent(const Scalars& s) : weight_decay((S)s.weight_decay), lr((S)s.lr) {}
  PS_HD void operator()(S& p, S g, S&, S&, bool decays) const {
    g = decays ? g + weight_decay * p : g;
    p = p - lr * g;
  }
};

#endif
