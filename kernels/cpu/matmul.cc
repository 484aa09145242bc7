#include "kernels/cpu/matmul.h"

#include <algorithm>
#include <utility>

#include "kernels/core/thread_pool.h"
#include "kernels/cpu/matmul_ops.h"
#include "kernels/cpu/pack.h"

namespace kvasir {
namespace {

// Decoded panels of one column unit: kInputBlock x 32 floats, a quarter of a 1 MiB L2 cache. A
// multiple of every unit's inputs. Sums of longer rows wait in the scratch between blocks, so that
// the order of additions stays the same.
constexpr int64_t kInputBlock = 2048;
constexpr int64_t kMaxColumns = 32;  // of a column unit: tile_panels * 16
// Rows of x that are used again for every column unit should stay in the L2 cache.
constexpr int64_t kRowBlockBytes = 384 << 10;
constexpr int64_t kMaxRowBlock = 512;
// Below this a task costs less than waking a thread for it.
constexpr int64_t kMinTaskBytes = 24 << 10;
constexpr int64_t kTasksPerThread = 4;
constexpr int64_t kLineBytes = 64;

constexpr size_t kScratchBytes =
    sizeof(float) * static_cast<size_t>((kInputBlock + kMaxRowBlock) * kMaxColumns);

int64_t DivideUp(int64_t value, int64_t unit) { return (value + unit - 1) / unit; }

// Rows in equal blocks, each a multiple of the tile's rows but the last.
int64_t RowsPerBlock(int64_t rows, int64_t inputs, int64_t tile_rows) {
  const int64_t bytes = std::max<int64_t>(1, inputs * static_cast<int64_t>(sizeof(float)));
  const int64_t most = std::clamp(kRowBlockBytes / bytes, 4 * tile_rows, kMaxRowBlock - tile_rows);
  const int64_t blocks = DivideUp(rows, most);
  return DivideUp(DivideUp(rows, blocks), tile_rows) * tile_rows;
}

const PackedView& ViewOf(const PackedWeight& weight) {
  return static_cast<const CpuPackedWeight&>(weight).view();
}

}  // namespace

const MatMulOps& MatMulOpsFor(Isa isa) {
  switch (isa) {
    case Isa::kAvx512:
      return kMatMulAvx512;
    case Isa::kAvx2:
      return kMatMulAvx2;
    case Isa::kAuto:
    case Isa::kScalar:
      break;
  }
  return kMatMulScalar;
}

struct MatrixMultiplier::Product {
  const TensorView& x;
  const PackedView& w;
  const float* bias;
  bool accumulate;
  const TensorView& out;

  const float* BiasFrom(int64_t column) const { return bias == nullptr ? nullptr : bias + column; }
};

Result<MatrixMultiplier> MatrixMultiplier::Create(const MatMulOps& ops, ThreadPool& threads) {
  MatrixMultiplier multiplier(ops, threads);
  for (int thread = 0; thread < threads.threads(); ++thread) {
    KVASIR_ASSIGN_OR_RETURN(AlignedMemory memory, AlignedMemory::Allocate(kScratchBytes));
    multiplier.scratch_.push_back(std::move(memory));
  }
  return multiplier;
}

void MatrixMultiplier::MatMul(const TensorView& x, const PackedWeight& w, const float* bias,
                              bool accumulate, const TensorView& out) const {
  const PackedView& view = ViewOf(w);
  KVASIR_CHECK(x.dtype == DType::kF32 && out.dtype == DType::kF32);
  KVASIR_CHECK(x.rows == out.rows && x.cols == view.inputs && out.cols == view.outputs);
  if (x.rows == 0) return;
  const Product product{x, view, bias, accumulate, out};
  if (x.rows <= ops_->direct_rows) {
    MultiplyDirect(product);
  } else {
    MultiplyTiled(product);
  }
}

void MatrixMultiplier::MultiplyDirect(const Product& product) const {
  const int64_t groups = DivideUp(product.w.panels(), ops_->direct_panels);
  const int64_t bytes = product.w.panels() * product.w.panel_bytes;
  const int64_t threads = threads_->threads();
  const int64_t tasks = std::min(groups, std::clamp(bytes / kMinTaskBytes / threads * threads,
                                                    threads, threads * kTasksPerThread));
  threads_->ParallelFor(tasks, [&](int64_t task, int thread) {
    const int64_t first = task * groups / tasks * ops_->direct_panels;
    const int64_t last = (task + 1) * groups / tasks * ops_->direct_panels;
    DirectPanels(product, first, std::min(last, product.w.panels()), Scratch(thread));
  });
}

void MatrixMultiplier::DirectPanels(const Product& product, int64_t first, int64_t last,
                                    float* scratch) const {
  const int rows = static_cast<int>(product.x.rows);
  for (int64_t panel = first; panel < last; panel += ops_->direct_panels) {
    const int count = static_cast<int>(std::min<int64_t>(ops_->direct_panels, last - panel));
    ops_->direct(product.w, panel, count, product.x.f32(), product.x.row_stride, rows, scratch);
    const int64_t column = panel * kPanelOutputs;
    const int64_t columns = std::min<int64_t>(count * kPanelOutputs, product.w.outputs - column);
    ops_->finish(scratch, count * kPanelOutputs, rows, columns, product.BiasFrom(column),
                 product.accumulate, product.out.f32() + column, product.out.row_stride);
  }
}

void MatrixMultiplier::MultiplyTiled(const Product& product) const {
  const int64_t rows = product.x.rows;
  const int64_t unit = ops_->tile_panels * kPanelOutputs;
  const int64_t units = DivideUp(product.w.outputs, unit);
  const int64_t row_block = RowsPerBlock(rows, product.w.inputs, ops_->tile_rows);
  const int64_t row_blocks = DivideUp(rows, row_block);
  const int64_t wanted = DivideUp(threads_->threads() * kTasksPerThread, row_blocks);
  const int64_t splits = std::min(units, wanted);
  threads_->ParallelFor(row_blocks * splits, [&](int64_t task, int thread) {
    const int64_t row = task / splits * row_block;
    const int64_t split = task % splits;
    for (int64_t i = split * units / splits; i < (split + 1) * units / splits; ++i) {
      TiledColumns(product, row, std::min(rows, row + row_block), i * unit, Scratch(thread));
    }
  });
}

void MatrixMultiplier::TiledColumns(const Product& product, int64_t row_begin, int64_t row_end,
                                    int64_t column, float* scratch) const {
  const int64_t width = ops_->tile_panels * kPanelOutputs;
  const int64_t panel = column / kPanelOutputs;
  const int panels =
      static_cast<int>(std::min<int64_t>(ops_->tile_panels, product.w.panels() - panel));
  const int64_t columns = std::min(width, product.w.outputs - column);
  float* const b = scratch;
  float* const c = scratch + kInputBlock * kMaxColumns;
  // The first rows' multiplications fetch the panels of the next unit, which lie right behind.
  const uint8_t* next = product.w.panel(panel) + panels * product.w.panel_bytes;
  const uint8_t* const next_end = next + panels * product.w.panel_bytes;
  for (int64_t k = 0; k < product.w.inputs; k += kInputBlock) {
    const int64_t k_end = std::min(k + kInputBlock, product.w.inputs);
    ops_->decode(product.w, panel, panels, k, k_end, b);
    for (int64_t row = row_begin; row < row_end; row += ops_->tile_rows) {
      const int count = static_cast<int>(std::min<int64_t>(ops_->tile_rows, row_end - row));
      ops_->multiply(product.x.f32_row(row) + k, product.x.row_stride, count, b, k_end - k, k > 0,
                     next, c + (row - row_begin) * width);
      next = next < next_end ? next + (k_end - k) * kLineBytes : next_end;
    }
  }
  ops_->finish(c, width, static_cast<int>(row_end - row_begin), columns, product.BiasFrom(column),
               product.accumulate, product.out.f32_row(row_begin) + column, product.out.row_stride);
}

void MatrixMultiplier::Embed(const PackedWeight& table, std::span<const int32_t> token_ids,
                             float scale, const TensorView& out) const {
  const PackedView& view = ViewOf(table);
  KVASIR_CHECK(out.rows == static_cast<int64_t>(token_ids.size()) && out.cols == view.inputs);
  constexpr int64_t kRowsPerTask = 16;
  threads_->ParallelFor(DivideUp(out.rows, kRowsPerTask), [&](int64_t task, int) {
    const int64_t end = std::min(out.rows, (task + 1) * kRowsPerTask);
    for (int64_t row = task * kRowsPerTask; row < end; ++row) {
      const int32_t token = token_ids[static_cast<size_t>(row)];
      KVASIR_CHECK(token >= 0 && token < view.outputs);
      float* const values = out.f32_row(row);
      DecodeOutput(view, token, values);
      if (scale == 1.0f) continue;
      for (int64_t i = 0; i < view.inputs; ++i) values[i] *= scale;
    }
  });
}

}  // namespace kvasir
