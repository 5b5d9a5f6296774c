#include "bindings/bind.hpp"

PYBIND11_MODULE(_core, m) {
  m.doc() = "Compiled kernels of pyspectra. Private: pyspectra.ops is the only caller.";
  pyspectra::bindings::bind_core(m);
  pyspectra::bindings::bind_linalg(m);
  pyspectra::bindings::bind_optim(m);
  pyspectra::bindings::bind_powerlaw(m);
  pyspectra::bindings::bind_spectra(m);
  pyspectra::bindings::bind_device(m);
}
