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

// Calls the getter `stem_LEVEL` of the current level, e.g. PS_SELECT_ISA(detail::kernels) calls
// detail::kernels_avx2(). Every stem has a baseline unit; x86-64 builds have the other two as well.
#if defined(PYSPECTRA_X86_UNITS)
#define PS_SELECT_ISA(stem)                                                 \
  (::pyspectra::current_isa() == ::pyspectra::Isa::avx512 ? stem##_avx512() \
   : ::pyspectra::current_isa() == ::pyspectra::Isa::avx2 ? stem##_avx2()   \
                                                          : stem##_baseline())
#else
#define PS_SELECT_ISA(stem) stem##_baseline()
#endif

}  // namespace pyspectra
