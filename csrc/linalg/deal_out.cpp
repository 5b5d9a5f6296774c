#include "linalg/deal_out.hpp"

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "core/error.hpp"
#include "core/parallel.hpp"

namespace pyspectra::linalg {
namespace {

// Elements of each slice that are written at a time, and blocks of them that a thread takes.
constexpr Index kBlock = 64, kBlocks = 16;

// Lanes I... of the eight lanes of two vectors of four.
template <int... I, typename Four>
Four pick(Four a, Four b) {
#if defined(__clang__)
  return __builtin_shufflevector(a, b, I...);
#else
  return __builtin_shuffle(a, b, decltype(a < b){I...});
#endif
}

// out[r * length + c] = in[c * count + r] for four r and four c.
template <typename T>
void deal_out_square(const T* in, Index length, Index count, T* out) {
  typedef T Four __attribute__((vector_size(4 * sizeof(T))));
  Four x[4];
  for (int c = 0; c < 4; ++c) std::memcpy(&x[c], in + c * count, sizeof(Four));
  const Four a = pick<0, 4, 1, 5>(x[0], x[2]), b = pick<0, 4, 1, 5>(x[1], x[3]);
  const Four c = pick<2, 6, 3, 7>(x[0], x[2]), d = pick<2, 6, 3, 7>(x[1], x[3]);
  const Four y[4] = {pick<0, 4, 1, 5>(a, b), pick<2, 6, 3, 7>(a, b), pick<0, 4, 1, 5>(c, d),
                     pick<2, 6, 3, 7>(c, d)};
  for (int r = 0; r < 4; ++r) std::memcpy(out + r * length, &y[r], sizeof(Four));
}

template <typename T>
void deal_out_all(const T* in, Index length, Index count, T* out) {
  constexpr Index kTask = kBlock * kBlocks;
  parallel_for((length + kTask - 1) / kTask, [&](Index task) {
    const Index end = std::min(length, (task + 1) * kTask);
    for (Index c0 = task * kTask; c0 < end; c0 += kBlock) {
      const Index c1 = std::min(end, c0 + kBlock), squares = c0 + (c1 - c0) / 4 * 4;
      Index r0 = 0;
      if constexpr (sizeof(T) <= 4)  // four doubles are no vector everywhere
        for (; r0 + 4 <= count; r0 += 4)
          for (Index c = c0; c < squares; c += 4)
            deal_out_square(in + c * count + r0, length, count, out + r0 * length + c);
      for (Index r = 0; r < count; ++r)
        for (Index c = r < r0 ? squares : c0; c < c1; ++c) out[r * length + c] = in[c * count + r];
    }
  });
}

}  // namespace

void deal_out(const void* in, Index length, Index count, Index item, void* out) {
  switch (item) {
    case 2:
      return deal_out_all(static_cast<const std::uint16_t*>(in), length, count,
                          static_cast<std::uint16_t*>(out));
    case 4:
      return deal_out_all(static_cast<const std::uint32_t*>(in), length, count,
                          static_cast<std::uint32_t*>(out));
    case 8:
      return deal_out_all(static_cast<const std::uint64_t*>(in), length, count,
                          static_cast<std::uint64_t*>(out));
    default:
      PS_REQUIRE(false, "deal_out: elements must have 2, 4 or 8 bytes");
  }
}

}  // namespace pyspectra::linalg
