#include "bindings/bind.hpp"
#include "powerlaw/fit.hpp"

namespace pyspectra::bindings {

void bind_powerlaw(py::module_& m) {
  using powerlaw::Estimator;
  using powerlaw::Fit;
  using powerlaw::FitOptions;

  py::class_<Fit>(m, "Fit")
      .def_readonly("alpha", &Fit::alpha)
      .def_readonly("xmin", &Fit::xmin)
      .def_readonly("xmax", &Fit::xmax)
      .def_readonly("D", &Fit::D)
      .def_readonly("alpha_stderr", &Fit::alpha_stderr)
      .def_readonly("n", &Fit::n)
      .def_readonly("n_tail", &Fit::n_tail)
      .def_readonly("index", &Fit::index)
      .def_property_readonly("status", [](const Fit& f) { return static_cast<int>(f.status); });

  using Vector = py::array_t<double, py::array::c_style>;
  m.def(
      "fit",
      [](const std::vector<Vector>& spectra, const std::string& estimator, double threshold,
         double xmin, double xmax, Index k) {
        PS_REQUIRE(estimator == "ww" || estimator == "hill", "fit: unknown estimator " + estimator);
        FitOptions options;
        options.estimator = estimator == "ww" ? Estimator::ww : Estimator::hill;
        options.threshold = threshold;
        options.xmin = xmin;
        options.xmax = xmax;
        options.k = k;
        std::vector<std::span<const double>> views;
        for (const auto& s : spectra) {
          PS_REQUIRE(s.ndim() == 1, "fit: spectra must be 1-D");
          views.emplace_back(s.data(), static_cast<std::size_t>(s.size()));
        }
        py::gil_scoped_release unlocked;
        return powerlaw::fit_batch(views, options);
      },
      py::arg("spectra"), py::arg("estimator"), py::arg("threshold"), py::arg("xmin"),
      py::arg("xmax"), py::arg("k"));
}

}  // namespace pyspectra::bindings
