#include "spectra/margins.hpp"

#include <algorithm>
#include <vector>

#include "core/error.hpp"
#include "core/interrupt.hpp"
#include "core/isa.hpp"
#include "core/parallel.hpp"

namespace pyspectra::spectra {
namespace {

#include "core/half.inl.hpp"
#include "core/widen.inl.hpp"

constexpr Index kStripEntries = Index{1} << 17;
// So that the sums of a strip's columns take little beside its entries.
constexpr Index kStripRows = 64;

double entry(const MatrixView& X, Index k, Index i) {
  const Index at = k * X.row_stride + i * X.col_stride;
  switch (X.dtype) {
    case DType::float16:
      return widen(static_cast<const Half*>(X.data)[at]);
    case DType::bfloat16:
      return widen(static_cast<const BFloat*>(X.data)[at]);
    case DType::float32:
      return widen(static_cast<const float*>(X.data)[at]);
    case DType::float64:
      break;
  }
  return widen(static_cast<const double*>(X.data)[at]);
}

// The sums of one matrix on their way. Rows are read along their contiguous side.
class Summing {
 public:
  explicit Summing(const MatrixView& X)
      : turned_(X.row_stride == 1 && X.col_stride != 1),
        X_(turned_ ? MatrixView{X.data, X.dtype, X.cols, X.rows, X.col_stride, X.row_stride} : X),
        height_(std::max(kStripRows, kStripEntries / std::max(Index{1}, X_.cols))),
        quartics_(static_cast<std::size_t>(strips())),
        rows_(static_cast<std::size_t>(2 * X_.rows)),
        cols_(static_cast<std::size_t>(2 * X_.cols * strips())) {}

  // One of no rows for an empty matrix.
  Index strips() const { return std::max(Index{1}, (X_.rows + height_ - 1) / height_); }

  void add(Index s, const detail::MarginKernels& kernels) {
    const Index first = s * height_;
    double* cols = cols_.data() + 2 * X_.cols * s;
    detail::Strip strip{first,
                        std::min(X_.rows, first + height_),
                        rows_.data() + first,
                        rows_.data() + X_.rows + first,
                        cols,
                        cols + X_.cols,
                        0.0};
    for (Index begin = 0; begin < X_.cols; begin += detail::kPiece) {
      check_interrupt();
      kernels.add(X_, begin, std::min(detail::kPiece, X_.cols - begin), strip);
    }
    quartics_[static_cast<std::size_t>(s)] = strip.quartic;
  }

  Margins finish() {
    for (Index s = 1; s < strips(); ++s)
      for (Index i = 0; i < 2 * X_.cols; ++i)
        cols_[static_cast<std::size_t>(i)] += cols_[static_cast<std::size_t>(2 * X_.cols * s + i)];
    const Side rows(rows_.data(), X_.rows), cols(cols_.data(), X_.cols);
    Margins m;
    m.total = rows.total;
    m.square = rows.square;
    for (double q : quartics_) m.quartic += q;
    m.cycles = rows.pairs() * cols.pairs();
    const Side &stored_rows = turned_ ? cols : rows, &stored_cols = turned_ ? rows : cols;
    m.row_squares = stored_rows.squares;
    m.col_squares = stored_cols.squares;
    m.row_totals = stored_rows.totals;
    m.col_totals = stored_cols.totals;
    m.zero_rows = stored_rows.zeros;
    m.zero_cols = stored_cols.zeros;
    m.of_rows.assign(rows_.begin() + X_.rows, rows_.end());
    m.of_cols.assign(cols_.begin() + X_.cols, cols_.begin() + 2 * X_.cols);
    if (turned_) m.of_rows.swap(m.of_cols);
    for (Index k = 0; k < std::min(X_.rows, X_.cols); ++k) {
      const double w = entry(X_, k, k);
      m.diagonal += w;
      m.diagonal_square += w * w;
    }
    return m;
  }

 private:
  // Sums over rows, or over columns.
  struct Side {
    double total = 0.0, square = 0.0, squares = 0.0, totals = 0.0, zeros = 0.0;
    double second = 0.0, fourth = 0.0;  // of shares of `square`

    Side(const double* sum, Index count) {
      const double* of_squares = sum + count;
      for (Index i = 0; i < count; ++i) {
        total += sum[i];
        totals += sum[i] * sum[i];
        square += of_squares[i];
        squares += of_squares[i] * of_squares[i];
        zeros += of_squares[i] == 0.0 ? 1.0 : 0.0;
      }
      if (!(square > 0.0)) return;
      for (Index i = 0; i < count; ++i) {
        const double share = of_squares[i] / square, second_power = share * share;
        second += second_power;
        fourth += second_power * second_power;
      }
    }

    // Over i != j of (share_i share_j)^2, times the square of the sum.
    double pairs() const { return std::max(0.0, second * second - fourth) * square * square; }
  };

  bool turned_;
  MatrixView X_;
  Index height_;
  std::vector<double> quartics_, rows_, cols_;
};

}  // namespace

void margins_batch(std::span<const MatrixView> X, std::span<Margins> out) {
  PS_REQUIRE(X.size() == out.size(), "margins_batch: one output a matrix is needed");
  const detail::MarginKernels kernels = PS_SELECT_ISA(detail::margin_kernels);
  std::vector<Summing> summing(X.begin(), X.end());
  struct Task {
    Index matrix, strip;
  };
  std::vector<Task> tasks;
  for (std::size_t k = 0; k < X.size(); ++k)
    for (Index s = 0; s < summing[k].strips(); ++s) tasks.push_back({static_cast<Index>(k), s});
  parallel_for(static_cast<Index>(tasks.size()), [&](Index t) {
    const Task& task = tasks[static_cast<std::size_t>(t)];
    summing[static_cast<std::size_t>(task.matrix)].add(task.strip, kernels);
  });
  parallel_for(static_cast<Index>(X.size()), [&](Index k) {
    out[static_cast<std::size_t>(k)] = summing[static_cast<std::size_t>(k)].finish();
  });
}

}  // namespace pyspectra::spectra
