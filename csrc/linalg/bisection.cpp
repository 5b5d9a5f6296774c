#include "linalg/bisection.hpp"

#include <algorithm>
#include <cmath>
#include <vector>

#include "core/interrupt.hpp"
#include "core/isa.hpp"
#include "core/parallel.hpp"

namespace pyspectra::linalg {
namespace {

using detail::Bracket;
using detail::kDoneWidth;
using detail::SturmMatrix;
using detail::SturmPoint;

// Brackets that a task has at least: its lanes take the next one as they are done with one.
constexpr Index kShare = 64;

// Multiplies by 2^exponent, which itself may be beyond the range of double: in two steps.
class PowerOfTwo {
 public:
  explicit PowerOfTwo(int exponent)
      : first_(std::ldexp(1.0, exponent / 2)), second_(std::ldexp(1.0, exponent - exponent / 2)) {}
  double operator*(double x) const { return x * first_ * second_; }

 private:
  double first_, second_;
};

// One matrix with no zero beside its diagonal, scaled by a power of two to a norm in [1/2, 1).
class Bisection {
 public:
  Bisection(const double* d, const double* e, Index n)
      : kernels_(PS_SELECT_ISA(detail::bisection)), n_(n), f_(n), g_(n), roots_(n) {
    double norm = 0.0;
    for (Index i = 0; i < n; ++i) norm = std::max(norm, std::abs(d[i]) + radius(e, i));
    if (std::all_of(d, d + n, [](double x) { return x == 0.0; })) first_ = n / 2;
    int exponent = 0;
    std::frexp(norm, &exponent);
    const PowerOfTwo scale(-exponent);
    back_ = PowerOfTwo(exponent);
    for (Index i = 0; i < n; ++i) {
      const double centre = scale * d[i], r = scale * radius(e, i);
      low_ = std::min(low_, centre - r);
      high_ = std::max(high_, centre + r);
    }
    take_rows(d, e, scale);
  }

  void run(double* out) {
    separate();
    refine();
    for (Index k = first_; k < n_; ++k) out[k] = back_ * roots_[k];
    for (Index k = 0; k < first_; ++k) out[k] = -out[n_ - 1 - k];
  }

 private:
  // Of Gershgorin's interval of row i.
  double radius(const double* e, Index i) const {
    return (i > 0 ? std::abs(e[i - 1]) : 0.0) + (i + 1 < n_ ? std::abs(e[i]) : 0.0);
  }

  // f_i, g_i and the stretches. How much the larger of two neighbours in a sequence may grow or
  // shrink in a row is at most 2 f_i + 1 (|d_i - x| < 2.1), which bounds a stretch.
  void take_rows(const double* d, const double* e, const PowerOfTwo& scale) {
    constexpr double kMostChange = 0x1p700, kMostFactor = 0x1p100;
    double change = 1.0, coupling = 0.0;
    Index begin = 0;
    for (Index i = 0; i < n_; ++i) {
      double factor = 1.0;
      if (i > 0) {
        const double off = scale * e[i - 1], square = std::max(off * off, detail::kLeastSquare);
        factor = 1.0 / (square * f_[i - 1]);
        if (factor > kMostFactor || factor < 1.0 / kMostFactor || change > kMostChange ||
            i - begin == detail::kStretchRows) {
          stretches_.push_back({i, coupling});
          int exponent = 0;
          std::frexp(square, &exponent);
          factor = std::ldexp(1.0, -exponent / 2);
          coupling = factor * f_[i - 1] * square;
          change = 1.0;
          begin = i;
        }
      }
      change *= 2.1 * factor + 1.0;
      f_[i] = factor;
      g_[i] = scale * d[i] * factor;
    }
    stretches_.push_back({n_, coupling});
  }

  SturmMatrix matrix() const {
    return {f_.data(), g_.data(), stretches_.data(), static_cast<Index>(stretches_.size())};
  }

  // Points of which x is given, padded to whole calls.
  void count(std::vector<SturmPoint>& points) const {
    const Index width = kernels_.width, calls = static_cast<Index>(points.size()) / width;
    const SturmMatrix rows = matrix();
    parallel_for(calls, [&](Index c) { kernels_.count(rows, points.data() + c * width); });
  }

  // Brackets of one eigenvalue each; those that are too close for one have their place in roots_.
  void separate() {
    // Room for the rounding of the counts at both ends.
    SturmPoint low{low_ - 0x1p-40, 0.0, 0, 0}, high{high_ + 0x1p-40, 0.0, 0, n_};
    std::vector<Bracket> open{{low, high}}, next;
    std::vector<SturmPoint> points;
    bool ends = true;  // their values are not known yet
    while (!open.empty()) {
      check_interrupt();
      const Index intervals = static_cast<Index>(open.size());
      const Index wanted = ends ? n_ : std::max(intervals, kernels_.width);
      const Index inner = wanted / intervals, calls = points_in_calls(intervals * inner + 2 * ends);
      points.assign(static_cast<std::size_t>(calls), high);
      for (Index k = 0; k < intervals; ++k) {
        const double from = open[k].low.x, step = (open[k].high.x - from) / (inner + 1.0);
        for (Index q = 0; q < inner; ++q) points[k * inner + q].x = from + (q + 1.0) * step;
      }
      if (ends) points[calls - 2].x = low.x;
      count(points);
      if (ends) {
        open[0] = {points[calls - 2], points[calls - 1]};
        open[0].low.below = 0;
        open[0].high.below = n_;
        ends = false;
      }
      next.clear();
      for (Index k = 0; k < intervals; ++k) {
        SturmPoint left = open[k].low;
        for (Index q = 0; q < inner; ++q) {
          SturmPoint right = points[k * inner + q];
          // Rounding may make a count larger than that of a point to its right.
          right.below = std::clamp(right.below, left.below, open[k].high.below);
          keep(left, right, next);
          left = right;
        }
        keep(left, open[k].high, next);
      }
      open.swap(next);
    }
  }

  Index points_in_calls(Index points) const {
    return (points + kernels_.width - 1) / kernels_.width * kernels_.width;
  }

  void keep(const SturmPoint& low, const SturmPoint& high, std::vector<Bracket>& several) {
    const Index held = high.below - low.below;
    if (held == 0 || high.below <= first_) return;
    if (high.x - low.x <= kDoneWidth)
      std::fill_n(roots_.begin() + low.below, held, 0.5 * (low.x + high.x));
    else if (held == 1)
      brackets_.push_back({low, high});
    else
      several.push_back({low, high});
  }

  void refine() {
    const Index count = static_cast<Index>(brackets_.size());
    if (count == 0) return;
    const Index share = std::max(kShare, count / (4 * num_threads()));
    std::vector<double> found(static_cast<std::size_t>(count));
    const SturmMatrix rows = matrix();
    parallel_for((count + share - 1) / share, [&](Index task) {
      const Index begin = task * share;
      kernels_.refine(rows, brackets_.data() + begin, std::min(share, count - begin),
                      found.data() + begin);
    });
    for (Index k = 0; k < count; ++k) roots_[brackets_[k].low.below] = found[k];
  }

  const detail::BisectionKernels kernels_;
  const Index n_;
  std::vector<double> f_, g_, roots_;
  std::vector<detail::Stretch> stretches_;
  std::vector<Bracket> brackets_;
  Index first_ = 0;                 // eigenvalues before it are minus the last ones
  double low_ = 1.0, high_ = -1.0;  // ends of Gershgorin's intervals
  PowerOfTwo back_{0};
};

}  // namespace

void bisect(double* d, const double* e, Index n) {
  // A row without neighbours is an eigenvalue as it stands, to the last bit.
  Index begin = 0;
  for (Index i = 0; i < n; ++i) {
    if (i + 1 < n && e[i] != 0.0) continue;
    if (i > begin) Bisection(d + begin, e + begin, i + 1 - begin).run(d + begin);
    begin = i + 1;
  }
  if (!std::is_sorted(d, d + n)) std::sort(d, d + n);
}

}  // namespace pyspectra::linalg
