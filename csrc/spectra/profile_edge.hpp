// The upper end of the spectrum of W^T W, where the entries of W are independent and of variances
// a_k b_i: the law of large matrices whose rows and columns have scales of their own.
//
// With alpha = sum_k a_k y_k / w and beta = sum_i b_i x_i / w, w^2 = z, the resolvent at z beyond
// the spectrum solves
//   1 / x_i = w (1 - b_i alpha),  1 / y_k = w (1 - a_k beta),
//   alpha H(alpha) = beta F(beta) = s,  z = s / (alpha beta),
//   H(alpha) = sum_i b_i / (1 - b_i alpha),  F(beta) = sum_k a_k / (1 - a_k beta).
// z falls along this curve from infinity to the edge, where h f = 1 for h = alpha H' / H and f =
// beta F' / F. There the density of eigenvalues is kappa sqrt(z - lambda) / pi, so that the largest
// eigenvalue is z + kappa^(-2/3) TW1. kappa = (s / z) sqrt(2 / z'') with, in terms of log s,
// z'' / z = h' / (1 + h)^3 + f' / (1 + f)^3, where h' and f' are derivatives by the logarithms.
//
// Where the variances are the squares of entries of random signs, `a` and `b` come from their sums
// over rows and columns, and two terms of the order of 1 / sqrt(N M) are left: the signs' fourth
// cumulant, -2 B^2 for B = w^2, and what B differs from the product of its margins, P = a b. In
// first order the edge moves by the part -(1 + sum B^2 / sum P^2) `response`.
//
// (Ajanki, Erdos, Krueger, "Universality for general Wigner-type matrices", PTRF 169 (2017): edges
// and the law there. Hachem, Hardy, Najim, "Large complex correlated Wishart matrices: fluctuations
// and asymptotic independence at the edges", Ann. Probab. 44 (2016).)
//
// O((N + M) steps), some hundred steps; float64; the same bits for any number of threads and any
// instruction set.
#pragma once

#include <span>

#include "core/types.hpp"

namespace pyspectra::spectra {

struct ProfileEdge {
  double edge;      // z
  double scale;     // kappa^(-2/3)
  double response;  // see above, a part of z
};

// `a` and `b` are not negative; zeros among them do not count. All zero where none is positive, not
// finite where one is not.
ProfileEdge profile_edge(std::span<const double> a, std::span<const double> b);

}  // namespace pyspectra::spectra
