// Attention in fp32 on pools of any type: the naive rung, exact to rounding, for gates and tests
// and for head dimensions that the matrix units do not take. A warp a lane of the tile at a time;
// keys are two a thread, values' columns D / 32 a thread.
#include "kernels/cuda/attention_common.cuh"

namespace kvasir::cuda {
namespace {

constexpr int kWarps = 4;
constexpr int kThreads = 32 * kWarps;

// A warp's shared memory: the query, the values' sums of a split and of all, a piece's weights.
struct WarpMemory {
  Shared<float> q, part, total, weights;
  __device__ __forceinline__ WarpMemory(int warp, int d) {
    const Shared<float> begin = SharedAt<float>(0) + warp * Floats(d);
    weights = begin;
    q = begin + kPieceKeys;
    part = q + d;
    total = part + d;
  }
  // Whole 16-byte pieces.
  static constexpr int Floats(int d) { return (kPieceKeys + 3 * d + 3) / 4 * 4; }
};

struct LaneWork {
  const AttentionParams& p;
  const Tile& tile;
  WarpMemory memory;
  int lane, kv_head, thread;
  int32_t position;
  SoftmaxState part = EmptyState(), total = EmptyState();

  __device__ __forceinline__ int d() const { return p.geometry.head_dim; }

  __device__ __forceinline__ void TurnQuery(const Piece& piece) {
    const float factor =
        p.scale * (piece.context != 0 ? p.scales[tile.sequence].inverse_temperature : 1.0f);
    const Global<const float> q = p.q.data + QueryOffset(p, p.q, lane, kv_head);
    SyncWarp();  // the query before has been read
    for (int pair = thread; pair < d() / 2; pair += 32) {
      const PairPlace place = PlaceOf(p.turns, pair);
      const Vec2 x = TurnedQuery(p, q, int64_t{position} - piece.base, pair, kv_head, factor);
      memory.q[place.first] = x.x;
      memory.q[place.second] = x.y;
    }
    SyncWarp();
  }

  __device__ __forceinline__ float Score(const Piece& piece, int key) const {
    const bool seen =
        key < piece.keys && Sees(position, p.window, piece.base + piece.first_key + key);
    if (!seen) return -Infinity();
    const int64_t block = p.block_table[piece.block + key / kBlockTokens];
    return DotKey(p, memory.q, block, kv_head, key % kBlockTokens);
  }

  // A key's weight times the scale of its value, where values have one. What nobody sees may be
  // NaN.
  __device__ __forceinline__ float Scaled(const Piece& piece, int key, float weight) const {
    if (p.geometry.form != KvForm::kI8 || weight == 0.0f) return weight;
    const KvGeometry& g = p.geometry;
    const int64_t block = p.block_table[piece.block + key / kBlockTokens];
    return weight *
           p.layer.scales[ScaleIndex(g, block, kv_head, g.key_scales(), key % kBlockTokens)];
  }

  // sum plus the weighted values of column c, key after key.
  __device__ __forceinline__ float AddValues(const Piece& piece, int c, float sum) const {
    for (int key = 0; key < piece.keys; key += 4) {
      const int64_t block = p.block_table[piece.block + key / kBlockTokens];
      const Vec4 four = LoadShared<Vec4>(memory.weights + key);
      const float weights[4] = {four.x, four.y, four.z, four.w};
      for (int i = 0; i < 4; ++i) {
        // What nobody sees may be NaN.
        if (weights[i] == 0.0f) continue;
        const int slot = (key + i) % kBlockTokens;
        const int64_t at = ValueIndex(p.geometry, block, true, kv_head, slot, c);
        sum = Fma(weights[i], LoadValue(p.layer, p.geometry, at), sum);
      }
    }
    return sum;
  }

  __device__ __forceinline__ void AddPiece(const Piece& piece) {
    const float scores[2] = {Score(piece, thread), Score(piece, thread + 32)};
    float max = ReduceWarp(Max(scores[0], scores[1]), [](float a, float b) { return Max(a, b); });
    max = Max(max, part.max);
    if (max == -Infinity()) return;  // the same for the whole warp
    const float keep = Exp2(part.max - max);
    const float weights[2] = {Exp2(scores[0] - max), Exp2(scores[1] - max)};
    part = {max, Fma(part.sum, keep, WarpSum(weights[0] + weights[1]))};
    SyncWarp();  // the weights before have been read
    memory.weights[thread] = Scaled(piece, thread, weights[0]);
    memory.weights[thread + 32] = Scaled(piece, thread + 32, weights[1]);
    SyncWarp();
    for (int c = thread; c < d(); c += 32) {
      memory.part[c] = AddValues(piece, c, memory.part[c] * keep);
    }
  }

  __device__ __forceinline__ void Clear() {
    for (int c = thread; c < d(); c += 32) {
      memory.part[c] = 0.0f;
      memory.total[c] = 0.0f;
    }
  }

  __device__ __forceinline__ void MergePart() {
    const MergeFactors f = MergeInto(total, part);
    for (int c = thread; c < d(); c += 32) {
      memory.total[c] = Merged(f, memory.total[c], memory.part[c]);
      memory.part[c] = 0.0f;
    }
    part = EmptyState();
  }

  __device__ __forceinline__ void StorePart(int split) {
    const int64_t at = PartialOf(p, tile, split, lane, kv_head);
    for (int c = thread; c < d(); c += 32) p.partial_out[at * d() + c] = memory.part[c];
    if (thread != 0) return;
    p.partial_stats[2 * at] = part.max;
    p.partial_stats[2 * at + 1] = part.sum;
  }

  __device__ __forceinline__ void Finish() {
    const Global<float> out = p.out.data + QueryOffset(p, p.out, lane, kv_head);
    const float share = ShareOf(total);
    for (int c = thread; c < d(); c += 32) out[c] = memory.total[c] * share;
    if (thread == 0) StoreStats(p, lane, kv_head, total);
  }

  __device__ __forceinline__ void Run(const Unit& unit) {
    Clear();
    const PieceRange range = RangeOf(tile, unit);
    int32_t base = 0, context = -1;
    for (int i = range.begin; i < range.end; ++i) {
      if (i != range.begin && (i - tile.piece_begin) % kSplitPieces == 0) MergePart();
      const Piece piece = p.pieces[i];
      if (piece.keys == 0 || int64_t{piece.base} + piece.first_key > position) continue;
      if (context != piece.context || base != piece.base) TurnQuery(piece);
      base = piece.base;
      context = piece.context;
      AddPiece(piece);
    }
    if (unit.split >= 0) return StorePart(unit.split);
    MergePart();
    Finish();
  }
};

__global__ void __launch_bounds__(kThreads, 4) Fp32Kernel(AttentionParams p) {
  LetNextBegin();
  AwaitEarlierKernels();
  const Unit unit = p.units[blockIdx.x];
  if (unit.tile == kNoTile) return;
  const Tile tile = p.tiles[unit.tile];
  const int warp = static_cast<int>(threadIdx.x) / 32;
  for (int lane = tile.lane_begin + warp; lane < tile.lane_end; lane += kWarps) {
    LaneWork work = {p,
                     tile,
                     WarpMemory(warp, p.geometry.head_dim),
                     lane,
                     static_cast<int>(blockIdx.y),
                     static_cast<int>(threadIdx.x) % 32,
                     p.positions[lane / p.group]};
    work.Run(unit);
  }
}

Status LaunchUnits(Stream stream, const AttentionCall& call, const Unit* units, int32_t count) {
  if (count == 0) return Status::Ok();
  AttentionParams p = ParamsOf(call);
  p.units = units;
  LaunchShape shape;
  shape.blocks_x = static_cast<unsigned>(count);
  shape.blocks_y = static_cast<unsigned>(p.geometry.kv_heads);
  shape.threads = kThreads;
  shape.shared_bytes =
      sizeof(float) * static_cast<size_t>(kWarps * WarpMemory::Floats(p.geometry.head_dim));
  return Launch(stream, shape, Fp32Kernel, p);
}

}  // namespace

Status AttentionInFp32(Stream stream, const AttentionCall& call) {
  const DeviceTables& t = call.tables;
  KVASIR_RETURN_IF_ERROR(LaunchUnits(stream, call, t.large, t.large_count));
  return LaunchUnits(stream, call, t.small, t.small_count);
}

}  // namespace kvasir::cuda
