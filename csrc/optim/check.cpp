#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "core/error.hpp"
#include "optim/step.hpp"

namespace pyspectra::optim {

namespace {

using detail::Scalars;
#include "optim/rules.inl.hpp"

constexpr int count_words(const char* text) {
  int words = *text == '\0' ? 0 : 1;
  for (; *text != '\0'; ++text) words += *text == ' ' ? 1 : 0;
  return words;
}

#define PS_INFO(name, Struct, moments) RuleInfo{#name, moments, kCanBeCompact<Struct<float>>},
constexpr RuleInfo kRules[] = {PS_UPDATE_RULES(PS_INFO)};
#undef PS_INFO
#define PS_CHECK(name, Struct, moments) \
  static_assert(Struct<float>::kMoments == count_words(moments));
PS_UPDATE_RULES(PS_CHECK)
#undef PS_CHECK

std::string refusal(Index tensor, const std::string& complaint, Index other,
                    const std::string& hint) {
  std::string text = "step: tensor " + std::to_string(tensor) + ": " + complaint;
  if (other >= 0) text += " of tensor " + std::to_string(other);
  return hint.empty() ? text : text + ". Hint: " + hint;
}

[[noreturn]] void refuse(Index tensor, std::string complaint) {
  throw RefusedTensor(tensor, std::move(complaint));
}

struct Range {
  std::uintptr_t begin, end;
  bool written;
  const char* role;
  Index tensor;
};

void add_range(std::vector<Range>& ranges, const void* data, Index bytes, Index alignment,
               bool written, const char* role, Index tensor) {
  if (data == nullptr || bytes == 0) return;
  const auto begin = reinterpret_cast<std::uintptr_t>(data);
  if (begin % static_cast<std::uintptr_t>(alignment) != 0)
    refuse(tensor, std::string("'") + role + "' is not aligned to its element type");
  ranges.push_back({begin, begin + static_cast<std::uintptr_t>(bytes), written, role, tensor});
}

// After sorting by address, a range overlaps an earlier one exactly if it begins before the
// furthest end so far; reading twice is harmless.
void check_overlaps(std::vector<Range>& ranges) {
  std::sort(ranges.begin(), ranges.end(),
            [](const Range& a, const Range& b) { return a.begin < b.begin; });
  const Range* any = nullptr;
  const Range* written = nullptr;
  for (const Range& r : ranges) {
    const Range* const other = r.written ? any : written;
    if (other != nullptr && r.begin < other->end)
      throw RefusedTensor(r.tensor, std::string("'") + r.role + "' overlaps '" + other->role + "'",
                          other->tensor, "arrays that are written must not share memory");
    if (any == nullptr || r.end > any->end) any = &r;
    if (r.written && (written == nullptr || r.end > written->end)) written = &r;
  }
}

}  // namespace

std::span<const RuleInfo> rules() { return kRules; }

RefusedTensor::RefusedTensor(Index tensor, std::string complaint, Index other, std::string hint)
    : std::invalid_argument(refusal(tensor, complaint, other, hint)),
      tensor(tensor),
      other(other),
      complaint(std::move(complaint)),
      hint(std::move(hint)) {}

void check(std::span<const StepTensor> tensors, std::span<const StepOptions> options) {
  for (const StepOptions& o : options) {
    PS_REQUIRE(o.step >= 1 && o.step < (std::int64_t{1} << 32),
               "step: 'step' must be in [1, 2^32)");
    PS_REQUIRE(o.ema_every >= 1, "step: 'ema_every' must be positive");
    PS_REQUIRE(o.ema_lead >= 0, "step: 'ema_lead' must not be negative");
#define PS_KNOWN(name) || o.ema_warmup == EmaWarmup::name
    PS_REQUIRE(false PS_EMA_WARMUPS(PS_KNOWN), "step: unknown warm-up");
#undef PS_KNOWN
    PS_REQUIRE(o.keep >= 0 && o.keep <= 65536, "step: 'keep' must be in [0, 65536]");
  }
  std::vector<Range> ranges;
  ranges.reserve(tensors.size() * 6);
  for (Index k = 0; k < static_cast<Index>(tensors.size()); ++k) {
    const StepTensor& t = tensors[k];
    if (t.options < 0 || t.options >= static_cast<Index>(options.size()))
      refuse(k, "'options' is out of range");
    if (t.size < 0 || t.offset < 0) refuse(k, "'size' and 'offset' must not be negative");
    if (t.size == 0) continue;
    if (t.run < 1 || t.pitch < t.run) refuse(k, "'run' must be positive and 'pitch' not below it");
    const StepOptions& o = options[t.options];
    if (t.param == nullptr || t.grad == nullptr) refuse(k, "'param' and 'grad' are needed");
    const RuleInfo& rule = kRules[static_cast<int>(o.rule)];
    const bool compact = t.children >= 0;
    const int kinds = count_words(rule.moments);
    const Index moments = compact ? t.children : t.size;
    if (kinds >= 1 && moments != 0 && t.exp_avg == nullptr) refuse(k, "'exp_avg' is needed");
    if (kinds >= 2 && moments != 0 && t.exp_avg_sq == nullptr) refuse(k, "'exp_avg_sq' is needed");
    if (compact && (t.mask == nullptr || !rule.compact))
      refuse(k, "compact moments are for AdamW under a fixed mask");
    const bool narrow = t.dtype == DType::float16 || t.dtype == DType::bfloat16;
    if (t.master != nullptr && !narrow) refuse(k, "'master' is for parameters of 16 bits");
    if (o.keep != 0 && t.mask != nullptr) refuse(k, "has both a drawn and a fixed mask");
    const Index item = item_size(t.dtype), state = t.dtype == DType::float64 ? 8 : 4;
    add_range(ranges, t.param, t.size * item, item, true, "param", k);
    add_range(ranges, t.grad, t.size * item, item, false, "grad", k);
    add_range(ranges, t.exp_avg, moments * state, state, true, "exp_avg", k);
    add_range(ranges, t.exp_avg_sq, moments * state, state, true, "exp_avg_sq", k);
    add_range(ranges, t.ema, t.size * state, state, true, "ema", k);
    add_range(ranges, t.master, t.size * state, state, true, "master", k);
    add_range(ranges, t.mask, (t.size + 7) / 8, 1, false, "mask", k);
  }
  check_overlaps(ranges);
}

}  // namespace pyspectra::optim
