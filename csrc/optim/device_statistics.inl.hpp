// Statistics over the block of elements that a CUDA block has, the bits of statistics.inl.hpp:
// eight lanes within tiles of 128, then tiles, each in order. Included inside the anonymous
// namespace of a .cu file after device_elements.inl.hpp; includes nothing itself.

constexpr Index kSumLanes = 8, kTiles = kBlock / kTile;

// Sum of `value` over the block, in the CPU's order; thread 0 has it. `staged`: kBlock doubles.
__device__ double sum_block(const double* value, const Place& place, Index begin, double* staged) {
  __syncthreads();
#pragma unroll
  for (int k = 0; k < kEach; ++k) staged[place.at(k) - begin] = place.holds(k) ? value[k] : 0.0;
  __syncthreads();
  constexpr int kChains = kTiles * kSumLanes;
  double sum = 0.0;
  if (threadIdx.x < kChains) {
    const double* const chain = staged + threadIdx.x / kSumLanes * kTile + threadIdx.x % kSumLanes;
    for (int k = 0; k < kTile; k += kSumLanes) sum += chain[k];
  }
  __syncthreads();
  if (threadIdx.x < kChains) staged[threadIdx.x] = sum;
  __syncthreads();
  double total = 0.0;
  if (threadIdx.x == 0) {
    for (int tile = 0; tile < kTiles; ++tile) {
      double of_tile = 0.0;
      for (int lane = 0; lane < kSumLanes; ++lane) of_tile += staged[tile * kSumLanes + lane];
      total += of_tile;
    }
  }
  return total;
}

// The same as statistics.inl.hpp. `decaying`: bit k, weight decay applies to element k.
template <typename S>
__device__ void take_statistics(const S* g, const S* before, const S* now, const S* drive,
                                const Scalars& s, unsigned int decaying, const Place& place,
                                Index begin, StepStatistics& out) {
  __shared__ double staged[kBlock];
  __shared__ unsigned long long largest;
  __shared__ unsigned int bad, zero, lost;
  if (threadIdx.x == 0) {
    largest = 0;
    bad = zero = lost = 0;
  }
  StepStatistics total;
  double value[kEach];
#pragma unroll
  for (int k = 0; k < kEach; ++k) value[k] = (double)g[k] * (double)g[k];
  total.grad_squares = sum_block(value, place, begin, staged);
#pragma unroll
  for (int k = 0; k < kEach; ++k) value[k] = (double)before[k] * (double)before[k];
  total.param_squares = sum_block(value, place, begin, staged);
#pragma unroll
  for (int k = 0; k < kEach; ++k) {
    const double u = (double)now[k] - (double)before[k];
    value[k] = u * u;
  }
  total.update_squares = sum_block(value, place, begin, staged);
#pragma unroll
  for (int k = 0; k < kEach; ++k) value[k] = (double)g[k] * ((double)now[k] - (double)before[k]);
  total.grad_dot_update = sum_block(value, place, begin, staged);

  unsigned long long most = 0;
  unsigned int my_bad = 0, my_zero = 0, my_lost = 0;
  const auto infinity = magnitude_bits(__builtin_inf());
#pragma unroll
  for (int k = 0; k < kEach; ++k) {
    if (!place.holds(k)) continue;
    const auto bits = magnitude_bits((double)g[k]), known = bits > infinity ? 0 : bits;
    most = known > most ? known : most;
    my_bad += bits >= infinity;
    my_zero += bits == 0;
    const bool decays = (s.weight_decay != 0) & ((decaying >> k & 1) != 0) & (before[k] != 0);
    my_lost += (now[k] == before[k]) & ((drive[k] != 0) | decays);
  }
  atomicMax(&largest, most);
  atomicAdd(&bad, my_bad);
  atomicAdd(&zero, my_zero);
  atomicAdd(&lost, s.lr != 0 ? my_lost : 0);
  __syncthreads();
  if (threadIdx.x == 0) {
    __builtin_memcpy(&total.grad_max, &largest, sizeof largest);
    total.non_finite = bad;
    total.zero = zero;
    total.rounded_away = lost;
    out = total;
  }
}
