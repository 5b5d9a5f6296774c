#include <pthread.h>
#include <pybind11/typing.h>

#include <atomic>

#include "bindings/bind.hpp"
#include "core/fork.hpp"
#include "core/isa.hpp"
#include "core/parallel.hpp"

namespace pyspectra::bindings {

namespace {

void run_signal_handlers() {
  const py::gil_scoped_acquire locked;
  if (PyErr_CheckSignals() != 0) throw py::error_already_set();
}

// Python's main thread, which alone runs signal handlers; in a child, the thread that forked.
std::atomic<unsigned long> main_thread{0};

void find_main_thread() {
  const py::object main = py::module_::import("threading").attr("main_thread")();
  main_thread.store(main.attr("ident").cast<unsigned long>());
  pthread_atfork(nullptr, nullptr, [] { main_thread.store(PyThread_get_thread_ident()); });
}

}  // namespace

Interruptibly::Interruptibly()
    : interruptible_(PyThread_get_thread_ident() == main_thread.load() ? run_signal_handlers
                                                                       : nullptr) {}

void bind_core(py::module_& m) {
  find_main_thread();
  count_forks();
  m.def("num_threads", &num_threads);
  m.def("set_num_threads", &set_num_threads, py::arg("n"));
  m.def("set_alone", &set_alone, py::arg("alone"));
  m.def("is_alone", &is_alone);
  m.def("isa", [] { return std::string(isa_name(current_isa())); });
  m.def("set_isa", [](const std::string& name) { set_isa(isa_from_name(name)); }, py::arg("name"));
  m.def("available_isas", [] {
    std::vector<std::string> names;
    for (Isa isa : available_isas()) names.emplace_back(isa_name(isa));
    return names;
  });
  m.def("build_info", [] {
    py::typing::Dict<py::str, py::object> d;
    d["compiler"] = PYSPECTRA_COMPILER;
    d["version"] = PYSPECTRA_VERSION;
    return d;
  });
  m.def("status_names", [] {
    std::map<std::string, int> codes;
#define PS_CODE(name) codes[#name] = static_cast<int>(Status::name);
    PS_STATUSES(PS_CODE)
#undef PS_CODE
    return codes;
  });
}

}  // namespace pyspectra::bindings
