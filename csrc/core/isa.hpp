// Instruction-set levels: what was compiled in, what the machine has, what is in use.
#pragma once

#include <string>
#include <vector>

namespace pyspectra {

// Ordered: a higher level implies the machine runs every lower one.
enum class Isa : int { baseline = 0, avx2 = 1, avx512 = 2 };

const char* isa_name(Isa isa);
Isa isa_from_name(const std::string& name);  // throws std::invalid_argument on an unknown name
std::vector<Isa> available_isas();           // compiled in and supported by this machine
Isa current_isa();                           // highest available, or PYSPECTRA_ISA, or set_isa
void set_isa(Isa isa);                       // throws std::invalid_argument where not available

// One function pointer a level; levels that were not compiled in are null.
template <typename F>
struct IsaTable {
  F baseline;
  F avx2;
  F avx512;

  F select() const {
    switch (current_isa()) {
      case Isa::avx512:
        if (avx512) return avx512;
        [[fallthrough]];
      case Isa::avx2:
        if (avx2) return avx2;
        [[fallthrough]];
      default:
        return baseline;
    }
  }
};

}  // namespace pyspectra
