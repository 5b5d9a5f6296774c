// What some of the entries of a layer tell: how heavy their tails are, how many of them are zero,
// and whether rows are orthogonal.
//
// Any element type and strides; sums are float64, the same bits for any number of threads (the
// caller's alone) and any instruction set.
#pragma once

#include <span>

#include "core/types.hpp"

namespace pyspectra::spectra {

struct EntrySample {
  double kurtosis;  // sum (w - m)^4 n / (sum (w - m)^2)^2 - 3, for the mean m of n entries
  double zeros;     // share of the entries that are zero
};

// Of rows 0, step, 2 step, ... of every matrix, all together. The kurtosis is NaN where all entries
// are equal or one is not finite. O(n), with a copy of the sample.
EntrySample entry_sample(std::span<const MatrixView> X, Index step);

// Whether the first `probed` rows are orthogonal and of one length: G = sum_k A_k A_k^T, of these
// rows A_k of each matrix, differs from a multiple of the identity, its mean diagonal, by less than
// `tolerance` of that. False for fewer than four rows. Lengths alone decide for most matrices.
bool rows_are_orthogonal(std::span<const MatrixView> X, Index probed, double tolerance);

}  // namespace pyspectra::spectra
