#include "powerlaw/fit.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>

#include "core/error.hpp"
#include "core/interrupt.hpp"
#include "core/isa.hpp"
#include "core/lent.hpp"
#include "core/parallel.hpp"

namespace pyspectra::powerlaw {
namespace {

#include "core/elementary.inl.hpp"
#include "powerlaw/candidate.inl.hpp"

// Candidates of estimator fix_finger: [first, last], empty where first > last.
struct Window {
  Index first, last;
};

Window finger_window(const std::vector<double>& log_x, double xmin_max) {
  constexpr int kBins = 100;
  constexpr double kLn10 = 2.302585092994045684;
  const double low = log_x.front() / kLn10, high = log_x.back() / kLn10;
  if (!(high > low)) return {0, -1};
  std::array<Index, kBins> count{};
  for (const double v : log_x) {
    const double place = (v / kLn10 - low) / (high - low) * kBins;
    ++count[std::min(static_cast<int>(place), kBins - 1)];
  }
  const auto peak = std::max_element(count.begin(), count.end()) - count.begin();
  const double p = std::pow(10.0, low + (high - low) * static_cast<double>(peak) / kBins);
  const double above = std::isnan(xmin_max) ? 1.5 * p : xmin_max;
  const double below = std::log10(0.95 * p);  // where 0.95 p is meant: see fit.hpp
  const auto first =
      below > 0.0 ? std::lower_bound(log_x.begin(), log_x.end(), std::log(below)) : log_x.begin();
  const auto end = std::upper_bound(first, log_x.end(), std::log(above));
  const Index n = static_cast<Index>(log_x.size());
  return {first - log_x.begin(), std::min<Index>(end - log_x.begin() - 1, n - 2)};
}

Fit fit_one(std::span<const double> all, const FitOptions& options, const detail::Kernels& kernels,
            detail::Workspace& w) {
  Fit out;
  if (std::any_of(all.begin(), all.end(), [](double v) { return !std::isfinite(v); })) {
    out.status = Status::not_finite;
    return out;
  }
  const auto first = std::upper_bound(all.begin(), all.end(), options.threshold);
  const auto last = std::upper_bound(first, all.end(), options.xmax);
  const std::span<const double> x(first, last);
  out.n = static_cast<Index>(x.size());
  if (out.n < 2) {
    out.status = Status::too_few_points;
    return out;
  }
  w.log_x.resize(x.size());
  kernels.logarithms(x.data(), out.n, w.log_x.data());
  check_interrupt();
  const Index fixed_start = std::lower_bound(x.begin(), x.end(), options.xmin) - x.begin();
  const detail::Tail tail = detail::fit_logs(w, options, kernels, fixed_start);
  out.status = tail.status;
  if (tail.status != Status::ok) return out;
  const Index m = out.n - tail.start;
  const bool outside = options.estimator == Estimator::hill || !std::isnan(options.xmin);
  set_exponent(out, tail.start, tail.beta, tail.T, outside ? 1 : 2);
  out.xmax = x.back();
  out.D = tail.D;
  out.n_tail = m;
  if (options.estimator == Estimator::hill) {
    out.xmin = x[tail.start - 1];
  } else if (!std::isnan(options.xmin)) {
    out.xmin = options.xmin;
  } else {
    out.xmin = x[tail.start];
    out.n_tail = static_cast<Index>(x.end() - std::lower_bound(x.begin(), x.end(), out.xmin));
  }
  return out;
}

}  // namespace

namespace detail {

Tail fit_logs(Workspace& w, const FitOptions& options, const Kernels& kernels, Index likely) {
  const Index n = static_cast<Index>(w.log_x.size());
  Tail out;
  w.tail_sum.resize(n);
  w.tail_sum[n - 1] = 0.0;
  for (Index i = n - 2; i >= 0; --i)
    w.tail_sum[i] =
        w.tail_sum[i + 1] + static_cast<double>(n - i - 1) * (w.log_x[i + 1] - w.log_x[i]);

  const bool csn = options.estimator == Estimator::csn;
  const bool small = options.estimator == Estimator::ww && n < kSmall;
  const double correction = small || csn ? 1.0 : 0.0;
  const double shift = csn ? 0.5 : 0.0;

  const auto finish = [&](Index start, double log_xmin, double T) {
    check_interrupt();
    if (!find_exponent(n - start, T, correction, out.beta)) {
      out.status = Status::degenerate;
      return out;
    }
    out.start = start;
    out.log_xmin = log_xmin;
    out.T = T;
    out.D = kernels.distance(w.log_x.data(), start, n, log_xmin, out.beta, shift);
    return out;
  };
  // The tail of the points from `start` on, when xmin lies at or below the first of them.
  const auto finish_below = [&](Index start, double log_xmin) {
    const double T =
        w.tail_sum[start] + static_cast<double>(n - start) * (w.log_x[start] - log_xmin);
    return finish(start, log_xmin, T);
  };
  const auto fail = [&](Status status) {
    out.status = status;
    return out;
  };

  Index first = 0, last = n - 2;
  switch (options.estimator) {
    case Estimator::hill: {
      const Index k = options.k > 0 ? options.k : n / 2;
      if (k > n - 1) return fail(Status::too_few_points);
      return finish_below(n - k, w.log_x[n - k - 1]);
    }
    case Estimator::median:
      return finish(n / 2, w.log_x[n / 2], w.tail_sum[n / 2]);
    case Estimator::fix_finger: {
      const Window window = finger_window(w.log_x, options.xmin_max);
      first = window.first;
      last = window.last;
      break;
    }
    case Estimator::csn:
      last = n - options.min_tail;
      break;
    case Estimator::ww:
      if (small) last = n - kSmallTail;
      break;
  }
  if (!std::isnan(options.xmin)) {
    if (n - likely < (csn ? options.min_tail : 2)) return fail(Status::too_few_points);
    return finish_below(likely, log_positive(options.xmin));
  }
  if (small && last < 0)  // no candidate has a long enough tail: all points are the tail
    return finish(0, w.log_x[0], w.tail_sum[0]);
  if (csn && last < 0) return fail(Status::too_few_points);
  if (first > last) return fail(Status::degenerate);

  // A power of two near 2 sqrt(n): as many probes as points between two of them.
  Index stride = 8;
  while (16 * stride * stride < n) stride *= 2;
  const Index probes = (n + stride - 1) / stride;
  w.probe.resize(probes);
  w.scratch.resize(probes + 16);
  for (Index k = 0; k < probes; ++k) w.probe[k] = w.log_x[k * stride];
  const ScanInput in{w.log_x.data(),
                     w.tail_sum.data(),
                     w.probe.data(),
                     w.scratch.data(),
                     n,
                     stride,
                     first,
                     last,
                     likely,
                     correction,
                     shift,
                     csn,
                     check_interrupt};
  const ScanResult best = kernels.scan(in);
  // All tails are flat. WeightWatcher's small rule would still take i = 0; it is flat too.
  if (best.index < 0) return fail(Status::degenerate);
  return finish(best.index, w.log_x[best.index], w.tail_sum[best.index]);
}

}  // namespace detail

std::vector<Fit> fit_batch(std::span<const std::span<const double>> spectra,
                           const FitOptions& options) {
  const detail::Kernels kernels = PS_SELECT_ISA(detail::kernels);
  std::vector<Fit> out(spectra.size());
  // Longest first, so that no thread is left with a long one at the end.
  std::vector<Index> order(spectra.size());
  std::iota(order.begin(), order.end(), Index{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](Index a, Index b) { return spectra[a].size() > spectra[b].size(); });
  parallel_for(static_cast<Index>(order.size()), [&](Index task) {
    Lent<detail::Workspace> workspace;
    out[order[task]] = fit_one(spectra[order[task]], options, kernels, *workspace);
  });
  return out;
}

}  // namespace pyspectra::powerlaw
