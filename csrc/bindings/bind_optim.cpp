#include <span>

#include "bindings/bind.hpp"
#include "optim/step.hpp"

namespace pyspectra::bindings {
namespace {

using optim::StepOptions;
using optim::StepTensor;
using Table = py::array_t<Index, py::array::c_style>;

// Columns of a row, in this order. First addresses (0 for none); the rest as in StepTensor.
constexpr std::array kColumns{"param", "grad",   "exp_avg", "exp_avg_sq", "ema",
                              "mask",  "master", "size",    "children",   "offset",
                              "run",   "pitch",  "key",     "dtype",      "options"};
constexpr auto kWidth = static_cast<py::ssize_t>(kColumns.size());

template <typename T>
T* pointer(Index address) {
  return reinterpret_cast<T*>(static_cast<std::uintptr_t>(address));
}

std::vector<StepTensor> step_tensors(const Table& table) {
  PS_REQUIRE(table.ndim() == 2 && table.shape(1) == kWidth,
             "step: a row has " + std::to_string(kWidth) + " columns");
  std::vector<StepTensor> out;
  out.reserve(static_cast<std::size_t>(table.shape(0)));
  for (py::ssize_t k = 0; k < table.shape(0); ++k) {
    const Index* row = table.data(k, 0);
    PS_REQUIRE(row[13] >= 0 && row[13] <= 3, "step: unknown dtype code");
    out.push_back({.param = pointer<void>(row[0]),
                   .grad = pointer<const void>(row[1]),
                   .exp_avg = pointer<void>(row[2]),
                   .exp_avg_sq = pointer<void>(row[3]),
                   .ema = pointer<void>(row[4]),
                   .mask = pointer<const std::uint8_t>(row[5]),
                   .master = pointer<void>(row[6]),
                   .size = row[7],
                   .children = row[8],
                   .offset = row[9],
                   .run = row[10],
                   .pitch = row[11],
                   .key = static_cast<std::uint64_t>(row[12]),
                   .dtype = static_cast<DType>(row[13]),
                   .options = row[14]});
  }
  return out;
}

// Columns of the statistics, in the order of StepStatistics.
constexpr std::array kStatistics{"grad_squares",    "grad_max",   "param_squares", "update_squares",
                                 "grad_dot_update", "non_finite", "zero",          "rounded_away"};
static_assert(sizeof(optim::StepStatistics) == kStatistics.size() * sizeof(double));

StepOptions step_options(int rule, double lr, double beta1, double beta2, double eps,
                         double momentum, double dampening, bool nesterov, double weight_decay,
                         Index step, double grad_scale, int keep, bool decay_masked,
                         double ema_decay, bool ema_warmup, Index ema_every,
                         bool stochastic_rounding) {
  PS_REQUIRE(rule >= 0 && rule <= 3, "step: unknown rule");
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
          ema_warmup,
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
           py::arg("ema_warmup") = false, py::arg("ema_every") = 1,
           py::arg("stochastic_rounding") = false);
  m.def("rule_names", [] {
    using optim::Rule;
    return std::map<std::string, int>{{"adamw", static_cast<int>(Rule::adamw)},
                                      {"adamw_alicemind", static_cast<int>(Rule::adamw_alicemind)},
                                      {"adam", static_cast<int>(Rule::adam)},
                                      {"sgd", static_cast<int>(Rule::sgd)}};
  });
  m.attr("STEP_COLUMNS") = py::cast(kColumns);
  m.attr("STATISTICS_COLUMNS") = py::cast(kStatistics);
  m.def(
      "step",
      [](const Table& table, const std::vector<StepOptions>& options, bool statistics) {
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
      [](const Table& table) {
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
}

}  // namespace pyspectra::bindings
