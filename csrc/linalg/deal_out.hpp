// Slices that lie element beside element, as those of a convolution do, each by itself.
#pragma once

#include "core/types.hpp"

namespace pyspectra::linalg {

// out[r * length + c] = in[c * count + r] for r < count, c < length: `count` slices of `length`
// elements of 2, 4 or 8 bytes. No array may overlap the other.
void deal_out(const void* in, Index length, Index count, Index item, void* out);

}  // namespace pyspectra::linalg
