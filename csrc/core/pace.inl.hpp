// Looks for an interrupt about once a millisecond of work, so that the looking costs nothing.
// Included inside the anonymous namespace of a unit; includes nothing.

struct Pace {
  static constexpr long long kFlops = 1ll << 25;  // 0.3 ms with AVX-512, 3 ms on the baseline

  void (*check)();
  long long left = kFlops;

  void spend(long long flops) {
    left -= flops;
    if (left < 0) {
      left = kFlops;
      check();
    }
  }
};
