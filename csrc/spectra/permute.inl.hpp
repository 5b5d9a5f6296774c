// The random draws of a permutation, once for every instruction set; they are the same on each.
// Included inside the anonymous namespace of a unit that has defined kLanes, included
// philox.inl.hpp and random.inl.hpp and, on x86-64, <immintrin.h>.

// `groups` groups of draws, from group `first` on, of one stream.
static void draw(unsigned long long first, long groups, unsigned int step, unsigned int stream,
                 unsigned long long key, unsigned short* out) {
  for (long g = 0; g < groups; ++g)
    philox_draws(first + (unsigned long long)g, step, stream, key, out + g * kDrawGroup);
}
