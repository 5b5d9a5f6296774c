#include "powerlaw/fit.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "core/error.hpp"
#include "core/isa.hpp"
#include "core/parallel.hpp"

namespace pyspectra::powerlaw {
namespace {

#include "core/elementary.inl.hpp"
#include "powerlaw/candidate.inl.hpp"

struct Workspace {
  std::vector<double> log_x, tail_sum, probe, scratch;
};

void finish(Fit& out, const detail::Kernels& kernels, const Workspace& w, double xmax, Index start,
            double log_xmin, double T, double correction) {
  const double beta = set_exponent(out, start, T, correction);
  if (beta == 0.0) return;
  out.xmax = xmax;
  out.D = kernels.distance(w.log_x.data(), start, out.n, log_xmin, beta);
}

Fit fit_one(std::span<const double> all, const FitOptions& options, const detail::Kernels& kernels,
            Workspace& w) {
  Fit out;
  if (std::any_of(all.begin(), all.end(), [](double v) { return !std::isfinite(v); })) {
    out.status = Status::not_finite;
    return out;
  }
  const auto first = std::upper_bound(all.begin(), all.end(), options.threshold);
  const auto last = std::upper_bound(first, all.end(), options.xmax);
  const std::span<const double> x(first, last);
  out.n = static_cast<Index>(x.size());
  const Index n = out.n;
  if (n < 2) {
    out.status = Status::too_few_points;
    return out;
  }
  w.log_x.resize(n);
  w.tail_sum.resize(n);
  kernels.logarithms(x.data(), n, w.log_x.data());
  w.tail_sum[n - 1] = 0.0;
  for (Index i = n - 2; i >= 0; --i)
    w.tail_sum[i] =
        w.tail_sum[i + 1] + static_cast<double>(n - i - 1) * (w.log_x[i + 1] - w.log_x[i]);

  if (options.estimator == Estimator::hill) {
    const Index k = options.k > 0 ? options.k : n / 2;
    if (k > n - 1) {
      out.status = Status::too_few_points;
      return out;
    }
    // xmin is the largest point outside the tail, so T gains k ln(x_{n-k} / xmin).
    const Index start = n - k;
    const double log_xmin = w.log_x[start - 1];
    const double T = w.tail_sum[start] + static_cast<double>(k) * (w.log_x[start] - log_xmin);
    finish(out, kernels, w, x[n - 1], start, log_xmin, T, 0.0);
    if (out.status == Status::ok) {
      out.xmin = x[start - 1];
      out.n_tail = k;
    }
    return out;
  }

  const bool small = n < kSmall;
  const double correction = small ? 1.0 : 0.0;
  if (!std::isnan(options.xmin)) {
    const Index start = std::lower_bound(x.begin(), x.end(), options.xmin) - x.begin();
    if (n - start < 2) {
      out.status = Status::too_few_points;
      return out;
    }
    const double log_xmin = log_positive(options.xmin);
    const double T =
        w.tail_sum[start] + static_cast<double>(n - start) * (w.log_x[start] - log_xmin);
    finish(out, kernels, w, x[n - 1], start, log_xmin, T, correction);
    if (out.status == Status::ok) {
      out.xmin = options.xmin;
      out.n_tail = n - start;
    }
    return out;
  }

  if (small && n < kSmallTail) {  // no candidate has a long enough tail: all points are the tail
    finish(out, kernels, w, x[n - 1], 0, w.log_x[0], w.tail_sum[0], correction);
  } else {
    // A power of two near 2 sqrt(n): as many probes as points between two of them.
    Index stride = 8;
    while (16 * stride * stride < n) stride *= 2;
    const Index probes = (n + stride - 1) / stride;
    w.probe.resize(probes);
    w.scratch.resize(probes + 16);
    for (Index k = 0; k < probes; ++k) w.probe[k] = w.log_x[k * stride];
    const detail::ScanInput in{
        w.log_x.data(), w.tail_sum.data(),      w.probe.data(), w.scratch.data(), n,
        stride,         small ? kSmallTail : 2, correction};
    const detail::ScanResult best = kernels.scan(in);
    if (best.index < 0) {
      // All tails are flat. WeightWatcher's small rule would still take i = 0; it is flat too.
      out.status = Status::degenerate;
      return out;
    }
    finish(out, kernels, w, x[n - 1], best.index, w.log_x[best.index], w.tail_sum[best.index],
           correction);
  }
  if (out.status == Status::ok) {
    out.xmin = x[out.index];
    out.n_tail = static_cast<Index>(x.end() - std::lower_bound(x.begin(), x.end(), out.xmin));
  }
  return out;
}

}  // namespace

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
    thread_local Workspace workspace;
    out[order[task]] = fit_one(spectra[order[task]], options, kernels, workspace);
  });
  return out;
}

}  // namespace pyspectra::powerlaw
