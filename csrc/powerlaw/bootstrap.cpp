#include "powerlaw/bootstrap.hpp"

#include <algorithm>
#include <cmath>
#include <memory>

#include "core/error.hpp"
#include "core/interrupt.hpp"
#include "core/isa.hpp"
#include "core/lent.hpp"
#include "core/parallel.hpp"
#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace pyspectra::powerlaw {
namespace {

constexpr int kLanes = 2;  // the unit is compiled for the baseline
#include "core/elementary.inl.hpp"
#include "core/philox.inl.hpp"
#include "core/random.inl.hpp"
#include "powerlaw/replicate.inl.hpp"

// Points a task, in whole replicates: threads share one long spectrum, and short ones do not cost a
// task each.
constexpr Index kTaskPoints = 4096;

// 32-bit words of one stream of one replicate, in the order of their counters.
class Words {
 public:
  Words(std::uint64_t key, Index replicate, unsigned stream)
      : key_(key), replicate_(static_cast<std::uint64_t>(replicate)), stream_(stream) {}

  std::uint64_t next() {
    if (used_ == kBuffer) refill();
    return buffer_[used_++];
  }

 private:
  static constexpr int kBuffer = 4 * kLanes;

  void refill() {
    vu lane;
    for (int l = 0; l < kLanes; ++l) lane[l] = block_ + static_cast<std::uint64_t>(l);
    const Philox<vu> x =
        philox4x32<vu>({lane, vu{}, vu{} + replicate_, vu{} + static_cast<std::uint64_t>(stream_)},
                       static_cast<unsigned>(key_), static_cast<unsigned>(key_ >> 32));
    for (int l = 0; l < kLanes; ++l) {
      buffer_[4 * l] = x.c0[l] & 0xffffffffull;
      buffer_[4 * l + 1] = x.c1[l] & 0xffffffffull;
      buffer_[4 * l + 2] = x.c2[l] & 0xffffffffull;
      buffer_[4 * l + 3] = x.c3[l] & 0xffffffffull;
    }
    block_ += kLanes;
    used_ = 0;
  }

  std::uint64_t key_, replicate_, block_ = 0;
  unsigned stream_;
  int used_ = kBuffer;
  std::uint64_t buffer_[kBuffer];
};

// What the replicates of one spectrum share.
struct Source {
  std::vector<double> body;  // logarithms of the points below the tail
  Index n;
  double log_xmin, beta;
  std::uint64_t key;
};

struct Scratch {
  detail::Workspace fit;
  std::vector<std::uint32_t> times;  // how often each body point was drawn
};

// Writes the ascending logarithms of replicate b; returns how many come from the body.
Index draw(const Source& source, Index b, const detail::Kernels& kernels, Scratch& scratch) {
  const Index n_body = static_cast<Index>(source.body.size());
  std::vector<double>& out = scratch.fit.log_x;
  out.resize(static_cast<std::size_t>(source.n));
  Index drawn = 0;
  if (n_body > 0) {
    scratch.times.assign(source.body.size(), 0);
    Words words(source.key, b, 0);
    for (Index i = 0; i < source.n; ++i) {
      const Index r = drawn_index(words.next(), source.n);
      if (r < n_body) ++scratch.times[r];
    }
    for (Index i = 0; i < n_body; ++i)
      for (std::uint32_t t = scratch.times[i]; t > 0; --t) out[drawn++] = source.body[i];
  }
  Words words(source.key, b, 1);
  for (Index j = drawn; j < source.n; ++j) {
    const std::uint64_t high = words.next(), low = words.next();
    out[j] = uniform(high, low);
  }
  double* const tail = out.data() + drawn;
  kernels.logarithms(tail, source.n - drawn, tail);
  double u = 0.0;
  for (Index j = drawn; j < source.n; ++j) {
    u += -out[j] / static_cast<double>(source.n - j);
    out[j] = source.log_xmin + u / source.beta;
  }
  return drawn;
}

Replicate replicate(const Source& source, Index b, const FitOptions& options,
                    const detail::Kernels& kernels, Scratch& scratch) {
  const Index drawn = draw(source, b, kernels, scratch);
  const detail::Tail tail = detail::fit_logs(scratch.fit, options, kernels, drawn);
  if (tail.status != Status::ok) return {std::nan(""), std::nan(""), std::nan("")};
  return {1.0 + tail.beta, tail.D, static_cast<double>(source.n - tail.start)};
}

}  // namespace

std::vector<std::vector<Replicate>> bootstrap(std::span<const std::span<const double>> spectra,
                                              std::span<const Fit> fits, const FitOptions& options,
                                              Index first, Index count,
                                              std::span<const std::uint64_t> keys) {
  PS_REQUIRE(spectra.size() == fits.size() && spectra.size() == keys.size(),
             "bootstrap: as many fits and keys as spectra are needed");
  PS_REQUIRE(first >= 0 && count >= 0 && count < (Index{1} << 32) - first,
             "bootstrap: the numbers of the replicates must be below 2^32");
  const detail::Kernels kernels = PS_SELECT_ISA(detail::kernels);
  std::vector<std::vector<Replicate>> out(spectra.size());
  std::vector<Source> sources(spectra.size());
  struct Task {
    std::size_t spectrum;
    Index begin, end;
  };
  std::vector<Task> tasks;
  for (std::size_t s = 0; s < spectra.size(); ++s) {
    PS_REQUIRE(fits[s].n < (Index{1} << 32), "bootstrap: a spectrum may have 2^32 points");
    const auto lowest = std::upper_bound(spectra[s].begin(), spectra[s].end(), options.threshold);
    PS_REQUIRE(
        fits[s].index >= 0 && fits[s].index < fits[s].n && fits[s].n <= spectra[s].end() - lowest,
        "bootstrap: a fit does not belong to its spectrum");
    Source& source = sources[s];
    source.body.resize(static_cast<std::size_t>(fits[s].index));
    kernels.logarithms(std::to_address(lowest), fits[s].index, source.body.data());
    source.n = fits[s].n;
    source.log_xmin = log_positive(fits[s].xmin);
    source.beta = fits[s].alpha - 1.0;
    source.key = keys[s];
    out[s].resize(static_cast<std::size_t>(count));
    const Index chunk = std::max<Index>(1, kTaskPoints / source.n);
    for (Index begin = 0; begin < count; begin += chunk)
      tasks.push_back({s, begin, std::min(begin + chunk, count)});
  }
  const auto points = [&](const Task& task) {
    return sources[task.spectrum].n * (task.end - task.begin);
  };
  // Longest first, so that no thread is left with a long one at the end.
  std::stable_sort(tasks.begin(), tasks.end(),
                   [&](const Task& a, const Task& b) { return points(a) > points(b); });
  parallel_for(static_cast<Index>(tasks.size()), [&](Index t) {
    Lent<Scratch> scratch;
    const auto [s, begin, end] = tasks[t];
    for (Index b = begin; b < end; ++b) {
      check_interrupt();
      out[s][b] = replicate(sources[s], first + b, options, kernels, *scratch);
    }
  });
  return out;
}

}  // namespace pyspectra::powerlaw
