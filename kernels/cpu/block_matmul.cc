#include "kernels/cpu/block_matmul.h"

#include <algorithm>
#include <utility>

#include "kernels/core/thread_pool.h"
#include "kernels/cpu/matmul_ops.h"
#include "kernels/cpu/pack.h"

namespace kvasir {
namespace {

constexpr int64_t kRowBytes = 4 << 20;  // of rounded rows: more come in several rounds
constexpr int64_t kMaxPanels = 4;       // of a column
// Rows that are used again for every column should stay in the L2 cache.
constexpr int64_t kRowBlockBytes = 640 << 10;
constexpr int64_t kMaxRowBlock = 512;
// Below this a task costs less than waking a thread for it.
constexpr int64_t kMinTaskBytes = 24 << 10;
constexpr int64_t kTasksPerThread = 4;
constexpr int64_t kTiledTasksPerThread = 8;
constexpr int64_t kMinRoundTask = 16 << 10;  // inputs

// Of a thread's scratch: unpacked panels, then sums.
template <class Ops>
constexpr int64_t UnpackedBytes() {
  return Ops::kInputBlocks * kMaxPanels * Ops::kMaxUnpackedBlockBytes;
}
constexpr int64_t kSumBytes = kMaxRowBlock * kMaxPanels * kPanelOutputs * int64_t{sizeof(float)};

int64_t DivideUp(int64_t value, int64_t unit) { return (value + unit - 1) / unit; }

const PackedView& ViewOf(const PackedWeight& weight) {
  return static_cast<const CpuPackedWeight&>(weight).view();
}

}  // namespace

const Int8Ops& Int8OpsFor(Isa isa) {
  switch (isa) {
    case Isa::kAvx512:
      return kInt8Avx512;
    case Isa::kAvx2:
      return kInt8Avx2;
    case Isa::kAuto:
    case Isa::kScalar:
      break;
  }
  return kInt8Scalar;
}

const Bf16Ops* Bf16OpsFor(Isa isa) { return isa == Isa::kAvx512 ? &kBf16Avx512 : nullptr; }

// The rows at hand, rounded, and what they are multiplied with.
template <class Ops>
struct BlockMultiplier<Ops>::Product {
  std::span<const Projection> projections;
  bool accumulate;
  const Block* x;
  int64_t blocks;       // of a row
  int64_t first, rows;  // of the outputs

  float* OutAt(const Projection& projection, int64_t row, int64_t output) const {
    return projection.out.f32_row(first + row) + output;
  }
};

template <class Ops>
Result<BlockMultiplier<Ops>> BlockMultiplier<Ops>::Create(const Ops& ops, const MatMulOps& finish,
                                                          ThreadPool& threads) {
  BlockMultiplier multiplier(ops, finish, threads);
  KVASIR_ASSIGN_OR_RETURN(multiplier.rows_, AlignedMemory::Allocate(kRowBytes));
  KVASIR_ASSIGN_OR_RETURN(multiplier.hidden_, AlignedMemory::Allocate(kRowBytes));
  for (int thread = 0; thread < threads.threads(); ++thread) {
    KVASIR_ASSIGN_OR_RETURN(AlignedMemory memory,
                            AlignedMemory::Allocate(UnpackedBytes<Ops>() + kSumBytes));
    multiplier.scratch_.push_back(std::move(memory));
  }
  return multiplier;
}

template <class Ops>
bool BlockMultiplier<Ops>::Takes(const PackedWeight& weight) {
  const PackedView& view = ViewOf(weight);
  return Ops::Takes(view.kind) &&
         DivideUp(view.inputs, Ops::kBlockInputs) * int64_t{sizeof(Block)} <= kRowBytes;
}

template <class Ops>
const int64_t BlockMultiplier<Ops>::kMostNormed = kSumBytes / int64_t{sizeof(float)};

template <class Ops>
void BlockMultiplier<Ops>::MatMul(const TensorView& x, const RowNorm* norm,
                                  std::span<const Projection> projections, bool accumulate) {
  KVASIR_CHECK(x.dtype == DType::kF32 && (norm == nullptr || x.cols <= kMostNormed));
  for (const Projection& projection : projections) {
    const PackedView& view = ViewOf(*projection.weight);
    KVASIR_CHECK(projection.out.dtype == DType::kF32 && x.rows == projection.out.rows &&
                 x.cols == view.inputs && projection.out.cols == view.outputs);
  }
  const int64_t blocks = DivideUp(x.cols, Ops::kBlockInputs);
  const int64_t most = kRowBytes / (blocks * int64_t{sizeof(Block)});
  const int64_t rounds = DivideUp(x.rows, most);
  for (int64_t round = 0; round < rounds; ++round) {
    const int64_t first = round * x.rows / rounds, last = (round + 1) * x.rows / rounds;
    RoundRows(RowsOf(x, first, last - first), norm);
    MultiplyRows(
        {projections, accumulate, rows_.template As<Block>(), blocks, first, last - first});
  }
}

template <class Ops>
void BlockMultiplier<Ops>::RoundRows(const TensorView& x, const RowNorm* norm) {
  const int64_t blocks = DivideUp(x.cols, Ops::kBlockInputs);
  Block* const to = rows_.template As<Block>();
  const int64_t tasks = std::clamp<int64_t>(x.rows * x.cols / kMinRoundTask, 1,
                                            threads_->threads() * kTasksPerThread);
  const int64_t count = std::min(tasks, x.rows);
  threads_->ParallelFor(count, [&](int64_t task, int thread) {
    for (int64_t row = task * x.rows / count; row < (task + 1) * x.rows / count; ++row) {
      const float* values = x.f32_row(row);
      if (norm != nullptr) {
        norm->Apply(values, x.cols, Scratch(thread));
        values = Scratch(thread);
      }
      ops_->round(values, x.cols, to + row * blocks);
    }
  });
}

template <class Ops>
void BlockMultiplier<Ops>::MultiplyRows(const Product& product) {
  if (product.rows <= ops_->direct_rows) {
    MultiplyDirect(product);
  } else {
    MultiplyTiled(product);
  }
}

template <class Ops>
void BlockMultiplier<Ops>::ListColumns(const Product& product, int64_t panels) {
  columns_.clear();
  for (const Projection& projection : product.projections) {
    const int64_t all = ViewOf(*projection.weight).panels();
    for (int64_t panel = 0; panel < all; panel += panels) {
      columns_.push_back({&projection, panel, static_cast<int>(std::min(panels, all - panel))});
    }
  }
}

template <class Ops>
void BlockMultiplier<Ops>::MultiplyDirect(const Product& product) {
  ListColumns(product, ops_->direct_panels);
  int64_t bytes = 0;
  for (const Projection& projection : product.projections) {
    const PackedView& view = ViewOf(*projection.weight);
    bytes += view.panels() * view.panel_bytes;
  }
  const int64_t threads = threads_->threads();
  const auto columns = static_cast<int64_t>(columns_.size());
  const int64_t tasks = std::min(columns, std::clamp(bytes / kMinTaskBytes / threads * threads,
                                                     threads, threads * kTasksPerThread));
  threads_->ParallelFor(tasks, [&](int64_t task, int thread) {
    for (int64_t i = task * columns / tasks; i < (task + 1) * columns / tasks; ++i) {
      DirectColumn(product, columns_[static_cast<size_t>(i)], Scratch(thread));
    }
  });
}

template <class Ops>
void BlockMultiplier<Ops>::DirectColumn(const Product& product, const Column& column,
                                        float* scratch) const {
  const PackedView& view = ViewOf(*column.projection->weight);
  const int rows = static_cast<int>(product.rows);
  ops_->direct(view, column.panel, column.panels, product.x, product.blocks, rows, scratch);
  Finish(product, column, 0, rows, scratch, column.panels * kPanelOutputs);
}

// Rows that a task takes at once.
template <class Ops>
int64_t BlockMultiplier<Ops>::RowBlock(int64_t rows, int64_t blocks) const {
  const int64_t row_bytes = blocks * int64_t{sizeof(Block)};
  const int64_t most =
      std::clamp<int64_t>(kRowBlockBytes / row_bytes, 4 * ops_->tile_rows, kMaxRowBlock);
  return std::min(kMaxRowBlock, DivideUp(DivideUp(rows, DivideUp(rows, most)), ops_->tile_rows) *
                                    ops_->tile_rows);
}

template <class Ops>
void BlockMultiplier<Ops>::MultiplyTiled(const Product& product) {
  ListColumns(product, ops_->tile_panels);
  const int64_t row_block = RowBlock(product.rows, product.blocks);
  const int64_t row_blocks = DivideUp(product.rows, row_block);
  const auto columns = static_cast<int64_t>(columns_.size());
  const int64_t splits =
      std::min(columns, DivideUp(threads_->threads() * kTiledTasksPerThread, row_blocks));
  threads_->ParallelFor(row_blocks * splits, [&](int64_t task, int thread) {
    const int64_t row = task / splits * row_block, split = task % splits;
    for (int64_t i = split * columns / splits; i < (split + 1) * columns / splits; ++i) {
      TiledColumn(product, columns_[static_cast<size_t>(i)], row,
                  std::min(product.rows, row + row_block), Scratch(thread));
    }
  });
}

// c [rows][tile_panels * 16] = x [rows][blocks] * panels^T, unpacked into b. A tile's rows are
// announced by before(row, rows) ahead of their last products and by ready(row, rows, sums) behind.
template <class Ops>
template <class Before, class Ready>
void BlockMultiplier<Ops>::SumColumn(const PackedView& view, int64_t panel, int panels,
                                     const Block* x, int64_t blocks, int64_t rows, uint8_t* b,
                                     float* c, const Before& before, const Ready& ready) const {
  const int64_t width = ops_->tile_panels * kPanelOutputs;
  for (int64_t block = 0; block < blocks; block += Ops::kInputBlocks) {
    const int64_t count = std::min(Ops::kInputBlocks, blocks - block);
    const bool last = block + count == blocks;
    ops_->unpack(view, panel, panels, block, block + count, b);
    for (int64_t row = 0; row < rows; row += ops_->tile_rows) {
      const int tile = static_cast<int>(std::min<int64_t>(ops_->tile_rows, rows - row));
      float* const sums = c + row * width;
      if (last) before(row, tile);
      ops_->multiply(view.kind, x + row * blocks + block, blocks, tile, b, count, block > 0, sums);
      if (last) ready(row, tile, sums);
    }
  }
}

template <class Ops>
void BlockMultiplier<Ops>::TiledColumn(const Product& product, const Column& column,
                                       int64_t row_begin, int64_t row_end, float* scratch) const {
  const int64_t width = ops_->tile_panels * kPanelOutputs;
  SumColumn(
      ViewOf(*column.projection->weight), column.panel, column.panels,
      product.x + row_begin * product.blocks, product.blocks, row_end - row_begin,
      reinterpret_cast<uint8_t*>(scratch), scratch + UnpackedBytes<Ops>() / int64_t{sizeof(float)},
      [&](int64_t row, int rows) { FetchOutputs(product, column, row_begin + row, rows); },
      [&](int64_t row, int rows, const float* sums) {
        Finish(product, column, row_begin + row, rows, sums, width);
      });
}

// The multiplication hides what it takes to bring the lines here that its results go to.
template <class Ops>
void BlockMultiplier<Ops>::FetchOutputs(const Product& product, const Column& column, int64_t row,
                                        int rows) {
  const int64_t output = column.panel * kPanelOutputs;
  for (int r = 0; r < rows; ++r) {
    const float* const to = product.OutAt(*column.projection, row + r, output);
    for (int p = 0; p < column.panels; ++p) __builtin_prefetch(to + p * kPanelOutputs, 1);
  }
}

// Sums [rows][width] to their place.
template <class Ops>
void BlockMultiplier<Ops>::Finish(const Product& product, const Column& column, int64_t row,
                                  int rows, const float* sums, int64_t width) const {
  const Projection& projection = *column.projection;
  const int64_t output = column.panel * kPanelOutputs;
  const int64_t outputs =
      std::min(column.panels * int64_t{kPanelOutputs}, ViewOf(*projection.weight).outputs - output);
  finish_->finish(
      sums, width, rows, outputs, projection.bias == nullptr ? nullptr : projection.bias + output,
      product.accumulate, product.OutAt(projection, row, output), projection.out.row_stride);
}

// ---- feed-forward
// ------------------------------------------------------------------------------

// The rows at hand, rounded, and where what lies between goes.
template <class Ops>
struct BlockMultiplier<Ops>::Gated {
  const PackedView& gate;
  const PackedView& up;
  GateFunction activate;
  const Block* x;
  int64_t blocks, rows;
  Block* hidden;    // [rows][columns]
  int64_t columns;  // of kBlockInputs outputs
};

template <class Ops>
bool BlockMultiplier<Ops>::TakesTogether(int64_t rows, const FeedForwardWeights& weights) const {
  return rows > ops_->direct_rows && ops_->tile_panels * kPanelOutputs == Ops::kBlockInputs &&
         weights.gate->outputs() % Ops::kBlockInputs == 0 && Takes(*weights.gate) &&
         Takes(*weights.up) && Takes(*weights.down);
}

template <class Ops>
void BlockMultiplier<Ops>::FeedForward(const TensorView& x, const RowNorm* norm,
                                       const FeedForwardWeights& weights, GateFunction activate,
                                       bool accumulate, const TensorView& out) {
  const PackedView &gate = ViewOf(*weights.gate), &up = ViewOf(*weights.up);
  KVASIR_CHECK(x.dtype == DType::kF32 && x.cols == gate.inputs && x.cols == up.inputs);
  KVASIR_CHECK(gate.outputs == up.outputs && gate.outputs == weights.down->inputs());
  KVASIR_CHECK(out.dtype == DType::kF32 && out.rows == x.rows &&
               out.cols == weights.down->outputs());
  const int64_t blocks = DivideUp(x.cols, Ops::kBlockInputs),
                columns = gate.outputs / Ops::kBlockInputs;
  const int64_t most = kRowBytes / (std::max(blocks, columns) * int64_t{sizeof(Block)});
  const int64_t rounds = DivideUp(x.rows, most);
  auto* const hidden = hidden_.template As<Block>();
  const Projection down{weights.down, nullptr, out};
  for (int64_t round = 0; round < rounds; ++round) {
    const int64_t first = round * x.rows / rounds, rows = (round + 1) * x.rows / rounds - first;
    RoundRows(RowsOf(x, first, rows), norm);
    MultiplyGated({gate, up, activate, rows_.template As<Block>(), blocks, rows, hidden, columns});
    MultiplyRows({{&down, 1}, accumulate, hidden, columns, first, rows});
  }
}

template <class Ops>
void BlockMultiplier<Ops>::MultiplyGated(const Gated& gated) {
  const int64_t row_block = RowBlock(gated.rows, gated.blocks);
  const int64_t row_blocks = DivideUp(gated.rows, row_block);
  const int64_t splits =
      std::min(gated.columns, DivideUp(threads_->threads() * kTiledTasksPerThread, row_blocks));
  threads_->ParallelFor(row_blocks * splits, [&](int64_t task, int thread) {
    const int64_t row = task / splits * row_block, split = task % splits;
    for (int64_t column = split * gated.columns / splits;
         column < (split + 1) * gated.columns / splits; ++column) {
      GatedColumn(gated, column, row, std::min(gated.rows, row + row_block), Scratch(thread));
    }
  });
}

template <class Ops>
void BlockMultiplier<Ops>::GatedColumn(const Gated& gated, int64_t column, int64_t row_begin,
                                       int64_t row_end, float* scratch) const {
  const int64_t rows = row_end - row_begin, panel = column * ops_->tile_panels;
  auto* const b = reinterpret_cast<uint8_t*>(scratch);
  float* const gate = scratch + UnpackedBytes<Ops>() / int64_t{sizeof(float)};
  float* const up = gate + rows * Ops::kBlockInputs;
  const Block* const x = gated.x + row_begin * gated.blocks;
  const auto nothing = [](auto...) {};
  SumColumn(gated.gate, panel, ops_->tile_panels, x, gated.blocks, rows, b, gate, nothing, nothing);
  SumColumn(gated.up, panel, ops_->tile_panels, x, gated.blocks, rows, b, up, nothing, nothing);
  FinishGated(gated, column, row_begin, rows, gate, up);
}

// gate, up [rows][kBlockInputs].
template <class Ops>
void BlockMultiplier<Ops>::FinishGated(const Gated& gated, int64_t column, int64_t row,
                                       int64_t rows, float* gate, const float* up) const {
  constexpr int64_t kRows = 16;
  Block blocks[kRows];
  for (int64_t begin = 0; begin < rows; begin += kRows) {
    const int64_t count = std::min(kRows, rows - begin), at = begin * Ops::kBlockInputs;
    gated.activate(gate + at, up + at, count * Ops::kBlockInputs, gate + at);
    ops_->round(gate + at, count * Ops::kBlockInputs, blocks);
    for (int64_t i = 0; i < count; ++i) {
      gated.hidden[(row + begin + i) * gated.columns + column] = blocks[i];
    }
  }
}

template class BlockMultiplier<Int8Ops>;
template class BlockMultiplier<Bf16Ops>;

}  // namespace kvasir
