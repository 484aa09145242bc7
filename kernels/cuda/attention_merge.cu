// Splits of a lane are merged in order. Context (ContextScale) is summed apart: with S its
// log-sum-exp, all of its weights are multiplied by exp((scale - 1) S) before it joins the rest.
#include "kernels/cuda/attention_common.cuh"

namespace kvasir::cuda {
namespace {

constexpr int kWarps = 4;
constexpr int kThreads = 32 * kWarps;

// A warp a lane; the values' sums are merged a column a thread.
__global__ void __launch_bounds__(kThreads) MergeKernel(AttentionParams p) {
  LetNextBegin();
  AwaitEarlierKernels();
  const int32_t index = p.merges[blockIdx.x];
  if (index == kNoTile) return;
  const Tile tile = p.tiles[index];
  const int kv_head = static_cast<int>(blockIdx.y), d = p.geometry.head_dim;
  const float scale = p.scales[tile.sequence].scale;
  const int splits = (tile.piece_end - tile.piece_begin + kSplitPieces - 1) / kSplitPieces;
  const int warp = static_cast<int>(threadIdx.x) / 32, column = static_cast<int>(threadIdx.x) % 32;
  for (int lane = tile.lane_begin + warp; lane < tile.lane_end; lane += kWarps) {
    const Global<float> out = p.out.data + QueryOffset(p, p.out, lane, kv_head);
    for (int first = 0; first < d; first += 32) {
      const int c = first + column;
      SoftmaxState rest = EmptyState(), context = EmptyState();
      float rest_out = 0, context_out = 0;
      for (int s = 0; s < splits; ++s) {
        const int64_t at = PartialOf(p, tile, s, lane, kv_head);
        const SoftmaxState part = {p.partial_stats[2 * at], p.partial_stats[2 * at + 1]};
        const float value = c < d ? p.partial_out[at * d + c] : 0.0f;
        const bool apart =
            scale != 1.0f && p.pieces[tile.piece_begin + s * kSplitPieces].context != 0;
        SoftmaxState& total = apart ? context : rest;
        float& total_out = apart ? context_out : rest_out;
        total_out = Merged(MergeInto(total, part), total_out, value);
      }
      if (context.sum > 0.0f) {
        context.max = Fma(scale - 1.0f, context.max + Log2(context.sum), context.max);
        rest_out = Merged(MergeInto(rest, context), rest_out, context_out);
      }
      if (c < d) out[c] = rest_out * ShareOf(rest);
      if (c == 0) StoreStats(p, lane, kv_head, rest);
    }
  }
}

}  // namespace

Status MergeSplits(Stream stream, const AttentionCall& call) {
  if (call.tables.merge_count == 0) return Status::Ok();
  LaunchShape shape;
  shape.blocks_x = static_cast<unsigned>(call.tables.merge_count);
  shape.blocks_y = static_cast<unsigned>(call.pool->geometry().kv_heads);
  shape.threads = kThreads;
  return Launch(stream, shape, MergeKernel, ParamsOf(call));
}

}  // namespace kvasir::cuda
