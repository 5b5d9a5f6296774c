#include <algorithm>

#include "bindings/bind.hpp"
#include "powerlaw/bootstrap.hpp"
#include "powerlaw/device_bootstrap.hpp"
#include "powerlaw/device_fit.hpp"
#include "powerlaw/fit.hpp"

namespace pyspectra::bindings {
namespace {

using Vector = py::array_t<double, py::array::c_style>;

const std::map<std::string, powerlaw::Estimator> kEstimators = {
    {"ww", powerlaw::Estimator::ww},
    {"hill", powerlaw::Estimator::hill},
    {"csn", powerlaw::Estimator::csn},
    {"median", powerlaw::Estimator::median},
    {"fix_finger", powerlaw::Estimator::fix_finger},
};

powerlaw::FitOptions fit_options(const std::string& estimator, double threshold, double xmin,
                                 double xmax, Index k, Index min_tail, double xmin_max) {
  const auto found = kEstimators.find(estimator);
  PS_REQUIRE(found != kEstimators.end(), "FitOptions: unknown estimator " + estimator);
  PS_REQUIRE(k >= 0, "FitOptions: k must not be negative");
  PS_REQUIRE(min_tail >= 3, "FitOptions: min_tail must be at least 3");
  return {found->second, threshold, xmin, xmax, k, min_tail, xmin_max};
}

std::vector<std::span<const double>> spans(const std::vector<Vector>& spectra) {
  std::vector<std::span<const double>> views;
  for (const auto& s : spectra) {
    PS_REQUIRE(s.ndim() == 1, "spectra must be 1-D");
    views.emplace_back(s.data(), static_cast<std::size_t>(s.size()));
  }
  return views;
}

}  // namespace

void bind_powerlaw(py::module_& m) {
  using powerlaw::Fit;
  using powerlaw::FitOptions;
  using powerlaw::Replicate;

  py::class_<FitOptions>(m, "FitOptions")
      .def(py::init(&fit_options), py::kw_only(), py::arg("estimator"), py::arg("threshold"),
           py::arg("xmin"), py::arg("xmax"), py::arg("k"), py::arg("min_tail"),
           py::arg("xmin_max"));

  py::class_<Fit>(m, "Fit")
      .def_readonly("alpha", &Fit::alpha)
      .def_readonly("xmin", &Fit::xmin)
      .def_readonly("xmax", &Fit::xmax)
      .def_readonly("D", &Fit::D)
      .def_readonly("alpha_stderr", &Fit::alpha_stderr)
      .def_readonly("alpha_corrected", &Fit::alpha_corrected)
      .def_readonly("n", &Fit::n)
      .def_readonly("n_tail", &Fit::n_tail)
      .def_readonly("index", &Fit::index)
      .def_property_readonly("status", [](const Fit& f) { return static_cast<int>(f.status); });

  m.def(
      "fit",
      [](const std::vector<Vector>& spectra, const FitOptions& options) {
        const auto views = spans(spectra);
        const Interruptibly unlocked;
        return powerlaw::fit_batch(views, options);
      },
      py::arg("spectra"), py::arg("options"));

  m.def(
      "bootstrap",
      [](const std::vector<Vector>& spectra, const FitOptions& options,
         const std::vector<std::tuple<double, double, Index, Index>>& fits, Index first,
         Index count, const std::vector<std::uint64_t>& keys) {
        std::vector<Fit> found;
        for (const auto& [alpha, xmin, n, index] : fits) {
          Fit fit;
          fit.alpha = alpha;
          fit.xmin = xmin;
          fit.n = n;
          fit.index = index;
          found.push_back(fit);
        }
        const auto views = spans(spectra);
        std::vector<std::vector<Replicate>> all;
        {
          const Interruptibly unlocked;
          all = powerlaw::bootstrap(views, found, options, first, count, keys);
        }
        std::vector<py::array_t<double>> out;
        for (const auto& replicates : all) {
          py::array_t<double> table({static_cast<py::ssize_t>(replicates.size()), py::ssize_t{3}});
          auto cell = table.mutable_unchecked<2>();
          for (py::ssize_t b = 0; b < cell.shape(0); ++b) {
            cell(b, 0) = replicates[b].alpha;
            cell(b, 1) = replicates[b].D;
            cell(b, 2) = replicates[b].n_tail;
          }
          out.push_back(std::move(table));
        }
        return out;
      },
      "(alpha, D, n_tail) of `count` replicates of each fit, from the one numbered `first` on; "
      "fits "
      "as (alpha, xmin, n, index).",
      py::arg("spectra"), py::arg("options"), py::arg("fits"), py::arg("first"), py::arg("count"),
      py::arg("keys"));
}

void bind_powerlaw_device(py::module_& m) {
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
}

}  // namespace pyspectra::bindings
