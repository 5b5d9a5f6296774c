#include "powerlaw/bootstrap.hpp"

#include <algorithm>
#include <cmath>
#include <memory>

#include "core/error.hpp"
#include "core/interrupt.hpp"
#include "core/isa.hpp"
#include "core/lent.hpp"
#include "core/parallel.hpp"

namespace pyspectra::powerlaw {
namespace {

#include "core/elementary.inl.hpp"

// Points a task, in whole replicates: threads share one long spectrum, and short ones do not cost a
// task each.
constexpr Index kTaskPoints = 4096;

// What the replicates of one spectrum share.
struct Source {
  std::vector<double> body;  // logarithms of the points below the tail
  Index n;
  double log_xmin, beta;
  std::uint64_t key;
};

struct Scratch {
  detail::Workspace fit;
  std::vector<std::uint32_t> times;  // how often each body point was drawn, then all others
};

struct Kernels {
  detail::Kernels fit;
  detail::DrawKernels draw;
};

// Writes the ascending logarithms of replicate b; returns how many come from the body.
Index draw(const Source& source, Index b, const Kernels& kernels, Scratch& scratch) {
  constexpr Index kWords = 4 * detail::kBlocks, kNumbers = 2 * detail::kBlocks;
  constexpr Index kOften = 4;  // a point is seldom drawn more often
  const Index n_body = static_cast<Index>(source.body.size());
  detail::Stream stream{source.key, static_cast<std::uint64_t>(b), 0};
  std::vector<double>& out = scratch.fit.log_x;
  out.resize(static_cast<std::size_t>(source.n + std::max(kOften, kNumbers)));
  Index drawn = 0;
  if (n_body > 0) {
    scratch.times.assign(source.body.size() + 1, 0);
    std::uint32_t* const times = scratch.times.data();
    std::uint64_t words[kWords];
    for (Index i = 0; i < source.n; i += kWords) {
      kernels.draw.indices(stream, source.n, i / 4, words);
      for (const std::uint64_t r : words) ++times[std::min(static_cast<Index>(r), n_body)];
    }
    for (Index i = 0; i < n_body; ++i) {
      const double point = source.body[i];
      const Index count = times[i];
      // Without a branch that nobody can foresee; what is too much is written over.
      for (Index t = 0; t < kOften; ++t) out[drawn + t] = point;
      for (Index t = kOften; t < count; ++t) out[drawn + t] = point;
      drawn += count;
    }
  }
  stream.number = 1;
  for (Index j = drawn; j < source.n; j += kNumbers)
    kernels.draw.uniforms(stream, (j - drawn) / 2, out.data() + j);
  out.resize(static_cast<std::size_t>(source.n));
  double* const tail = out.data() + drawn;
  kernels.fit.logarithms(tail, source.n - drawn, tail);
  double u = 0.0;
  for (Index j = drawn; j < source.n; ++j) {
    u += -out[j] / static_cast<double>(source.n - j);
    out[j] = source.log_xmin + u / source.beta;
  }
  return drawn;
}

Replicate replicate(const Source& source, Index b, const FitOptions& options,
                    const Kernels& kernels, Scratch& scratch) {
  const Index drawn = draw(source, b, kernels, scratch);
  const detail::Tail tail = detail::fit_logs(scratch.fit, options, kernels.fit, drawn);
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
  const Kernels kernels{PS_SELECT_ISA(detail::kernels), PS_SELECT_ISA(detail::draws)};
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
    kernels.fit.logarithms(std::to_address(lowest), fits[s].index, source.body.data());
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
