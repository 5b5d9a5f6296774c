// Update rules: one struct each. S is the type of the arithmetic and of the moments. A rule sees
// one element: parameter p, gradient g (scaled and masked), moments m and v, and whether weight
// decay applies to it. `rest` is where p goes that decays while gradient and moments are zero (for
// eps > 0), for the rules that can have compact moments. Included inside the anonymous namespace of
// a unit; includes nothing itself.

static inline PS_HD float root(float x) { return __builtin_sqrtf(x); }
static inline PS_HD double root(double x) { return __builtin_sqrt(x); }

// Loshchilov and Hutter, arXiv 1711.05101, in the order of torch.optim.AdamW:
//   p <- (1 - lr wd) p;  m <- m + (1 - b1) (g - m);  v <- b2 v + (1 - b2) g^2
//   p <- p - lr / (1 - b1^t) * m / (sqrt(v) / sqrt(1 - b2^t) + eps)
template <typename S>
struct AdamW {
  static constexpr int kMoments = 2;
  S keep_weight, gain1, beta2, gain2, step_size, root_scale, eps;
  explicit PS_HD AdamW(const Scalars& s)
      : keep_weight((S)s.keep_weight),
        gain1((S)s.one_minus_beta1),
        beta2((S)s.beta2),
        gain2((S)s.one_minus_beta2),
        step_size((S)s.step_size),
        root_scale((S)s.root_scale),
        eps((S)s.eps) {}
  PS_HD void operator()(S& p, S g, S& m, S& v, bool decays) const {
    const S start = decays ? p * keep_weight : p;
    m = m + gain1 * (g - m);
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
};

// Kingma and Ba, arXiv 1412.6980, with L2 regularisation, in the order of torch.optim.Adam:
// g <- g + wd p, then as AdamW without its first line.
template <typename S>
struct Adam {
  static constexpr int kMoments = 2;
  S weight_decay, gain1, beta2, gain2, step_size, root_scale, eps;
  explicit PS_HD Adam(const Scalars& s)
      : weight_decay((S)s.weight_decay),
        gain1((S)s.one_minus_beta1),
        beta2((S)s.beta2),
        gain2((S)s.one_minus_beta2),
        step_size((S)s.step_size),
        root_scale((S)s.root_scale),
        eps((S)s.eps) {}
  PS_HD void operator()(S& p, S g, S& m, S& v, bool decays) const {
    g = decays ? g + weight_decay * p : g;
    m = m + gain1 * (g - m);
    v = v * beta2 + gain2 * g * g;
    p = p - step_size * (m / (root(v) * root_scale + eps));
  }
};

// torch.optim.SGD: g <- g + wd p;  m <- mu m + (1 - dampening) g, at the first step m <- g;
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
