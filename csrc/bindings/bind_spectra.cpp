#include "bindings/bind.hpp"
#include "spectra/margins.hpp"
#include "spectra/permute.hpp"
#include "spectra/profile_edge.hpp"
#include "spectra/sample.hpp"

namespace pyspectra::bindings {

void bind_spectra(py::module_& m) {
  m.def(
      "permute",
      [](const py::array& X, int dtype, std::uint64_t key, py::array out) {
        const MatrixView view = matrix_view(X, dtype);
        PS_REQUIRE(out.itemsize() == X.itemsize() && out.size() == X.size() &&
                       (out.flags() & py::array::c_style) != 0,
                   "permute: 'out' must be contiguous, of the size of 'X'");
        void* data = out.mutable_data();
        const Interruptibly unlocked;
        spectra::permute(view, key, data);
      },
      py::arg("X"), py::arg("dtype"), py::arg("key"), py::arg("out"));

  py::class_<spectra::Margins> sums(m, "Margins");
#define PS_READ(name) sums.def_readonly(#name, &spectra::Margins::name);
  PS_MARGINS(PS_READ)
#undef PS_READ

  m.def(
      "margins",
      [](const std::vector<py::array>& X, int dtype) {
        const auto in = matrix_views(X, dtype);
        std::vector<spectra::Margins> out(in.size());
        const Interruptibly unlocked;
        spectra::margins_batch(in, out);
        return out;
      },
      py::arg("X"), py::arg("dtype"));

  m.def(
      "centred_margins",
      [](const std::vector<py::array>& X, int dtype,
         const std::vector<const spectra::Margins*>& plain) {
        const auto in = matrix_views(X, dtype);
        std::vector<spectra::CentredMargins> found(in.size());
        {
          const Interruptibly unlocked;
          spectra::centred_margins_batch(in, plain, found);
        }
        std::vector<std::pair<spectra::Margins, double>> out;
        for (auto& one : found) out.emplace_back(std::move(one.margins), one.reduction);
        return out;
      },
      py::arg("X"), py::arg("dtype"), py::arg("plain"));

  m.def(
      "entry_sample",
      [](const std::vector<py::array>& X, int dtype, Index step) {
        const auto in = matrix_views(X, dtype);
        const Interruptibly unlocked;
        const spectra::EntrySample found = spectra::entry_sample(in, step);
        return std::pair(found.kurtosis, found.zeros);
      },
      py::arg("X"), py::arg("dtype"), py::arg("step"), "Excess kurtosis and share of zeros.");

  m.def(
      "rows_are_orthogonal",
      [](const std::vector<py::array>& X, int dtype, Index probed, double tolerance) {
        const auto in = matrix_views(X, dtype);
        const Interruptibly unlocked;
        return spectra::rows_are_orthogonal(in, probed, tolerance);
      },
      py::arg("X"), py::arg("dtype"), py::arg("probed"), py::arg("tolerance"));

  m.def(
      "profile_edge",
      [](const spectra::Margins& sums) {
        const spectra::ProfileEdge e = spectra::profile_edge(sums.of_rows, sums.of_cols);
        return std::tuple(e.edge, e.scale, e.response);
      },
      py::arg("margins"), "Of variances r_k c_i: edge, scale and response.");
}

}  // namespace pyspectra::bindings
