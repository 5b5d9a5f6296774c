// What CUDA devices there are. device.cu is compiled where nvcc is found; otherwise no_cuda.cpp
// supplies the same functions, so that no caller needs an #ifdef.
#pragma once

#include <string>
#include <vector>

namespace pyspectra::cuda {

bool built();                             // was this package compiled with CUDA?
bool available();                         // ... and is there a usable device now?
std::vector<std::string> device_names();  // "NAME (sm_XY, Z GiB)", empty where not available

}  // namespace pyspectra::cuda
