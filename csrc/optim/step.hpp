// One optimizer step over many tensors: update rule, gradient mask and moving average in one pass.
//
// Per element, with everything but the stored parameter in S (float; double for float64 tensors):
//   g  = grad * grad_scale * b          b = 1 without a mask
//                                       F: (draw < keep) / p, p = keep / 65536   (b ~ Bernoulli)
//                                       D: the element's bit of `mask`
//   rule: rules.inl.hpp turns (param, g, moments) into the new ones
//   param is rounded to its type (to nearest even, or stochastically for bfloat16); where there is
//   a `master`, the rule moves that, and param is its rounding
//   ema <- ema - (1 - decay) (ema - param), with the parameter as stored, or the master
// Child-Tuning's two masks: Xu et al., EMNLP 2021, arXiv 2109.05687. A non-finite gradient stays
// non-finite under a mask (0 * NaN), so that a mask never hides one.
//
// Compact moments hold the child's elements alone, in order; the rest of the mask's zeros has zero
// moments for ever, so that for eps > 0 and finite gradients the bits are those of whole ones. The
// gradients outside the child are not read.
//
// Bytes moved per float32 element: 28 for a rule with two moments, 36 with a moving average; F's
// mask is drawn in cache; about 12 + 16 p with compact moments for a child of share p, 8 + 20 p at
// most where nothing decays outside it. One parallel region over chunks of all tensors together.
//
// Determinism: every element is computed alone by correctly rounded operations (the target is
// compiled with -ffp-contract=off), so the bits depend on no instruction set, thread count or
// chunking; draws depend on key, step and global index alone; sums are taken in float64, in eight
// interleaved lanes over blocks of fixed length, then over blocks, always in the same order.
//
// Aliasing: written arrays must not overlap anything; `step` sorts all ranges and refuses overlaps.
#pragma once

#include <cstdint>
#include <span>
#include <stdexcept>
#include <string>

#include "core/types.hpp"
#include "optim/rules.inl.hpp"  // the list of rules

namespace pyspectra::optim {

#define PS_NAME(name, ...) name,
enum class Rule : int { PS_UPDATE_RULES(PS_NAME) };

// How the decay of the average grows: scalars.inl.hpp.
#define PS_EMA_WARMUPS(WARMUP) WARMUP(none) WARMUP(tf) WARMUP(power)
enum class EmaWarmup : int { PS_EMA_WARMUPS(PS_NAME) };
#undef PS_NAME

// What Python knows of a rule.
struct RuleInfo {
  const char* name;
  const char* moments;  // their keys in a saved state, with a space between
  bool compact;         // can have compact moments
};
std::span<const RuleInfo> rules();  // in the order of Rule

// Hyper-parameters of a step: type, name, and the value where the caller says nothing.
//   beta1, beta2, eps             of the Adam family
//   momentum, dampening, nesterov of SGD
//   momentum_start                the step at which SGD's momentum begins, undampened
//   weight_decay                  decoupled in AdamW, L2 in the others
//   step                          counts from 1, below 2^32
//   grad_scale                    a clip factor, or 1 / loss scale
//   keep                          F: keep probability in units of 2^-16, 1..65536; 0 for no mask
//   decay_masked                  D: decay the weights outside the child network too?
//   ema_decay, ema_warmup         used where a tensor has `ema`; see scalars.inl.hpp
//   ema_every                     average at the steps that this divides
//   ema_lead                      steps of the optimizer that this tensor has missed, without a
//                                 gradient: averages count the optimizer's steps, step + ema_lead
//   stochastic_rounding           of bfloat16 parameters
#define PS_STEP_OPTIONS(OPTION)                  \
  OPTION(double, lr, 1e-3)                       \
  OPTION(double, beta1, 0.9)                     \
  OPTION(double, beta2, 0.999)                   \
  OPTION(double, eps, 1e-8)                      \
  OPTION(double, momentum, 0.0)                  \
  OPTION(double, dampening, 0.0)                 \
  OPTION(std::int64_t, momentum_start, 1)        \
  OPTION(bool, nesterov, false)                  \
  OPTION(double, weight_decay, 0.0)              \
  OPTION(std::int64_t, step, 1)                  \
  OPTION(double, grad_scale, 1.0)                \
  OPTION(int, keep, 0)                           \
  OPTION(bool, decay_masked, true)               \
  OPTION(double, ema_decay, 1.0)                 \
  OPTION(EmaWarmup, ema_warmup, EmaWarmup::none) \
  OPTION(std::int64_t, ema_every, 1)             \
  OPTION(std::int64_t, ema_lead, 0)              \
  OPTION(bool, stochastic_rounding, false)

struct StepOptions {
  Rule rule = Rule::adamw;
#define PS_MEMBER(type, name, value) type name = value;
  PS_STEP_OPTIONS(PS_MEMBER)
#undef PS_MEMBER
};

// `param` and `grad` are of type `dtype`; moments, `ema` and `master` are float32, or float64 with
// float64 parameters. Optional ones are null: `exp_avg_sq` where the rule has one moment,
// `exp_avg` too where it has none, `ema`, `mask` (bit i % 8 of byte i / 8; 1 = trainable),
// `master` (16-bit parameters only).
struct StepTensor {
  void* param;
  const void* grad;
  void* exp_avg;
  void* exp_avg_sq;
  void* ema;
  const std::uint8_t* mask;
  void* master;
  Index size;
  Index children;  // compact moments: how many elements they hold, the ones in `mask`; else -1
  // Where element i stands in the whole tensor: offset + (i / run) * pitch + i % run. A whole
  // tensor, or a stretch of it, has run = pitch = size; a slice of columns has run = its columns
  // and pitch = all columns.
  Index offset, run, pitch;
  std::uint64_t key;  // of the random numbers: from seed and parameter name
  DType dtype;
  Index options;  // index into the list of options
};

// What a step did to one tensor; w is the parameter (the master where there is one) before it, dw
// the change, g the gradient as given: before scale and mask. Without gradients: all zero.
struct StepStatistics {
  double grad_squares = 0, grad_max = 0;  // sum g^2; max |g|, NaN left out
  double param_squares = 0;               // sum w^2
  double update_squares = 0;              // sum dw^2
  double grad_dot_update = 0;             // sum g dw: the change of the loss to first order
  double non_finite = 0, zero = 0;        // gradients that are Inf or NaN, and 0
  // Updates rounded away: w stayed as it was although the learning rate is not zero and either the
  // first moment (without one: g, masked) is not, or weight decay applies to w != 0.
  double rounded_away = 0;
};

// A tensor that `step` refuses, by its place in the list: the caller knows its name, and that of
// the `other` (-1: there is none) which the complaint is about.
struct RefusedTensor : std::invalid_argument {
  RefusedTensor(Index tensor, std::string complaint, Index other = -1, std::string hint = "");
  Index tensor, other;
  std::string complaint, hint;
};

// Throws RefusedTensor, or std::invalid_argument for options, before anything is written.
// `statistics`: one a tensor, or null.
void step(std::span<const StepTensor> tensors, std::span<const StepOptions> options,
          StepStatistics* statistics = nullptr);

// The checks of `step`, by which it refuses.
void check(std::span<const StepTensor> tensors, std::span<const StepOptions> options);

// Sum of squares of each gradient (reads grad, size and dtype alone), in float64.
void grad_squares(std::span<const StepTensor> tensors, double* out);

// The draws that the mask of `size` elements from `offset` is made of (stream 0), or its stochastic
// rounding (stream 1).
void draws(std::uint64_t key, std::uint32_t step, std::uint32_t stream, Index offset, Index size,
           std::uint16_t* out);

namespace detail {

// What the rules read: functions of StepOptions, computed in double once a call.
struct Scalars {
  double lr, decay, keep_weight;  // lr; lr * weight_decay; 1 - lr * weight_decay
  double weight_decay;
  double beta1, one_minus_beta1, beta2, one_minus_beta2, eps;
  double correction1, root_correction2;      // 1 - beta1^t; sqrt(1 - beta2^t)
  double step_size, root_scale;              // lr / correction1; 1 / root_correction2
  double momentum, gain, nesterov;           // SGD
  double grad_scale, inverse_p, ema_weight;  // ema_weight = 1 - ema_decay
};

// Statistics are taken over blocks of this length, counted from the start of a tensor.
constexpr Index kBlock = 4096;

// Elements that the CPU works on at a time, and the statistics are summed over first. So small that
// the processor, looking ahead a few hundred instructions, draws for one tile while it waits for
// the memory of another: 512 costs a tenth of a step under mask F.
constexpr Index kTile = 128;

// A stretch of a tensor for one call: whole blocks where `blocks`, one a block, is not null.
// `rank`: elements of the child before `begin`.
struct Piece {
  Index tensor, begin, end, rank;
};

struct Kernels {
  void (*step)(const StepTensor&, const StepOptions&, const Scalars&, const Piece&,
               StepStatistics* blocks);
  double (*squares)(const StepTensor&, Index begin, Index end);           // within one block
  Index (*count_bits)(const std::uint8_t* bits, Index begin, Index end);  // begin a multiple of 8
  void (*draws)(std::uint64_t key, std::uint32_t step, std::uint32_t stream, Index offset,
                Index size, std::uint16_t* out);
};

Kernels kernels_baseline();
Kernels kernels_avx2();
Kernels kernels_avx512();

}  // namespace detail
}  // namespace pyspectra::optim
