// Where a kernel runs. Python passes the device's index and the caller's stream as integers; memory
// comes in as addresses, so that the core allocates none on the device and never synchronises.
#pragma once

namespace pyspectra::cuda {

struct Stream {
  int device;
  void* handle;  // a cudaStream_t
};

}  // namespace pyspectra::cuda
