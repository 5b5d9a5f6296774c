// From hyper-parameters to what the rules read, in double, once a call. Included inside the
// anonymous namespace of a unit after step.hpp, elementary.inl.hpp and rules.inl.hpp; includes
// nothing itself.

// Weight of the parameter in the average at this step, 1 - decay; at update number n, counted from
// 0, the warm-ups take the decay down to TensorFlow's (1 + n) / (10 + n), or 1 - (1 + n)^(-2/3).
static inline PS_HD double ema_weight(const StepOptions& o) {
  const std::int64_t taken = o.step + o.ema_lead;
  if (taken % o.ema_every != 0) return 0.0;
  const double n = (double)(taken / o.ema_every - 1);
  double early = 1.0;
  if (o.ema_warmup == EmaWarmup::tf) early = (1.0 + n) / (10.0 + n);
  if (o.ema_warmup == EmaWarmup::power)
    early = 1.0 - exp_nonpositive(-2.0 / 3.0 * log_positive(1.0 + n));
  return 1.0 - (early < o.ema_decay ? early : o.ema_decay);
}

template <typename R>
static inline PS_HD void prepare(const StepOptions& o, Scalars& s) {
  if constexpr (requires { R::prepare(o, s); }) R::prepare(o, s);
}

static inline PS_HD Scalars scalars(const StepOptions& o) {
  Scalars s{};
  s.correction1 = 1.0 - power(o.beta1, o.step);
  s.root_correction2 = __builtin_sqrt(1.0 - power(o.beta2, o.step));
  s.lr = o.lr;
  s.decay = o.lr * o.weight_decay;
  s.keep_weight = 1.0 - s.decay;
  s.weight_decay = o.weight_decay;
  s.beta1 = o.beta1;
  s.one_minus_beta1 = 1.0 - o.beta1;
  s.beta2 = o.beta2;
  s.one_minus_beta2 = 1.0 - o.beta2;
  s.eps = o.eps;
  s.step_size = o.lr / s.correction1;
  s.root_scale = 1.0 / s.root_correction2;
  s.momentum = o.momentum;
  s.gain = o.step == o.momentum_start ? 1.0 : 1.0 - o.dampening;
  s.nesterov = o.nesterov ? o.momentum : 0.0;
  s.grad_scale = o.grad_scale;
  s.inverse_p = o.keep == 0 ? 1.0 : 65536.0 / o.keep;
  s.ema_weight = ema_weight(o);
  switch (o.rule) {
#define PS_PREPARE(name, Struct, moments) \
  case Rule::name:                        \
    prepare<Struct<double>>(o, s);        \
    break;
    PS_UPDATE_RULES(PS_PREPARE)
#undef PS_PREPARE
  }
  return s;
}
