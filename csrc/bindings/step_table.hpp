// The table of addresses that a step comes with, as structs.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "bindings/bind.hpp"
#include "optim/step.hpp"

namespace pyspectra::bindings {

using StepTable = py::array_t<Index, py::array::c_style>;

// Columns of a row, in this order. First addresses (0 for none); the rest as in StepTensor.
inline constexpr std::array kStepColumns{"param", "grad",   "exp_avg", "exp_avg_sq", "ema",
                                         "mask",  "master", "size",    "children",   "offset",
                                         "run",   "pitch",  "key",     "dtype",      "options"};

inline std::vector<optim::StepTensor> step_tensors(const StepTable& table) {
  PS_REQUIRE(table.ndim() == 2 && table.shape(1) == static_cast<py::ssize_t>(kStepColumns.size()),
             "step: a row has " + std::to_string(static_cast<py::ssize_t>(kStepColumns.size())) +
                 " columns");
  std::vector<optim::StepTensor> out;
  out.reserve(static_cast<std::size_t>(table.shape(0)));
  for (py::ssize_t k = 0; k < table.shape(0); ++k) {
    const Index* row = table.data(k, 0);
    PS_REQUIRE(row[13] >= 0 && row[13] <= 3, "step: unknown dtype code");
    out.push_back({.param = pointer<void>(row[0]),
                   .grad = pointer<const void>(row[1]),
                   .exp_avg = pointer<void>(row[2]),
                   .exp_avg_sq = pointer<void>(row[3]),
                   .ema = pointer<void>(row[4]),
                   .mask = pointer<const std::uint8_t>(row[5]),
                   .master = pointer<void>(row[6]),
                   .size = row[7],
                   .children = row[8],
                   .offset = row[9],
                   .run = row[10],
                   .pitch = row[11],
                   .key = static_cast<std::uint64_t>(row[12]),
                   .dtype = static_cast<DType>(row[13]),
                   .options = row[14]});
  }
  return out;
}

}  // namespace pyspectra::bindings
