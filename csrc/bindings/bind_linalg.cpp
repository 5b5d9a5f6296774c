#include <pybind11/typing.h>

#include <cstring>
#include <optional>

#include "bindings/bind.hpp"
#include "core/fork.hpp"
#include "linalg/amx_gram.hpp"
#include "linalg/deal_out.hpp"
#include "linalg/device_chase.hpp"
#include "linalg/device_eigvals.hpp"
#include "linalg/device_panel.hpp"
#include "linalg/eigvals.hpp"
#include "linalg/float_band.hpp"
#include "linalg/gram.hpp"
#include "linalg/lapack.hpp"
#include "linalg/normal_product.hpp"
#include "linalg/sign_draws.hpp"
#include "linalg/small_end.hpp"

namespace pyspectra::bindings {
namespace {

using Array = py::array_t<double, py::array::c_style>;
using Capsules = py::typing::Dict<py::str, py::object>;
using Solved = std::pair<std::vector<Array>, std::vector<int>>;  // values and status codes

// The function pointer inside a capsule of scipy.linalg.cython_blas or cython_lapack. The capsule's
// name is the C signature; its integer arguments must be the 32-bit `int` that lapack.hpp declares.
template <typename F>
void load(F*& slot, const Capsules& capi, const char* name) {
  PS_REQUIRE(capi.contains(name), "SciPy exports no routine " + std::string(name));
  const py::object capsule = capi[name];
  const char* signature = PyCapsule_GetName(capsule.ptr());
  if (signature == nullptr) throw py::error_already_set();
  PS_REQUIRE(std::strstr(signature, "int *") != nullptr,
             "SciPy's LAPACK uses another integer type: " + std::string(signature));
  slot = reinterpret_cast<F*>(PyCapsule_GetPointer(capsule.ptr(), signature));
  if (slot == nullptr) throw py::error_already_set();
}

// What the bindings were told to take the routines from; never freed, as kernels may run at exit.
py::function*& lapack_capsules() {
  static py::function* capsules = nullptr;
  return capsules;
}

// Several threads of a kernel may ask at once: all but the first find the table filled when they
// get the interpreter lock, which is not let go of while it is being filled.
void load_lapack() {
  const py::gil_scoped_acquire locked;
  const auto capi = (*lapack_capsules())().cast<Capsules>();
  linalg::LapackSource& source = linalg::lapack_source();
  if (source.loaded.load(std::memory_order_relaxed)) return;
  linalg::LapackTable& table = linalg::lapack_table();
#define PS_LOAD(name, ...) load(table.name, capi, "d" #name);
  PS_LAPACK_ROUTINES(PS_LOAD)
#undef PS_LOAD
  watch_forks();
  source.loaded.store(true, std::memory_order_release);
}

void take_lapack_from(const py::typing::Callable<Capsules()>& capsules) {
  lapack_capsules() = new py::function(capsules);
  linalg::lapack_source().load.store(load_lapack, std::memory_order_release);
}

std::vector<double*> outputs(std::vector<Array>& arrays) {
  std::vector<double*> out;
  for (auto& a : arrays) out.push_back(a.mutable_data());
  return out;
}

// Lower triangles in column-major order go to `out[k]`, M x M with unit row stride.
void gram(const std::vector<py::array>& X, int dtype, std::vector<py::array_t<double>> out) {
  const auto in = matrix_views(X, dtype);
  PS_REQUIRE(in.size() == out.size(), "gram: one output a matrix is needed");
  std::vector<double*> data;
  for (std::size_t k = 0; k < in.size(); ++k) {
    const Index M = std::min(in[k].rows, in[k].cols);
    const auto item = static_cast<py::ssize_t>(sizeof(double));
    PS_REQUIRE(out[k].ndim() == 2 && out[k].shape(0) == M && out[k].shape(1) == M &&
                   (M < 2 || (out[k].strides(0) == item && out[k].strides(1) == M * item)),
               "gram: outputs must be (M, M) in Fortran order");
    data.push_back(out[k].mutable_data());
  }
  const Interruptibly unlocked;
  linalg::gram_batch(in, data);
}

// Contiguous arrays of one item size, (length, count) to (count, length).
void deal_out(const py::array& X, py::array out) {
  const auto contiguous = [](const py::array& a) { return (a.flags() & py::array::c_style) != 0; };
  PS_REQUIRE(X.ndim() == 2 && out.ndim() == 2 && out.shape(0) == X.shape(1) &&
                 out.shape(1) == X.shape(0) && out.itemsize() == X.itemsize() && contiguous(X) &&
                 contiguous(out),
             "deal_out: arrays must be C-contiguous, (length, count) and (count, length)");
  const void* const in = X.data();
  void* const to = out.mutable_data();
  const Index length = X.shape(0), count = X.shape(1), item = X.itemsize();
  const Interruptibly unlocked;
  linalg::deal_out(in, length, count, item, to);
}

Solved eigvals(const std::vector<py::array>& A) {
  std::vector<linalg::SymmetricView> in;
  std::vector<Array> result;
  for (const auto& a : A) {
    const MatrixView v = matrix_view(a, static_cast<int>(DType::float64));
    PS_REQUIRE(v.rows == v.cols, "eigvals: matrices must be square");
    in.push_back({static_cast<const double*>(v.data), v.rows, v.row_stride, v.col_stride});
    result.emplace_back(v.rows);
  }
  const auto out = outputs(result);
  std::vector<Status> status;
  {
    const Interruptibly unlocked;
    status = linalg::eigvals_batch(in, out);
  }
  return {result, status_codes(status)};
}

// The same for a stack of matrices (b, n, n), into one array: thousands of small ones cost no
// Python each.
std::pair<Array, std::vector<int>> eigvals_stack(const py::array& A) {
  PS_REQUIRE(A.ndim() == 3 && A.shape(1) == A.shape(2), "eigvals: a stack must be (b, n, n)");
  const Index item = static_cast<Index>(sizeof(double));
  PS_REQUIRE(A.itemsize() == item && A.strides(0) % item == 0 && A.strides(1) % item == 0 &&
                 A.strides(2) % item == 0,
             "eigvals: a stack must be float64, with whole strides");
  const Index count = A.shape(0), n = A.shape(1);
  Array result({count, n});
  double* const values = result.mutable_data();
  const double* const data = static_cast<const double*>(A.data());
  std::vector<Status> status;
  {
    const Interruptibly unlocked;
    std::vector<linalg::SymmetricView> in;
    std::vector<double*> out;
    for (Index k = 0; k < count; ++k) {
      in.push_back({data + k * (A.strides(0) / item), n, A.strides(1) / item, A.strides(2) / item});
      out.push_back(values + k * n);
    }
    status = linalg::eigvals_batch(in, out);
  }
  return {result, status_codes(status)};
}

Solved svdvals(const std::vector<py::array>& X, int dtype) {
  const auto in = matrix_views(X, dtype);
  std::vector<Array> result;
  for (const auto& x : in) result.emplace_back(std::min(x.rows, x.cols));
  const auto out = outputs(result);
  std::vector<Status> status;
  {
    const Interruptibly unlocked;
    status = linalg::svdvals_batch(in, out);
  }
  return {result, status_codes(status)};
}

// Both statistics of each draw, (draws, 2).
Array sign_draws(const Array& stack, const py::array_t<std::uint8_t, py::array::c_style>& bits,
                 Index draws, bool centred) {
  PS_REQUIRE(stack.ndim() == 3, "sign_draws: a stack must be (matrices, rows, cols)");
  PS_REQUIRE(draws >= 0, "sign_draws: there must be a number of draws");
  const linalg::MatrixStack in{stack.data(), stack.shape(0), stack.shape(1), stack.shape(2)};
  const std::span<const std::uint8_t> signs(bits.data(), static_cast<std::size_t>(bits.size()));
  std::vector<linalg::SignDraw> found(static_cast<std::size_t>(draws));
  {
    const Interruptibly unlocked;
    linalg::sign_draws(in, signs, centred, found);
  }
  Array out({draws, Index{2}});
  double* to = out.mutable_data();
  for (const auto& one : found) {
    *to++ = one.spread;
    *to++ = one.largest;
  }
  return out;
}

// Eigenvalues, the bound of their errors and a status code.
py::typing::Tuple<Array, double, int> fast_eigvals(const py::array& W, int dtype,
                                                   const Array& probes) {
  const MatrixView in = matrix_view(W, dtype);
  const Index M = std::min(in.rows, in.cols);
  PS_REQUIRE(
      M >= 2 && probes.ndim() == 2 && probes.shape(0) == M && probes.shape(1) == linalg::kProbes,
      "fast_eigvals: shapes disagree");
  Array evals(M);
  double* const out = evals.mutable_data();
  const double* const x = probes.data();
  double bound = 0.0;
  Status status;
  {
    const Interruptibly unlocked;
    status = linalg::fast_eigvals(in, x, out, &bound);
  }
  return py::make_tuple(evals, bound, static_cast<int>(status));
}

// Adds W X to `Y`, if there is an X, and, where it is asked for, returns W^T Y.
template <typename Real>
py::object normal_product(const py::array& W, int dtype,
                          const std::optional<py::array_t<Real, py::array::c_style>>& X,
                          py::array_t<Real, py::array::c_style> Y, bool transposed) {
  const MatrixView in = matrix_view(W, dtype);
  PS_REQUIRE(Y.ndim() == 2 && Y.shape(0) == in.rows &&
                 (!X || (X->ndim() == 2 && X->shape(0) == in.cols && X->shape(1) == Y.shape(1))),
             "normal_product: shapes disagree");
  const Index b = Y.shape(1);
  py::array_t<Real, py::array::c_style> Z(transposed ? std::vector<Index>{in.cols, b}
                                                     : std::vector<Index>{0, b});
  const Real* const x = X ? X->data() : nullptr;
  Real* const y = Y.mutable_data();
  Real* const z = transposed ? Z.mutable_data() : nullptr;
  {
    const Interruptibly unlocked;
    linalg::normal_product(in, x, b, y, z);
  }
  return transposed ? py::object(Z) : py::none();
}

// Of the lower triangle of a matrix as `gram` leaves it.
Array shifted_factor(const py::array_t<double, py::array::f_style>& G, double shift) {
  PS_REQUIRE(G.ndim() == 2 && G.shape(0) == G.shape(1) && G.shape(0) >= 1,
             "shifted_factor: the matrix must be square");
  const Index n = G.shape(0);
  Array L(linalg::shifted_factor_size(n));
  const double* const in = G.data();
  double* const out = L.mutable_data();
  const Interruptibly unlocked;
  linalg::shifted_factor(in, n, n, shift, out);
  return L;
}

// Of the leading rows and columns of such a matrix.
Array leading_pivots(const py::array_t<double, py::array::f_style>& G, Index order, double shift) {
  PS_REQUIRE(G.ndim() == 2 && G.shape(0) == G.shape(1) && order >= 1 && order <= G.shape(0),
             "leading_pivots: the matrix must be square and have so many rows");
  Array pivots(order);
  const double* const in = G.data();
  double* const out = pivots.mutable_data();
  const Index lda = G.shape(0);
  const Interruptibly unlocked;
  linalg::leading_pivots(in, order, lda, shift, out);
  return pivots;
}

// X in place: divided by the matrix that L factors, or `steps` steps of inverse iteration.
void apply_inverse(const Array& L, Array X) {
  PS_REQUIRE(X.ndim() == 2 && L.size() == linalg::shifted_factor_size(X.shape(0)) && X.size() > 0,
             "apply_inverse: shapes disagree");
  const Index n = X.shape(0), p = X.shape(1);
  double* const data = X.mutable_data();
  const double* const factor = L.data();
  const Interruptibly unlocked;
  linalg::apply_inverse(factor, n, data, p);
}

void inverse_steps(const Array& L, Array X, Index steps) {
  PS_REQUIRE(X.ndim() == 2 && L.size() == linalg::shifted_factor_size(X.shape(0)) && X.size() > 0,
             "inverse_steps: shapes disagree");
  const Index n = X.shape(0), p = X.shape(1);
  double* const data = X.mutable_data();
  const double* const factor = L.data();
  const Interruptibly unlocked;
  linalg::inverse_steps(factor, n, data, p, steps);
}

}  // namespace

void bind_linalg(py::module_& m) {
  m.def("take_lapack_from", &take_lapack_from, py::arg("capsules"),
        "Say what returns __pyx_capi__ of scipy.linalg.cython_blas and cython_lapack, when a "
        "kernel first needs a routine of theirs.");
  m.def("gram", &gram, py::arg("X"), py::arg("dtype"), py::arg("out").noconvert());
  m.def("deal_out", &deal_out, py::arg("X"), py::arg("out").noconvert());
  m.def("eigvals", &eigvals, py::arg("A"));
  m.def("eigvals_stack", &eigvals_stack, py::arg("A"));
  m.def("svdvals", &svdvals, py::arg("X"), py::arg("dtype"));
  m.def("sign_draws", &sign_draws, py::arg("stack").noconvert(), py::arg("bits").noconvert(),
        py::arg("draws"), py::arg("centred"));
  m.def("shifted_factor", &shifted_factor, py::arg("G").noconvert(), py::arg("shift"));
  m.def("leading_pivots", &leading_pivots, py::arg("G").noconvert(), py::arg("order"),
        py::arg("shift"));
  m.def("apply_inverse", &apply_inverse, py::arg("L").noconvert(), py::arg("X").noconvert());
  m.def("inverse_steps", &inverse_steps, py::arg("L").noconvert(), py::arg("X").noconvert(),
        py::arg("steps"));
  m.attr("fast_probes") = linalg::kProbes;
  m.def("amx_available", [] { return linalg::amx_available(); });
  m.def("fast_eigvals", &fast_eigvals, py::arg("W"), py::arg("dtype"), py::arg("probes"));
  m.def("normal_product", &normal_product<double>, py::arg("W"), py::arg("dtype"),
        py::arg("X").noconvert(), py::arg("Y").noconvert(), py::arg("transposed"));
  m.def("normal_product", &normal_product<float>, py::arg("W"), py::arg("dtype"),
        py::arg("X").noconvert(), py::arg("Y").noconvert(), py::arg("transposed"));
}

void bind_linalg_device(py::module_& m) {
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
