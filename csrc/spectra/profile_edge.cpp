#include "spectra/profile_edge.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

namespace pyspectra::spectra {
namespace {

// Halvings of an interval in (0, 1), at most: a double has no more.
constexpr int kHalvings = 64;
constexpr double kConverged = 1e-14;
// How far h f is from one. z is stationary there.
constexpr double kAtEdge = 1e-9;

// One side of the profile, over its largest value, which leaves numbers in (0, 1].
class Side {
 public:
  explicit Side(std::span<const double> values) {
    for (double v : values) largest_ = std::max(largest_, v);
    for (double v : values)
      if (!(v <= 0.0)) shares_.push_back(v / largest_);  // NaN stays
  }

  double largest() const { return largest_; }
  bool empty() const { return shares_.empty(); }

  // t H(t) and its derivative by the logarithm of t, over it.
  struct Sums {
    double sum, slope;
  };
  Sums at(double t) const {
    double first = 0.0, second = 0.0;
    for (double b : shares_) {
      const double q = b / (1.0 - b * t);
      first += q;
      second += q * q;
    }
    return {t * first, 1.0 + t * second / first};
  }

  // The derivative of t H' / H by the logarithm of t.
  double curvature(double t) const {
    double first = 0.0, second = 0.0, third = 0.0;
    for (double b : shares_) {
      const double q = b / (1.0 - b * t);
      first += q;
      second += q * q;
      third += q * q * q;
    }
    const double h = t * second / first;
    return h + 2.0 * t * t * third / first - h * h;
  }

  // sum b x^2, sum b^2 x^2 and sum b^3 x^3 for x = 1 / (1 - b t).
  struct Moments {
    double first, second, third;
  };
  Moments moments(double t) const {
    Moments m{0.0, 0.0, 0.0};
    for (double b : shares_) {
      const double x = 1.0 / (1.0 - b * t), q = b * x;
      m.first += q * x;
      m.second += q * q;
      m.third += q * q * q;
    }
    return m;
  }

  // t with t H(t) = s: Newton in logarithms, kept between bounds that close in.
  double solve(double s, double t) const {
    double low = s / (static_cast<double>(shares_.size()) + s), high = s / (1.0 + s);
    if (!(t > low && t < high)) t = high;
    for (int step = 0; step < kHalvings; ++step) {
      const Sums found = at(t);
      (found.sum < s ? low : high) = t;
      const double next = t * std::exp(std::log(s / found.sum) / found.slope);
      const double taken = next > low && next < high ? next : 0.5 * (low + high);
      const double change = std::abs(taken - t);
      t = taken;
      if (!(change > kConverged * t)) break;
    }
    return t;
  }

 private:
  double largest_ = 0.0;
  std::vector<double> shares_;
};

}  // namespace

ProfileEdge profile_edge(std::span<const double> a, std::span<const double> b) {
  const Side rows(a), cols(b);
  if (rows.empty() || cols.empty()) return {0.0, 0.0, 0.0};
  if (!std::isfinite(rows.largest()) || !std::isfinite(cols.largest())) {
    const double nan = std::numeric_limits<double>::quiet_NaN();
    return {nan, nan, nan};
  }
  double low = 0.0, high = 1.0, alpha = 0.0, beta = 0.5, s = 0.0, f = 0.0, h = 0.0;
  for (int step = 0; step < kHalvings; ++step) {
    const Side::Sums of_rows = rows.at(beta);
    s = of_rows.sum;
    f = of_rows.slope - 1.0;
    alpha = cols.solve(s, alpha);
    h = cols.at(alpha).slope - 1.0;
    if (!(std::abs(h * f - 1.0) > kAtEdge)) break;
    (h * f < 1.0 ? low : high) = beta;
    beta = 0.5 * (low + high);
  }
  const double z = s / (alpha * beta), w = std::sqrt(z);
  const double bend = cols.curvature(alpha) / std::pow(1.0 + h, 3.0) +
                      rows.curvature(beta) / std::pow(1.0 + f, 3.0);
  const double kappa = s / z * std::sqrt(2.0 / (z * bend));
  // x = 1 / (w (1 - b alpha)) and y in the same way; their factors of 1 / w are taken out.
  const Side::Moments x = cols.moments(alpha), y = rows.moments(beta);
  const double w2 = w * w, y2 = y.second / w2;
  const double change = 2.0 * (y2 * y2 * x.third + x.second / w2 * y.third) / (w2 * w);
  const double response = change / ((y2 * x.first + y.first) / w2) / w;
  const double unit = rows.largest() * cols.largest();
  return {z * unit, std::pow(kappa, -2.0 / 3.0) * unit, response};
}

}  // namespace pyspectra::spectra
