// Order statistics over several arrays as if they were one, without joining or sorting them: the
// threshold of a global top-k mask.
//
// The bits of a float, negative ones inverted and the rest with the sign bit flipped, are unsigned
// integers in the order of the floats. One pass counts their upper 16 bits; the bin that holds the
// wanted position fixes these, and a second pass over the elements of that bin counts the lower 16.
// Two reads of the input, 256 KiB of counters a thread, O(elements) whatever the values.
//
// -0 counts as +0, subnormals and infinities by value; NaN has no place in an order. Counts are
// integers, so the result depends on no thread count. Inputs are only read.
#pragma once

#include <span>

#include "core/types.hpp"

namespace pyspectra::optim {

struct OrderStatistic {
  float value = 0.0f;
  Index nan_array = -1;  // first array with a NaN in it; then `value` means nothing
};

// The element at ascending position `index` (from 0) of all arrays together. Throws
// std::invalid_argument unless 0 <= index < number of elements.
OrderStatistic order_statistic(std::span<const std::span<const float>> arrays, Index index);

}  // namespace pyspectra::optim
