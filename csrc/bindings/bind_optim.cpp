#include "bindings/step_table.hpp"
#include "optim/select.hpp"

namespace pyspectra::bindings {
namespace {

using optim::StepOptions;
// Columns of the statistics, in the order of StepStatistics.
constexpr std::array kStatistics{"grad_squares",    "grad_max",   "param_squares", "update_squares",
                                 "grad_dot_update", "non_finite", "zero",          "rounded_away"};
static_assert(sizeof(optim::StepStatistics) == kStatistics.size() * sizeof(double));

StepOptions step_options(int rule, double lr, double beta1, double beta2, double eps,
                         double momentum, double dampening, bool nesterov, double weight_decay,
                         Index step, double grad_scale, int keep, bool decay_masked,
                         double ema_decay, int ema_warmup, Index ema_every,
                         bool stochastic_rounding) {
  PS_REQUIRE(rule >= 0 && rule <= 3, "step: unknown rule");
  PS_REQUIRE(ema_warmup >= 0 && ema_warmup <= 2, "step: unknown warm-up");
  return {static_cast<optim::Rule>(rule),
          lr,
          beta1,
          beta2,
          eps,
          momentum,
          dampening,
          nesterov,
          weight_decay,
          step,
          grad_scale,
          keep,
          decay_masked,
          ema_decay,
          static_cast<optim::EmaWarmup>(ema_warmup),
          ema_every,
          stochastic_rounding};
}

}  // namespace

void bind_optim(py::module_& m) {
  py::class_<StepOptions>(m, "StepOptions")
      .def(py::init(&step_options), py::kw_only(), py::arg("rule"), py::arg("lr"),
           py::arg("beta1") = 0.9, py::arg("beta2") = 0.999, py::arg("eps") = 1e-8,
           py::arg("momentum") = 0.0, py::arg("dampening") = 0.0, py::arg("nesterov") = false,
           py::arg("weight_decay") = 0.0, py::arg("step") = 1, py::arg("grad_scale") = 1.0,
           py::arg("keep") = 0, py::arg("decay_masked") = true, py::arg("ema_decay") = 1.0,
           py::arg("ema_warmup") = 0, py::arg("ema_every") = 1,
           py::arg("stochastic_rounding") = false);
  m.def("rule_names", [] {
    using optim::Rule;
    return std::map<std::string, int>{{"adamw", static_cast<int>(Rule::adamw)},
                                      {"adamw_alicemind", static_cast<int>(Rule::adamw_alicemind)},
                                      {"adam", static_cast<int>(Rule::adam)},
                                      {"sgd", static_cast<int>(Rule::sgd)}};
  });
  m.def("step_columns",
        [] { return std::vector<std::string>(kStepColumns.begin(), kStepColumns.end()); });
  m.def("statistics_columns",
        [] { return std::vector<std::string>(kStatistics.begin(), kStatistics.end()); });
  m.def(
      "step",
      [](const StepTable& table, const std::vector<StepOptions>& options, bool statistics) {
        const auto tensors = step_tensors(table);
        const auto rows = static_cast<py::ssize_t>(statistics ? tensors.size() : 0);
        py::array_t<double> out({rows, static_cast<py::ssize_t>(kStatistics.size())});
        auto* const to = reinterpret_cast<optim::StepStatistics*>(out.mutable_data());
        py::gil_scoped_release unlocked;
        optim::step(tensors, options, statistics ? to : nullptr);
        return out;
      },
      py::arg("table").noconvert(), py::arg("options"), py::arg("statistics") = false);
  m.def(
      "grad_squares",
      [](const StepTable& table) {
        const auto tensors = step_tensors(table);
        py::array_t<double> out(static_cast<py::ssize_t>(tensors.size()));
        double* const to = out.mutable_data();
        py::gil_scoped_release unlocked;
        optim::grad_squares(tensors, to);
        return out;
      },
      py::arg("table").noconvert());
  m.def(
      "draws",
      [](std::uint64_t key, std::uint32_t step, std::uint32_t stream, Index offset, Index size) {
        PS_REQUIRE(offset >= 0 && size >= 0, "draws: 'offset' and 'size' must not be negative");
        py::array_t<std::uint16_t> out(size);
        optim::draws(key, step, stream, offset, size, out.mutable_data());
        return out;
      },
      py::arg("key"), py::arg("step"), py::arg("stream"), py::arg("offset"), py::arg("size"));
  m.def(
      "philox",
      [](const std::array<std::uint32_t, 4>& counter, const std::array<std::uint32_t, 2>& key) {
        std::array<std::uint32_t, 4> out{};
        optim::philox(counter.data(), key.data(), out.data());
        return out;
      },
      py::arg("counter"), py::arg("key"));
  m.def(
      "order_statistic",
      [](const std::vector<py::array_t<float, py::array::c_style>>& arrays, Index index) {
        std::vector<std::span<const float>> spans;
        for (const auto& a : arrays)
          spans.emplace_back(a.data(), static_cast<std::size_t>(a.size()));
        py::gil_scoped_release unlocked;
        const optim::OrderStatistic found = optim::order_statistic(spans, index);
        return std::pair(found.value, found.nan_array);
      },
      py::arg("arrays"), py::arg("index"));
}

}  // namespace pyspectra::bindings
