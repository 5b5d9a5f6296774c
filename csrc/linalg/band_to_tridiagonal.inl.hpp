// Second stage of the tridiagonal reduction: bulges are chased down the band. Included after
// full_to_band.inl.hpp.
//
// A column of the band is two vectors, 2 kBand consecutive rows. Sweep s works on the blocks of
// kBand columns that start at s + 1, s + 1 + kBand, ..., and finds each column with its rows
// starting where its block starts: all loads and stores are whole, aligned vectors. It leaves them
// shifted by one row, as sweep s + 1 wants them. So blocks on the diagonal are whole, and a product
// with one needs no sums over lanes: entries above the diagonal stand there, too, but for the last
// column of a block, which has zeros above its diagonal until find_products fills it from the last
// row.
static inline Real* column_at(Real* band, Index j) { return band + j * kColumn; }

// Rows 1, 2, ..., kLanes of the 2 * kLanes rows in a and b.
template <int... L>
static inline vd shifted(vd a, vd b, LaneList<L...>) {
  return pick<(L + 1)...>(a, b);
}
static inline vd shifted(vd a, vd b) { return shifted(a, b, AllLanes{}); }

// v from a column x whose first entry is alpha = x[0]; x becomes (beta, 0, ...).
static inline vd column_reflector(vd& x, Real& tau) {
  const vi first = lane_numbers() == vi{};
  const vd tail = only(~first, x);
  const Reflector h = reflector(x[0], sum_all(tail * tail)[0], kDropped);
  tau = (Real)h.tau;
  x = only(first, splat((Real)h.beta));
  return tail * splat((Real)h.inverse) + only(first, splat(1));
}

// One sweep on its way down: the reflector that its present block is to get, and the one after.
struct Sweep {
  alignas(64) Real v[kBand], next_v[kBand], y[kBand], w[kBand], z[kBand];
  Real tau, next_tau, next_beta;
  Index column;  // of the present block's first
};

static inline void start(Sweep& sweep, Real* band, Index column) {
  Real* const x = column_at(band, column) + kBand;
  vd top = load(x);
  store(sweep.v, column_reflector(top, sweep.tau));
  store(x, top);
  sweep.column = column + 1;
}

// I - tau v v^T from the right fills B, the block below the present one: y = -tau B v, B += y v^T.
// The reflector that takes the first column of B back to one entry is the next one. This is the
// chain of latencies that a sweep consists of.
static inline void find_next(Sweep& sweep, const Real* block) {
  vd s = vd{}, t = vd{};
#pragma GCC unroll 16
  for (int c = 0; c < kBand; c += 2) {
    s += load(block + c * kColumn + kBand) * splat(sweep.v[c]);
    t += load(block + (c + 1) * kColumn + kBand) * splat(sweep.v[c + 1]);
  }
  const vd y = (s + t) * splat(-sweep.tau);
  store(sweep.y, y);
  vd x = load(block + kBand) + y;
  store(sweep.next_v, column_reflector(x, sweep.next_tau));
  sweep.next_beta = x[0];
}

// w = tau (D v - tau/2 (v^T D v) v) for the block D: D -= v w^T + w v^T; z = tau' B^T v' for the
// block below and the next reflector: B -= v' z^T. A function of its own: inlined, GCC's SSE2 code
// takes 1.3 times as long.
__attribute__((noinline)) static void find_products(Sweep& sweep, Real* block) {
  const Real* const v = sweep.v;
  const vd u = load(v), next = load(sweep.next_v), y = load(sweep.y);
  Real* const last = block + (kBand - 1) * kColumn;
  vd column = vd{}, below[kBand], w0 = vd{}, w1 = vd{};
#pragma GCC unroll 16
  for (int c = 0; c + 1 < kBand; ++c) column[c] = block[c * kColumn + kBand - 1];
  column += load(last);
  store(last, column);
#pragma GCC unroll 16
  for (int c = 0; c < kBand; c += 2) {
    w0 += load(block + c * kColumn) * splat(v[c]);
    w1 += (c + 2 < kBand ? load(block + (c + 1) * kColumn) : column) * splat(v[c + 1]);
  }
  const vd w = (w0 + w1) * splat(sweep.tau);
  store(sweep.w, w - sum_all(w * u) * splat((Real)0.5 * sweep.tau) * u);
#pragma GCC unroll 16
  for (int c = 0; c < kBand; ++c)
    below[c] = (load(block + c * kColumn + kBand) + y * splat(v[c])) * next;
  sum_each(below);
  store(sweep.z, below[0] * splat(sweep.next_tau));
}

// The updates themselves, and the shift to where the next sweep wants the rows.
static inline void apply(Sweep& sweep, Real* block) {
  const Real* const v = sweep.v;
  const vd u = load(v), w = load(sweep.w), next = load(sweep.next_v), y = load(sweep.y);
#pragma GCC unroll 16
  for (int c = 0; c < kBand; ++c) {
    Real* const column = block + c * kColumn;
    const vd d = (load(column) - u * splat(sweep.w[c])) - w * splat(v[c]);
    vd b = (load(column + kBand) + y * splat(v[c])) - next * splat(sweep.z[c]);
    if (c == 0) {  // the last column of a block next time
      b = only(lane_numbers() == vi{}, splat(sweep.next_beta));
      store(column, shifted(vd{}, d));
      store(column + kBand, shifted(d, b));
    } else {
      store(column, shifted(d, b));
      store(column + kBand, shifted(b, vd{}));
    }
  }
  store(sweep.v, next);
  sweep.tau = sweep.next_tau;
  sweep.column += kBand;
}

// Sweeps that nobody goes before or after.
struct Alone {
  Index await(Index wanted) const { return wanted; }
  void publish(Index) const {}
};

// One sweep a column, those of the columns [first, last). Sweep s + 1 may do its block k once sweep
// s has done its block k + 1, so up to kSweeps of them go down together, two blocks apart. Each
// part of a step is done for all of them before the next part: a sweep alone would wait for its own
// latencies most of the time. `follow` says how many columns the sweeps before `first` have done.
constexpr int kSweeps = 16;

template <typename Follow>
static void chase_sweeps(Real* band, Index n, Index first, Index last, const Follow& follow,
                         Pace& pace) {
  Sweep sweeps[kSweeps];
  Index begin = first, end = first;  // the sweeps under way
  int lead = 2;                      // blocks that the last of them is ahead of one that starts now
  Index open = 0;                    // columns that the sweeps before have done
  while (begin < last) {
    pace.spend(16 * kTile * (end - begin));
    if (begin == first) {
      const Index column = end == first ? first + 1 : sweeps[first % kSweeps].column;
      if (open < column + 2 * kBand - 1) open = follow.await(column + 2 * kBand - 1);
    }
    if (lead >= 2 && end - begin < kSweeps && end < last) {
      start(sweeps[end % kSweeps], band, end);
      ++end;
      lead = 0;
    }
    for (Index q = begin; q < end; ++q)
      find_next(sweeps[q % kSweeps], column_at(band, sweeps[q % kSweeps].column));
    for (Index q = begin; q < end; ++q)
      find_products(sweeps[q % kSweeps], column_at(band, sweeps[q % kSweeps].column));
    for (Index q = begin; q < end; ++q)
      apply(sweeps[q % kSweeps], column_at(band, sweeps[q % kSweeps].column));
    ++lead;
    if (begin < end && sweeps[begin % kSweeps].column >= n) ++begin;
    if (end == last && begin < last) follow.publish(sweeps[(last - 1) % kSweeps].column);
  }
}

static void chase_band(Real* band, Index n, Pace& pace) {
  chase_sweeps(band, n, 0, n - 1, Alone{}, pace);
}
