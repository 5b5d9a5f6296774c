#include <pybind11/typing.h>

#include "bindings/bind.hpp"
#include "core/cuda/device.hpp"
#include "core/isa.hpp"
#include "core/parallel.hpp"

namespace pyspectra::bindings {

void bind_core(py::module_& m) {
  m.def("num_threads", &num_threads);
  m.def("set_num_threads", &set_num_threads, py::arg("n"));
  m.def("isa", [] { return std::string(isa_name(current_isa())); });
  m.def("set_isa", [](const std::string& name) { set_isa(isa_from_name(name)); }, py::arg("name"));
  m.def("available_isas", [] {
    std::vector<std::string> names;
    for (Isa isa : available_isas()) names.emplace_back(isa_name(isa));
    return names;
  });
  m.def("cuda_built", &cuda::built);
  m.def("build_info", [] {
    py::typing::Dict<py::str, py::object> d;
    d["compiler"] = PYSPECTRA_COMPILER;
    d["version"] = PYSPECTRA_VERSION;
    d["cuda_built"] = cuda::built();
    d["cuda_available"] = cuda::available();
    d["cuda_devices"] = cuda::device_names();
    return d;
  });
  m.def("status_names", [] {
    return std::map<std::string, int>{{"ok", static_cast<int>(Status::ok)},
                                      {"not_finite", static_cast<int>(Status::not_finite)},
                                      {"too_few_points", static_cast<int>(Status::too_few_points)},
                                      {"no_convergence", static_cast<int>(Status::no_convergence)},
                                      {"degenerate", static_cast<int>(Status::degenerate)}};
  });
}

}  // namespace pyspectra::bindings
