// What the bind_<domain>.cpp files share: the one place where Python arrays become views.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cstdint>
#include <vector>

#include "core/cuda/stream.hpp"
#include "core/error.hpp"
#include "core/interrupt.hpp"
#include "core/types.hpp"

namespace pyspectra::bindings {

namespace py = pybind11;

// One a submodule of _core. Those of a domain bind its CPU functions, then those for a CUDA device:
// addresses of device memory and streams come in as integers, and a package without CUDA has the
// same functions, which throw.
void bind_core(py::module_& m);
void bind_cuda(py::module_& m);
void bind_linalg(py::module_& m);
void bind_linalg_device(py::module_& m);
void bind_optim(py::module_& m);
void bind_optim_device(py::module_& m);
void bind_powerlaw(py::module_& m);
void bind_powerlaw_device(py::module_& m);
void bind_spectra(py::module_& m);

// The interpreter lock released around a kernel that may end early: in the main thread signal
// handlers run now and then, and what they raise ends the call. (Kernels that write in place are
// to come to their end: py::gil_scoped_release for them.)
class Interruptibly {
 public:
  Interruptibly();

 private:
  py::gil_scoped_release unlocked_;
  Interruptible interruptible_;
};

template <typename T>
T* pointer(Index address) {
  return reinterpret_cast<T*>(static_cast<std::uintptr_t>(address));
}

inline cuda::Stream stream_of(int device, std::uintptr_t handle) {
  return {device, reinterpret_cast<void*>(handle)};
}

// Strides in elements; ops/core.py has made sure that they are whole, that the elements are
// aligned, and that the dtype code fits.
inline MatrixView matrix_view(const py::array& a, int dtype) {
  PS_REQUIRE(a.ndim() == 2, "a matrix must be 2-D");
  PS_REQUIRE(dtype >= 0 && dtype <= 3, "unknown dtype code");
  const DType type = static_cast<DType>(dtype);
  PS_REQUIRE(a.itemsize() == item_size(type), "dtype code and item size disagree");
  PS_REQUIRE(a.strides(0) % a.itemsize() == 0 && a.strides(1) % a.itemsize() == 0,
             "strides must be multiples of the item size");
  const auto address = reinterpret_cast<std::uintptr_t>(a.data());
  PS_REQUIRE(a.size() == 0 || address % static_cast<std::uintptr_t>(a.itemsize()) == 0,
             "elements must be aligned");
  return {a.data(),
          type,
          a.shape(0),
          a.shape(1),
          a.strides(0) / a.itemsize(),
          a.strides(1) / a.itemsize()};
}

inline std::vector<MatrixView> matrix_views(const std::vector<py::array>& X, int dtype) {
  std::vector<MatrixView> out;
  for (const auto& x : X) out.push_back(matrix_view(x, dtype));
  return out;
}

inline std::vector<int> status_codes(const std::vector<Status>& status) {
  std::vector<int> codes;
  for (Status s : status) codes.push_back(static_cast<int>(s));
  return codes;
}

}  // namespace pyspectra::bindings
