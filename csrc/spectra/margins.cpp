#include "spectra/margins.hpp"

#include <algorithm>
#include <utility>
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

// The sums of one matrix on their way, centred where those of the matrix itself are given. Rows are
// read along their contiguous side.
class Summing {
 public:
  explicit Summing(const MatrixView& X, const Margins* plain = nullptr)
      : turned_(X.row_stride == 1 && X.col_stride != 1),
        plain_(plain),
        X_(turned_ ? MatrixView{X.data, X.dtype, X.cols, X.rows, X.col_stride, X.row_stride} : X),
        height_(std::max(kStripRows, kStripEntries / std::max(Index{1}, X_.cols))),
        quartics_(static_cast<std::size_t>(strips())),
        rows_(static_cast<std::size_t>(kinds() * X_.rows)),
        cols_(static_cast<std::size_t>(kinds() * X_.cols * strips())) {}

  // One of no rows for an empty matrix.
  Index strips() const { return std::max(Index{1}, (X_.rows + height_ - 1) / height_); }

  void add(Index s, const detail::MarginKernels& kernels) {
    const Index first = s * height_;
    double* cols = cols_.data() + kinds() * X_.cols * s;
    detail::Strip strip{first,
                        std::min(X_.rows, first + height_),
                        rows_.data() + first,
                        rows_.data() + X_.rows + first,
                        cols,
                        cols + X_.cols,
                        0.0};
    for (Index begin = 0; begin < X_.cols; begin += detail::kPiece) {
      check_interrupt();
      const Index count = std::min(detail::kPiece, X_.cols - begin);
      if (plain_ == nullptr) {
        kernels.add(X_, begin, count, strip);
      } else {
        const detail::Means means{plain_row_sums().data(), plain_col_sums().data(),
                                  rows_.data() + 2 * X_.rows + first, cols + 2 * X_.cols};
        kernels.add_centred(X_, begin, count, strip, mean(), means);
      }
    }
    quartics_[static_cast<std::size_t>(s)] = strip.quartic;
  }

  Margins finish() {
    for (Index s = 1; s < strips(); ++s)
      for (Index i = 0; i < kinds() * X_.cols; ++i)
        cols_[static_cast<std::size_t>(i)] +=
            cols_[static_cast<std::size_t>(kinds() * X_.cols * s + i)];
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
    m.row_sums.assign(rows_.begin(), rows_.begin() + X_.rows);
    m.col_sums.assign(cols_.begin(), cols_.begin() + X_.cols);
    m.of_rows.assign(rows_.begin() + X_.rows, rows_.begin() + 2 * X_.rows);
    m.of_cols.assign(cols_.begin() + X_.cols, cols_.begin() + 2 * X_.cols);
    if (turned_) {
      m.of_rows.swap(m.of_cols);
      m.row_sums.swap(m.col_sums);
    }
    for (Index k = 0; k < std::min(X_.rows, X_.cols); ++k) {
      double w = entry(X_, k, k);
      if (plain_ != nullptr) {
        const auto at = static_cast<std::size_t>(k);
        w -= plain_row_sums()[at] / static_cast<double>(X_.cols) +
             (plain_col_sums()[at] / static_cast<double>(X_.rows) - mean());
      }
      m.diagonal += w;
      m.diagonal_square += w * w;
    }
    return m;
  }

  // What centring takes from the sum of the squared eigenvalues, after `finish`.
  double reduction() const {
    const auto N = static_cast<double>(X_.rows), M = static_cast<double>(X_.cols);
    const double total = plain_->total;
    double of_rows = 0.0, of_cols = 0.0, product = 0.0, transposed = 0.0;
    for (Index k = 0; k < X_.rows; ++k) {
      const double s = plain_row_sums()[static_cast<std::size_t>(k)];
      const double y = rows_[static_cast<std::size_t>(2 * X_.rows + k)];
      of_rows += s * s;
      product += y * y;
    }
    for (Index i = 0; i < X_.cols; ++i) {
      const double t = plain_col_sums()[static_cast<std::size_t>(i)];
      const double u = cols_[static_cast<std::size_t>(2 * X_.cols + i)] - t * total / N;
      of_cols += t * t;
      transposed += u * u;
    }
    const double first = of_cols / N, second = (of_rows - total * total / N) / M;
    return 2.0 * product / N - first * first + 2.0 * transposed / M - second * second;
  }

 private:
  // Numbers for each row and each column: sums, sums of squares, and of a centred matrix a product.
  Index kinds() const { return plain_ == nullptr ? 2 : 3; }

  double mean() const {
    return plain_->total / (static_cast<double>(X_.rows) * static_cast<double>(X_.cols));
  }

  // Of the rows as they are read.
  const std::vector<double>& plain_row_sums() const {
    return turned_ ? plain_->col_sums : plain_->row_sums;
  }
  const std::vector<double>& plain_col_sums() const {
    return turned_ ? plain_->row_sums : plain_->col_sums;
  }

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
  const Margins* plain_;
  MatrixView X_;
  Index height_;
  std::vector<double> quartics_, rows_, cols_;
};

// Adds up all strips of all matrices on the threads.
void add_all(std::vector<Summing>& summing) {
  const detail::MarginKernels kernels = PS_SELECT_ISA(detail::margin_kernels);
  struct Task {
    Index matrix, strip;
  };
  std::vector<Task> tasks;
  for (std::size_t k = 0; k < summing.size(); ++k)
    for (Index s = 0; s < summing[k].strips(); ++s) tasks.push_back({static_cast<Index>(k), s});
  parallel_for(static_cast<Index>(tasks.size()), [&](Index t) {
    const Task& task = tasks[static_cast<std::size_t>(t)];
    summing[static_cast<std::size_t>(task.matrix)].add(task.strip, kernels);
  });
}

}  // namespace

void margins_batch(std::span<const MatrixView> X, std::span<Margins> out) {
  PS_REQUIRE(X.size() == out.size(), "margins_batch: one output a matrix is needed");
  std::vector<Summing> summing(X.begin(), X.end());
  add_all(summing);
  parallel_for(static_cast<Index>(X.size()), [&](Index k) {
    out[static_cast<std::size_t>(k)] = summing[static_cast<std::size_t>(k)].finish();
  });
}

void centred_margins_batch(std::span<const MatrixView> X, std::span<const Margins* const> plain,
                           std::span<CentredMargins> out) {
  PS_REQUIRE(X.size() == out.size() && X.size() == plain.size(),
             "centred_margins_batch: sums and one output a matrix are needed");
  std::vector<Summing> summing;
  for (std::size_t k = 0; k < X.size(); ++k) {
    PS_REQUIRE(plain[k] != nullptr && static_cast<Index>(plain[k]->row_sums.size()) == X[k].rows &&
                   static_cast<Index>(plain[k]->col_sums.size()) == X[k].cols,
               "centred_margins_batch: the sums are those of other matrices");
    summing.emplace_back(X[k], plain[k]);
  }
  add_all(summing);
  parallel_for(static_cast<Index>(X.size()), [&](Index k) {
    Summing& one = summing[static_cast<std::size_t>(k)];
    Margins margins = one.finish();
    out[static_cast<std::size_t>(k)] = {std::move(margins), one.reduction()};
  });
}

}  // namespace pyspectra::spectra
