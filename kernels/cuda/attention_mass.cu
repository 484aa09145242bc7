// Softmax weights of wanted rows, by key position. A thread owns a position and adds the rows'
// weights in their order, segment by segment, so that the sums' bits depend on nothing else. The
// scores are computed anew: a few rows ask.
#include "kernels/cuda/attention_common.cuh"

namespace kvasir::cuda {
namespace {

constexpr int kThreads = 64;

struct MassParams {
  AttentionParams attention;
  Global<const Segment> segments = nullptr;
  MassCall call;
  Global<float> mass = nullptr;
};

// The row's query in the segment's frame, [D] in shared memory.
__device__ __forceinline__ void TurnQuery(const AttentionParams& p, const Segment& segment,
                                          const MassCall& call, int row, int head) {
  const Shared<float> turned = SharedAt<float>(0);
  const int d = p.geometry.head_dim;
  const float factor =
      p.scale * (segment.context != 0 ? p.scales[call.sequence].inverse_temperature : 1.0f);
  const Global<const float> q = p.q.data + (row * p.q.stride + int64_t{head} * d);
  const int64_t distance = int64_t{p.positions[row]} - segment.base;
  SyncBlock();  // the one before has been read
  for (int pair = static_cast<int>(threadIdx.x); pair < d / 2; pair += kThreads) {
    const PairPlace place = PlaceOf(p.turns, pair);
    Vec2 x = TurnedQuery(p, q, distance, pair, head / p.group, factor);
    if (call.rounded) {
      x.x = BitsToFloat(static_cast<uint32_t>(FloatToBf16(x.x)) << 16);
      x.y = BitsToFloat(static_cast<uint32_t>(FloatToBf16(x.y)) << 16);
    }
    turned[place.first] = x.x;
    turned[place.second] = x.y;
  }
  SyncBlock();
}

__global__ void __launch_bounds__(kThreads, 16) MassKernel(MassParams m) {
  LetNextBegin();
  AwaitEarlierKernels();
  const AttentionParams& p = m.attention;
  const int head = static_cast<int>(blockIdx.y), kv_head = head / p.group;
  const int64_t heads = int64_t{p.geometry.kv_heads} * p.group;
  const int64_t first = int64_t{blockIdx.x} * kThreads, position = first + threadIdx.x;
  const int64_t at = head * m.call.stride + position;
  float sum = position < m.call.stride ? m.mass[at] : 0.0f;
  for (int row = m.call.row_begin; row < m.call.row_end; ++row) {
    const float max = p.stats[2 * (row * heads + head)];
    const float share = ShareOf({max, p.stats[2 * (row * heads + head) + 1]});
    for (int s = m.call.segment_begin; s < m.call.segment_end; ++s) {
      const Segment segment = m.segments[s];
      if (segment.base >= first + kThreads || segment.base + int64_t{segment.length} <= first ||
          segment.base > p.positions[row]) {
        continue;
      }
      TurnQuery(p, segment, m.call, row, head);
      const int64_t key = position - segment.base;
      const bool seen = key >= 0 && key < segment.length &&
                        Sees(p.positions[row], p.window, static_cast<int32_t>(position));
      if (!seen) continue;
      const int64_t block = p.block_table[segment.block + key / kBlockTokens];
      const int slot = static_cast<int>(key % kBlockTokens);
      sum += Exp2(DotKey(p, SharedAt<float>(0), block, kv_head, slot) - max) * share;
    }
  }
  if (position < m.call.stride) m.mass[at] = sum;
}

}  // namespace

Status AddMass(Stream stream, const AttentionCall& call, const MassCall& mass) {
  if (mass.row_begin == mass.row_end || mass.stride == 0) return Status::Ok();
  MassParams m;
  m.attention = ParamsOf(call);
  m.segments = call.tables.segments;
  m.call = mass;
  m.mass = mass.mass;
  LaunchShape shape;
  shape.blocks_x = static_cast<unsigned>((mass.stride + kThreads - 1) / kThreads);
  shape.blocks_y = static_cast<unsigned>(call.pool->geometry().kv_heads * call.group);
  shape.threads = kThreads;
  shape.shared_bytes = static_cast<size_t>(call.pool->geometry().head_dim) * sizeof(float);
  return Launch(stream, shape, MassKernel, m);
}

}  // namespace kvasir::cuda
