// Faults on purpose, one for each kind of finding that `make sanitize` relies on. They are built
// with the flags of the extension, and called by plants.py in the way in which kernels are tested.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <cstring>
#include <limits>
#include <memory>

#include "core/parallel.hpp"
#include "core/types.hpp"

namespace py = pybind11;

namespace {

using pyspectra::Index;

// The argument comes from Python, so that the compiler cannot know what will be wrong.

double read_beyond(Index size) {
  const std::unique_ptr<double[]> values(new double[static_cast<std::size_t>(size)]());
  const volatile double* read = values.get();
  return read[size];
}

// In memory that the uninstrumented numpy has allocated.
double read_beyond_array(const py::array_t<double>& values) {
  const volatile double* read = values.data();
  return read[values.size()];
}

double read_freed(Index size) {
  const double* values = new double[static_cast<std::size_t>(size)]();
  const volatile double* read = values;
  delete[] values;
  return read[0];
}

Index overflow(Index addend) { return std::numeric_limits<Index>::max() + addend; }

void copy_nothing_from_null(std::size_t size) {
  char to = 0;
  const char* volatile from = nullptr;
  std::memcpy(&to, from, size);
}

Index cast(double value) { return static_cast<Index>(value); }

float read_misaligned(Index offset) {
  alignas(float) const char bytes[2 * sizeof(float)] = {};
  return *reinterpret_cast<const volatile float*>(bytes + offset);
}

bool load_bool(int code) {
  const auto byte = static_cast<unsigned char>(code);
  bool value;
  std::memcpy(&value, &byte, sizeof value);
  return value;
}

// Two threads of the kernels' own pool add to one number without a lock.
Index race(Index count) {
  pyspectra::set_num_threads(2);
  Index sum = 0;
  py::gil_scoped_release unlocked;
  pyspectra::parallel_for(count, [&](Index i) { sum += i; });
  return sum;
}

}  // namespace

PYBIND11_MODULE(_planted, m) {
  m.def("read_beyond", &read_beyond);
  m.def("read_beyond_array", &read_beyond_array);
  m.def("read_freed", &read_freed);
  m.def("overflow", &overflow);
  m.def("copy_nothing_from_null", &copy_nothing_from_null);
  m.def("cast", &cast);
  m.def("read_misaligned", &read_misaligned);
  m.def("load_bool", &load_bool);
  m.def("race", &race);
}
