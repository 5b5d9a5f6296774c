// Vectors of kLanes doubles. Included inside the anonymous namespace of a unit that has defined
// `constexpr int kLanes`.

typedef double Real;
#include "core/simd_real.inl.hpp"
