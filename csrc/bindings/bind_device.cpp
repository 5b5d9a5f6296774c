// Kernels on a CUDA device. Addresses are of device memory, streams are handles, both integers; a
// package without CUDA has the same functions, which throw.
#include <algorithm>

#include "bindings/step_table.hpp"
#include "core/cuda/stream.hpp"
#include "core/error.hpp"
#include "linalg/device_chase.hpp"
#include "linalg/device_eigvals.hpp"
#include "linalg/device_panel.hpp"
#include "optim/device_step.hpp"
#include "powerlaw/device_bootstrap.hpp"
#include "powerlaw/device_fit.hpp"

namespace pyspectra::bindings {
namespace {

cuda::Stream stream_of(int device, std::uintptr_t handle) {
  return {device, reinterpret_cast<void*>(handle)};
}

}  // namespace

void bind_device(py::module_& m) {
  py::register_local_exception_translator([](std::exception_ptr thrown) {
    try {
      if (thrown) std::rethrow_exception(thrown);
    } catch (const CudaFailure& failure) {
      py::set_error(py::module_::import("pyspectra.errors").attr("CudaError"), failure.what());
    }
  });
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
      "device_step",
      [](const std::array<Index, optim::kKinds>& count, Index tensors,
         const std::vector<optim::StepOptions>& options, const std::vector<Index>& steps,
         const std::vector<Index>& lrs, const std::vector<Index>& grads, Index grad_table,
         Index plan, Index prepared, Index blocks, Index squares, Index statistics, Index found_inf,
         Index loss_scale, double max_grad_norm, int device, std::uintptr_t stream) {
        PS_REQUIRE(steps.size() == options.size() && lrs.size() == options.size(),
                   "device_step: a step and a learning rate for each of 'options'");
        std::vector<optim::DeviceOptions> all;
        for (std::size_t k = 0; k < options.size(); ++k)
          all.push_back(
              {options[k], pointer<std::int64_t>(steps[k]), pointer<const float>(lrs[k])});
        std::vector<const void*> addresses;
        for (Index address : grads) addresses.push_back(pointer<const void>(address));
        const optim::DeviceBuffers buffers{.grads = pointer<const void*>(grad_table),
                                           .plan = pointer<const void>(plan),
                                           .prepared = pointer<void>(prepared),
                                           .blocks = pointer<double>(blocks),
                                           .squares = pointer<double>(squares),
                                           .statistics = pointer<double>(statistics),
                                           .found_inf = pointer<const float>(found_inf),
                                           .loss_scale = pointer<const float>(loss_scale),
                                           .max_grad_norm = max_grad_norm};
        py::gil_scoped_release unlocked;
        optim::device_step(count.data(), tensors, all, addresses, buffers,
                           stream_of(device, stream));
      },
      py::kw_only(), py::arg("count"), py::arg("tensors"), py::arg("options"), py::arg("steps"),
      py::arg("lrs"), py::arg("grads"), py::arg("grad_table"), py::arg("plan"), py::arg("prepared"),
      py::arg("blocks"), py::arg("squares"), py::arg("statistics"), py::arg("found_inf"),
      py::arg("loss_scale"), py::arg("max_grad_norm"), py::arg("device"), py::arg("stream"));

  m.attr("FIT_BYTES") = sizeof(powerlaw::Fit);
  m.def(
      "device_fit",
      [](Index count, Index longest, double threshold, double xmax, Index x, Index starts,
         Index log_x, Index tail_sum, Index D, Index best, Index fits, int device,
         std::uintptr_t stream) {
        const powerlaw::DeviceFitBuffers buffers{.x = pointer<const double>(x),
                                                 .starts = pointer<const Index>(starts),
                                                 .log_x = pointer<double>(log_x),
                                                 .tail_sum = pointer<double>(tail_sum),
                                                 .D = pointer<double>(D),
                                                 .best = pointer<unsigned long long>(best),
                                                 .fits = pointer<powerlaw::Fit>(fits)};
        py::gil_scoped_release unlocked;
        powerlaw::device_fit(count, longest, threshold, xmax, buffers, stream_of(device, stream));
      },
      py::kw_only(), py::arg("count"), py::arg("longest"), py::arg("threshold"), py::arg("xmax"),
      py::arg("x"), py::arg("starts"), py::arg("log_x"), py::arg("tail_sum"), py::arg("D"),
      py::arg("best"), py::arg("fits"), py::arg("device"), py::arg("stream"));
  m.attr("SOURCE_BYTES") = sizeof(powerlaw::DeviceSource);
  m.def(
      "device_draw",
      [](Index count, Index per, Index first, Index sources, Index x, Index starts, Index log_x,
         Index scratch, int device, std::uintptr_t stream) {
        const py::gil_scoped_release unlocked;
        powerlaw::device_draw(count, per, first, pointer<const powerlaw::DeviceSource>(sources),
                              pointer<const double>(x), pointer<const Index>(starts),
                              pointer<double>(log_x), pointer<double>(scratch),
                              stream_of(device, stream));
      },
      py::kw_only(), py::arg("count"), py::arg("per"), py::arg("first"), py::arg("sources"),
      py::arg("x"), py::arg("starts"), py::arg("log_x"), py::arg("scratch"), py::arg("device"),
      py::arg("stream"));
  m.def(
      "fits_from_bytes",
      [](const py::array_t<std::uint8_t, py::array::c_style>& bytes) {
        PS_REQUIRE(bytes.size() % static_cast<py::ssize_t>(sizeof(powerlaw::Fit)) == 0,
                   "fits_from_bytes: not a whole number of fits");
        std::vector<powerlaw::Fit> fits(static_cast<std::size_t>(bytes.size()) /
                                        sizeof(powerlaw::Fit));
        std::copy_n(bytes.data(), bytes.size(), reinterpret_cast<std::uint8_t*>(fits.data()));
        return fits;
      },
      py::arg("bytes").noconvert());
  m.def(
      "device_panel",
      [](Index A, Index count, Index n, Index start, Index band, Index V, Index T, int device,
         std::uintptr_t stream) {
        const py::gil_scoped_release unlocked;
        linalg::device_panel(pointer<double>(A), count, n, start, band, pointer<double>(V),
                             pointer<double>(T), stream_of(device, stream));
      },
      py::kw_only(), py::arg("A"), py::arg("count"), py::arg("n"), py::arg("start"),
      py::arg("band"), py::arg("V"), py::arg("T"), py::arg("device"), py::arg("stream"));
  m.def(
      "device_chase",
      [](Index a, Index count, Index n, Index band, Index progress, int device,
         std::uintptr_t stream) {
        const py::gil_scoped_release unlocked;
        linalg::device_chase(pointer<double>(a), count, n, band, pointer<int>(progress),
                             stream_of(device, stream));
      },
      py::kw_only(), py::arg("a"), py::arg("count"), py::arg("n"), py::arg("band"),
      py::arg("progress"), py::arg("device"), py::arg("stream"));
  m.def(
      "device_tridiagonalize",
      [](Index A, Index count, Index n, Index d, Index e, int device, std::uintptr_t stream) {
        const py::gil_scoped_release unlocked;
        linalg::device_tridiagonalize(pointer<double>(A), count, n, pointer<double>(d),
                                      pointer<double>(e), stream_of(device, stream));
      },
      py::kw_only(), py::arg("A"), py::arg("count"), py::arg("n"), py::arg("d"), py::arg("e"),
      py::arg("device"), py::arg("stream"));
  m.def(
      "device_tridiagonal_eigvals",
      [](Index d, Index e, Index count, Index n, Index evals, int device, std::uintptr_t stream) {
        const py::gil_scoped_release unlocked;
        linalg::device_tridiagonal_eigvals(pointer<const double>(d), pointer<const double>(e),
                                           count, n, pointer<double>(evals),
                                           stream_of(device, stream));
      },
      py::kw_only(), py::arg("d"), py::arg("e"), py::arg("count"), py::arg("n"), py::arg("evals"),
      py::arg("device"), py::arg("stream"));
}

}  // namespace pyspectra::bindings
