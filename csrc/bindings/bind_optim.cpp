#include <algorithm>
#include <type_traits>

#include "bindings/step_table.hpp"
#include "optim/device_step.hpp"
#include "optim/select.hpp"

namespace pyspectra::bindings {
namespace {

using optim::EmaWarmup;
using optim::StepOptions;
// Columns of the statistics, in the order of StepStatistics.
constexpr std::array kStatistics{"grad_squares",    "grad_max",   "param_squares", "update_squares",
                                 "grad_dot_update", "non_finite", "zero",          "rounded_away"};
static_assert(sizeof(optim::StepStatistics) == kStatistics.size() * sizeof(double));

// As arguments of a function: enums arrive as their numbers.
template <typename T>
using Argument = std::conditional_t<std::is_enum_v<T>, int, T>;

std::vector<const void*> pointers(const std::vector<Index>& addresses) {
  std::vector<const void*> out;
  for (Index address : addresses) out.push_back(pointer<const void>(address));
  return out;
}

// A tensor that is refused becomes an exception that says which, as data.
void translate_refusals() {
  py::register_local_exception_translator([](std::exception_ptr thrown) {
    try {
      if (thrown) std::rethrow_exception(thrown);
    } catch (const optim::RefusedTensor& e) {
      const py::object type = py::module_::import("pyspectra.errors").attr("RefusedTensorError");
      const py::object raised = type(e.what(), e.tensor, e.complaint, e.other, e.hint);
      PyErr_SetObject(type.ptr(), raised.ptr());
    }
  });
}

}  // namespace

void bind_optim(py::module_& m) {
#define PS_PARAMETER(type, name, value) , Argument<type> name
#define PS_ASSIGNMENT(type, name, value) o.name = static_cast<type>(name);
#define PS_ARGUMENT(type, name, value) , py::arg(#name) = static_cast<Argument<type>>(value)
  const auto step_options = [](int rule PS_STEP_OPTIONS(PS_PARAMETER)) {
    PS_REQUIRE(rule >= 0 && rule < static_cast<int>(optim::rules().size()), "step: unknown rule");
    StepOptions o;
    o.rule = static_cast<optim::Rule>(rule);
    PS_STEP_OPTIONS(PS_ASSIGNMENT)
    return o;
  };
  py::class_<StepOptions>(m, "StepOptions")
      .def(py::init(step_options), py::kw_only(), py::arg("rule") PS_STEP_OPTIONS(PS_ARGUMENT));
#undef PS_PARAMETER
#undef PS_ASSIGNMENT
#undef PS_ARGUMENT
  m.def(
      "rules",
      [] {
        std::vector<std::tuple<std::string, std::string, bool>> out;
        for (const optim::RuleInfo& rule : optim::rules())
          out.emplace_back(rule.name, rule.moments, rule.compact);
        return out;
      },
      "Name, keys of the moments, and whether they can be compact; a rule's code is its place.");
  m.def("ema_warmups", [] {
    std::map<std::string, int> codes;
#define PS_CODE(name) codes[#name] = static_cast<int>(optim::EmaWarmup::name);
    PS_EMA_WARMUPS(PS_CODE)
#undef PS_CODE
    return codes;
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

void bind_optim_device(py::module_& m) {
  translate_refusals();
  m.def(
      "device_plan",
      [](const StepTable& table, const std::vector<optim::StepOptions>& options) {
        const optim::DevicePlan plan = optim::device_plan(step_tensors(table), options);
        py::array_t<std::uint8_t> bytes(static_cast<py::ssize_t>(plan.bytes.size()));
        std::copy(plan.bytes.begin(), plan.bytes.end(), bytes.mutable_data());
        return std::make_pair(bytes, std::to_array(plan.count));
      },
      py::arg("table").noconvert(), py::arg("options"));
  m.def(
      "device_ranks",
      [](Index tensors, Index plan, int device, std::uintptr_t stream) {
        optim::device_ranks(tensors, pointer<void>(plan), stream_of(device, stream));
      },
      py::kw_only(), py::arg("tensors"), py::arg("plan"), py::arg("device"), py::arg("stream"));
  m.def("device_prepared_bytes", &optim::device_prepared_bytes, py::arg("options"));
  m.def(
      "device_squares",
      [](const std::array<Index, optim::kKinds>& count, Index tensors,
         const std::vector<Index>& grads, Index grad_table, Index plan, Index blocks, Index squares,
         int device, std::uintptr_t stream) {
        const optim::DeviceBuffers buffers{.grads = pointer<const void*>(grad_table),
                                           .plan = pointer<const void>(plan),
                                           .blocks = pointer<double>(blocks),
                                           .squares = pointer<double>(squares)};
        const std::vector<const void*> addresses = pointers(grads);
        py::gil_scoped_release unlocked;
        optim::device_squares(count.data(), tensors, addresses, buffers, stream_of(device, stream));
      },
      py::kw_only(), py::arg("count"), py::arg("tensors"), py::arg("grads"), py::arg("grad_table"),
      py::arg("plan"), py::arg("blocks"), py::arg("squares"), py::arg("device"), py::arg("stream"));
  m.def(
      "device_step",
      [](const std::array<Index, optim::kKinds>& count, Index tensors,
         const std::vector<optim::StepOptions>& options, const std::vector<Index>& steps,
         const std::vector<Index>& lrs, const std::vector<Index>& grads, Index grad_table,
         Index plan, Index prepared, Index blocks, Index squares, Index statistics, Index found_inf,
         Index loss_scale, double max_grad_norm, bool squares_are_taken, int device,
         std::uintptr_t stream) {
        PS_REQUIRE(steps.size() == options.size() && lrs.size() == options.size(),
                   "device_step: a step and a learning rate for each of 'options'");
        std::vector<optim::DeviceOptions> all;
        for (std::size_t k = 0; k < options.size(); ++k)
          all.push_back(
              {options[k], pointer<std::int64_t>(steps[k]), pointer<const float>(lrs[k])});
        const optim::DeviceBuffers buffers{.grads = pointer<const void*>(grad_table),
                                           .plan = pointer<const void>(plan),
                                           .prepared = pointer<void>(prepared),
                                           .blocks = pointer<double>(blocks),
                                           .squares = pointer<double>(squares),
                                           .statistics = pointer<double>(statistics),
                                           .found_inf = pointer<const float>(found_inf),
                                           .loss_scale = pointer<const float>(loss_scale),
                                           .max_grad_norm = max_grad_norm,
                                           .squares_are_taken = squares_are_taken};
        const std::vector<const void*> addresses = pointers(grads);
        py::gil_scoped_release unlocked;
        optim::device_step(count.data(), tensors, all, addresses, buffers,
                           stream_of(device, stream));
      },
      py::kw_only(), py::arg("count"), py::arg("tensors"), py::arg("options"), py::arg("steps"),
      py::arg("lrs"), py::arg("grads"), py::arg("grad_table"), py::arg("plan"), py::arg("prepared"),
      py::arg("blocks"), py::arg("squares"), py::arg("statistics"), py::arg("found_inf"),
      py::arg("loss_scale"), py::arg("max_grad_norm"), py::arg("squares_are_taken") = false,
      py::arg("device"), py::arg("stream"));
}

}  // namespace pyspectra::bindings
