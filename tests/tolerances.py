"""Every tolerance of the suite, once, with its reason. EPS is the spacing of float64 at one."""

from __future__ import annotations

EPS = 2.0**-52

# alpha - 1 = m / T: T is a sum of m non-negative logarithms, whose rounding errors (each about EPS
# times a logarithm of size up to 30) grow like a random walk; 5000 points give some 1e-13.
ALPHA_RTOL = 1e-12

# D compares two numbers of size one: the kernel's own exponential is good to a few EPS, and an
# error in alpha moves the model's curve by at most exp(-1) times its relative size.
KS_ATOL = 2e-13

# At 450 000 points the random walk above is ten times longer.
LARGE_ALPHA_RTOL = 1e-11
LARGE_KS_ATOL = 1e-11

# Two candidates whose D differ by less than this are a tie as far as float64 can tell: the order
# of summation decides. Cases are made so that the best stands out by more.
KS_TIE = 1e-12


# Rounding bound of a sum of N products in any order: N EPS/2 sum |x y|, once for each side.
def gram_bound(N: int) -> float:
    """Bound on |G - G_ref| / (|X|^T |X|), elementwise."""
    return (N + 2) * EPS


# Backward stable algorithms err by p(n) EPS |A|_2 with p a modest polynomial; ours was measured at
# 2e-14 |A|_2 at n = 1024, where this allows 6e-14. LAPACK's own tests allow 20 to 30 n EPS.
def eigvals_atol(n: int, norm: float) -> float:
    """Absolute error allowed to eigenvalues (or singular values) of a matrix of 2-norm `norm`."""
    return 8.0 * (n**0.5 + 2.0) * EPS * norm


# A Gram matrix's error of c EPS lambda_max, c up to 4, is half of that over sigma: at 1.5 / n of
# the largest, from where on it may serve, up to 1.3 n EPS. Measured 1.1 at most.
def small_end_atol(n: int, norm: float) -> float:
    """Absolute error allowed to singular values of which the small ones are taken anew."""
    return 1.5 * n * EPS * norm


# Householder's vectors: a few EPS for each of some dozen columns.
ORTHONORMAL_ATOL = 1e-13

# Pivots of Cholesky's factorisation: n EPS times a condition of some hundreds.
PIVOT_RTOL = 1e-12

# Spans of blocks after two steps with a matrix of condition 1e5 at most.
SUBSPACE_ATOL = 1e-9

# Exactly known spectra of small matrices: rounding only, a few EPS of the norm.
EXACT_FACTOR = 8.0 * EPS

# Gram route: the product adds N EPS |W|_F^2, covered for these sizes by this times lambda_max.
ESD_GRAM_RTOL = 1e-12

# The same, relative to an eigenvalue that may be a hundredth of the largest.
ESD_SMALL_RTOL = 1e-10

# An eigenvalue at 1e-12 of the largest: its singular value, 1e-6 of the largest, is good to some
# EPS of the largest, which is 1e-9 of itself; twice that for the square.
SVD_SMALL_RTOL = 2e-9

# Single formulas (norms, entropy, ranks): one or two dozen float64 operations per element.
METRIC_RTOL = 1e-12

# Sums of thousands of terms, eight side by side and then strip by strip, against exact ones.
SUM_RTOL = 1e-13

# Logarithms near zero: the error of their argument, EPS, is then all of them.
METRIC_ATOL = 1e-13

# The entropy adds e = 1e-10 to each of 16 probabilities: that far from one is a flat spectrum.
FLAT_ENTROPY_ATOL = 1e-8

# Scaling by a number that is no power of two moves every logarithm and so every rounding.
SCALE_RTOL = 1e-10

# Permuting rows changes the order of the sums in the Gram matrix.
PERMUTATION_RTOL = 1e-11

# The package powerlaw searches with a simplex: its parameters have some four digits; one of its
# likelihoods (a stretched exponential) stays 5e-3 below the maximum.
PACKAGE_PARAMETER_RTOL = 2e-4
PACKAGE_RATIO_ATOL = 1e-2

# Log-likelihoods by two ways of integrating, 200 terms of size one.
QUADRATURE_RTOL = 1e-9

# A replicate's logarithms reach the reference by way of exp and log: an EPS of the value, which is
# some ten EPS of its logarithm's distance from xmin.
REPLICATE_RTOL = 1e-10
