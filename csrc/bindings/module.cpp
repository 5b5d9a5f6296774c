#include "bindings/bind.hpp"

PYBIND11_MODULE(_core, m) {
  using namespace pyspectra::bindings;
  m.doc() = "Compiled kernels of pyspectra. Private: pyspectra.ops is the only caller.";
  bind_core(m);
  const auto submodule = [&m](const char* name, const char* doc, auto... bind) {
    py::module_ part = m.def_submodule(name, doc);
    (bind(part), ...);
  };
  submodule("cuda", "What CUDA devices there are.", bind_cuda);
  submodule("linalg", "Gram matrices, eigenvalues, singular values.", bind_linalg,
            bind_linalg_device);
  submodule("optim", "The fused optimizer step and what it draws.", bind_optim, bind_optim_device);
  submodule("powerlaw", "Power-law fits and their bootstrap.", bind_powerlaw, bind_powerlaw_device);
  submodule("spectra", "Sums over entries and their random permutation.", bind_spectra);
}
