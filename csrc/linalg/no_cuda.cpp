#include "core/error.hpp"
#include "linalg/device_chase.hpp"
#include "linalg/device_eigvals.hpp"
#include "linalg/device_panel.hpp"

namespace pyspectra::linalg {

void device_chase(double*, Index, Index, Index, int*, const cuda::Stream&) {
  throw CudaFailure("eigvals: this package was built without CUDA");
}
void device_panel(double*, Index, Index, Index, Index, double*, double*, const cuda::Stream&) {
  throw CudaFailure("eigvals: this package was built without CUDA");
}

void device_tridiagonalize(double*, Index, Index, double*, double*, const cuda::Stream&) {
  throw CudaFailure("eigvals: this package was built without CUDA");
}
void device_tridiagonal_eigvals(const double*, const double*, Index, Index, double*,
                                const cuda::Stream&) {
  throw CudaFailure("eigvals: this package was built without CUDA");
}

}  // namespace pyspectra::linalg
