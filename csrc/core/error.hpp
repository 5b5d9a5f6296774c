// Two ways to refuse. PS_REQUIRE(condition, message) throws std::invalid_argument, which pybind11
// turns into ValueError: Python code checks arguments first and names them; this is the safety net.
// CudaFailure becomes pyspectra.errors.CudaError.
#pragma once

#include <stdexcept>

#define PS_REQUIRE(condition, message)                      \
  do {                                                      \
    if (!(condition)) throw std::invalid_argument(message); \
  } while (false)

namespace pyspectra {

struct CudaFailure : std::runtime_error {
  using std::runtime_error::runtime_error;
};

}  // namespace pyspectra
