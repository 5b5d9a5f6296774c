#include "core/isa.hpp"

#include <atomic>
#include <cstdlib>
#include <stdexcept>

namespace pyspectra {
namespace {

bool machine_has(Isa isa) {
#if defined(PYSPECTRA_X86_UNITS)
  __builtin_cpu_init();
  switch (isa) {
    case Isa::baseline:
      return true;
    case Isa::avx2:
      return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    case Isa::avx512:
      return machine_has(Isa::avx2) && __builtin_cpu_supports("avx512f") &&
             __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
             __builtin_cpu_supports("avx512bw");
  }
  return false;
#else
  return isa == Isa::baseline;
#endif
}

Isa checked(Isa isa) {
  if (!machine_has(isa))
    throw std::invalid_argument(std::string("this machine or build has no '") + isa_name(isa) +
                                "'");
  return isa;
}

Isa initial_isa() {
  const char* forced = std::getenv("PYSPECTRA_ISA");
  if (forced != nullptr && *forced != '\0') {
    try {
      return checked(isa_from_name(forced));
    } catch (const std::invalid_argument& error) {
      throw std::invalid_argument(std::string("PYSPECTRA_ISA: ") + error.what());
    }
  }
  return available_isas().back();
}

std::atomic<int>& current() {
  static std::atomic<int> value{static_cast<int>(initial_isa())};
  return value;
}

}  // namespace

const char* isa_name(Isa isa) {
  switch (isa) {
    case Isa::avx2:
      return "avx2";
    case Isa::avx512:
      return "avx512";
    default:
      return "baseline";
  }
}

Isa isa_from_name(const std::string& name) {
  for (Isa isa : {Isa::baseline, Isa::avx2, Isa::avx512})
    if (name == isa_name(isa)) return isa;
  throw std::invalid_argument("instruction set must be one of 'baseline', 'avx2', 'avx512', got '" +
                              name + "'");
}

std::vector<Isa> available_isas() {
  std::vector<Isa> out;
  for (Isa isa : {Isa::baseline, Isa::avx2, Isa::avx512})
    if (machine_has(isa)) out.push_back(isa);
  return out;
}

Isa current_isa() { return static_cast<Isa>(current().load(std::memory_order_relaxed)); }

void set_isa(Isa isa) {
  current().store(static_cast<int>(checked(isa)), std::memory_order_relaxed);
}

}  // namespace pyspectra
