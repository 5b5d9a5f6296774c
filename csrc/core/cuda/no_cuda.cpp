#include "core/cuda/device.hpp"

namespace pyspectra::cuda {

bool built() { return false; }
bool available() { return false; }
std::vector<std::string> device_names() { return {}; }

}  // namespace pyspectra::cuda
