// Sums over the threads of a block. Included inside the anonymous namespace of a CUDA unit that has
// defined kThreads; includes nothing.

constexpr int kWarp = 32, kWarps = kThreads / kWarp;

__device__ double warp_sum(double x) {
#pragma unroll
  for (int step = kWarp / 2; step > 0; step /= 2) x += __shfl_xor_sync(0xffffffffu, x, step);
  return x;
}

// The sum over the block, in every thread. `partial`: kWarps doubles, free again after a barrier.
__device__ double block_sum(double x, double* partial) {
  x = warp_sum(x);
  __syncthreads();
  if (threadIdx.x % kWarp == 0) partial[threadIdx.x / kWarp] = x;
  __syncthreads();
  double total = 0.0;
  for (int w = 0; w < kWarps; ++w) total += partial[w];
  return total;
}
