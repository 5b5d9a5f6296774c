// What CUDA devices there are; the functions that run on one are bound beside their CPU twins.
#include "bindings/bind.hpp"
#include "core/cuda/device.hpp"

namespace pyspectra::bindings {

void bind_cuda(py::module_& m) {
  py::register_local_exception_translator([](std::exception_ptr thrown) {
    try {
      if (thrown) std::rethrow_exception(thrown);
    } catch (const CudaFailure& failure) {
      py::set_error(py::module_::import("pyspectra.errors").attr("CudaError"), failure.what());
    }
  });
  m.def("built", &cuda::built);
  m.def("available", &cuda::available);
  m.def("device_names", &cuda::device_names);
}

}  // namespace pyspectra::bindings
