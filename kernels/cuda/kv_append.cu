#include "kernels/cuda/kv_append.cuh"
#include "kernels/cuda/kv_int8.cuh"
#include "kernels/cuda/kv_runs.cuh"
#include "kernels/cuda/rows.cuh"

namespace kvasir::cuda {
namespace {

constexpr int kThreads = 128;

struct AppendParams {
  Matrix k, v;
  LayerValues layer;
  KvGeometry geometry;
  Global<const int32_t> slots = nullptr, positions = nullptr;
  Turns turns;
};

// A block a row, a thread kPairs pairs of values of K and of V.
template <int kPairs>
__global__ void __launch_bounds__(kThreads) AppendKernel(AppendParams p) {
  LetNextBegin();
  AwaitEarlierKernels();
  const KvGeometry& g = p.geometry;
  const int64_t row = blockIdx.x;
  const int32_t slot = p.slots[row];
  if (slot == kNoSlot) return;
  const int64_t block = slot / kBlockTokens;
  const int in_block = slot % kBlockTokens, runs = g.head_dim / 2 / kPairs;
  for (int i = static_cast<int>(threadIdx.x); i < g.kv_heads * runs; i += kThreads) {
    const int head = i / runs, pair = i % runs * kPairs;
    const RunPlace place = RunPlaceOf<kPairs>(p.turns, pair);
    const Global<const float> k = p.k.data + (row * p.k.stride + int64_t{head} * g.head_dim);
    const Global<const float> v = p.v.data + (row * p.v.stride + int64_t{head} * g.head_dim);
    const auto put = [&](bool value, int d, const float(&x)[kPairs]) {
      StoreRun(p.layer, g, ValueIndex(g, block, value, head, in_block, d), x);
    };
    float first[kPairs], second[kPairs];
    LoadFloats(k + place.first, first);
    LoadFloats(k + place.second, second);
    TurnRuns(p.turns, p.positions[row], pair, place, first, second);
    put(false, place.first, first);
    put(false, place.second, second);
    LoadFloats(v + place.first, first);
    LoadFloats(v + place.second, second);
    put(true, place.first, first);
    put(true, place.second, second);
  }
}

// A block a row, a warp a head at a time.
__global__ void __launch_bounds__(kThreads) AppendInt8Kernel(AppendParams p) {
  LetNextBegin();
  AwaitEarlierKernels();
  const KvGeometry& g = p.geometry;
  const int64_t row = blockIdx.x;
  const int32_t slot = p.slots[row];
  if (slot < 0) return;  // stored nowhere
  const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
  const Shared<float> key = SharedAt<float>(0) + warp * g.head_dim;
  for (int head = warp; head < g.kv_heads; head += kThreads / 32) {
    const Int8Slot to = {slot / kBlockTokens, head, slot % kBlockTokens};
    const Global<const float> k = p.k.data + (row * p.k.stride + int64_t{head} * g.head_dim);
    const Global<const float> v = p.v.data + (row * p.v.stride + int64_t{head} * g.head_dim);
    TurnInt8Key(
        p.layer, g, p.turns, p.positions[row], head, lane, [&](int d) { return k[d]; }, key);
    StoreInt8Key(p.layer, g, to, lane, key);
    StoreInt8Value(p.layer, g, to, lane, [&](int d) { return v[d]; });
  }
}

}  // namespace

Status AppendKv(Stream stream, const AppendArgs& args) {
  if (args.k.rows == 0) return Status::Ok();
  AppendParams p;
  p.k = MatrixOf(args.k);
  p.v = MatrixOf(args.v);
  p.layer = LayerOf(*args.pool, args.layer);
  p.geometry = args.pool->geometry();
  p.slots = args.slots;
  p.positions = args.positions;
  p.turns = TurnsOf(args.rotations);
  LaunchShape shape;
  shape.blocks_x = static_cast<unsigned>(args.k.rows);
  shape.threads = kThreads;
  if (p.geometry.form != KvForm::kI8) {
    if (!HaveRuns(p.geometry, p.turns) || !p.k.aligned || !p.v.aligned) {
      return Launch(stream, shape, AppendKernel<1>, p);
    }
    return Launch(stream, shape, AppendKernel<kRunPairs>, p);
  }
  shape.shared_bytes = sizeof(float) * static_cast<size_t>(kThreads / 32 * p.geometry.head_dim);
  return Launch(stream, shape, AppendInt8Kernel, p);
}

}  // namespace kvasir::cuda
