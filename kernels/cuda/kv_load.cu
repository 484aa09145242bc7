#include "kernels/cuda/kv_int8.cuh"
#include "kernels/cuda/kv_load.cuh"
#include "kernels/cuda/kv_runs.cuh"

namespace kvasir::cuda {
namespace {

constexpr int kThreads = 256;

// One of K and V as stored.
struct StoredPlane {
  Global<const float> f32 = nullptr;
  Global<const uint16_t> f16 = nullptr;
  Global<const int8_t> i8 = nullptr;
  Global<const uint8_t> i4 = nullptr;
  Global<const float> scale = nullptr;
  Global<const uint16_t> step = nullptr, low = nullptr;
};

struct LoadParams {
  StoredPlane k, v;
  DType dtype = DType::kI8;
  int32_t tokens = 0;
  Global<const int32_t> blocks = nullptr;
  LayerValues layer;
  KvGeometry geometry;
  Turns turns;
};

// Values of a plane from `index` on. `group` = the entry of their scale or grid: of each value's
// the first, or that of all.
template <DType kType, bool kEach, int kCount>
__device__ __forceinline__ void LoadStored(const StoredPlane& plane, int64_t index, int64_t group,
                                           float (&to)[kCount]) {
  constexpr int kGroups = kEach ? kCount : 1;
  if constexpr (kType == DType::kF32) {
    LoadFloats(plane.f32 + index, to);
  } else if constexpr (kType == DType::kF16) {
    LoadHalves(plane.f16 + index, to);
  } else if constexpr (kType == DType::kI8) {
    float scale[kGroups];
    LoadInt8(plane.i8 + index, to);
    LoadFloats(plane.scale + group, scale);
#pragma unroll
    for (int i = 0; i < kCount; ++i) to[i] = to[i] * scale[i % kGroups];
  } else {
    float step[kGroups], low[kGroups];
    LoadInt4(plane.i4, index, to);
    LoadHalves(plane.step + group, step);
    LoadHalves(plane.low + group, low);
#pragma unroll
    for (int i = 0; i < kCount; ++i) to[i] = Fma(to[i], step[i % kGroups], low[i % kGroups]);
  }
}
template <DType kType>
__device__ __forceinline__ float Stored(const StoredPlane& plane, int64_t index, int64_t group) {
  float value[1];
  LoadStored<kType, false>(plane, index, group, value);
  return value[0];
}

// A thread kPairs pairs of values of K and of V of one token's head.
template <DType kType, int kPairs>
__global__ void __launch_bounds__(kThreads) LoadKernel(LoadParams p) {
  LetNextBegin();
  AwaitEarlierKernels();
  const KvGeometry& g = p.geometry;
  const int runs = g.head_dim / 2 / kPairs;
  const int64_t index = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  const int pair = static_cast<int>(index % runs) * kPairs;
  const int64_t row = index / runs;  // token * G + head
  const int head = static_cast<int>(row % g.kv_heads);
  const int token = static_cast<int>(row / g.kv_heads);
  if (token >= p.tokens) return;
  const int64_t block = p.blocks[token / kBlockTokens];
  const RunPlace place = RunPlaceOf<kPairs>(p.turns, pair);
  // Keys share a scale along tokens, values along a head.
  const int64_t key_group =
      kType == DType::kI4 ? token / kInt4GroupTokens * g.kv_heads + head : head;
  const auto load_key = [&](int d, float(&to)[kPairs]) {
    LoadStored<kType, true>(p.k, row * g.head_dim + d, key_group * g.head_dim + d, to);
  };
  const auto put = [&](bool value, int d, const float(&x)[kPairs]) {
    StoreRun(p.layer, g, ValueIndex(g, block, value, head, token % kBlockTokens, d), x);
  };
  float first[kPairs], second[kPairs];
  load_key(place.first, first);
  load_key(place.second, second);
  TurnRuns(p.turns, token, pair, place, first, second);
  put(false, place.first, first);
  put(false, place.second, second);
  LoadStored<kType, false>(p.v, row * g.head_dim + place.first, row, first);
  LoadStored<kType, false>(p.v, row * g.head_dim + place.second, row, second);
  put(true, place.first, first);
  put(true, place.second, second);
}

// A warp one token's head, into an int8 pool. Stored int8 values have the pool's own scales: they
// are only put in order.
template <DType kType>
__global__ void __launch_bounds__(kThreads) LoadInt8Kernel(LoadParams p) {
  LetNextBegin();
  AwaitEarlierKernels();
  const KvGeometry& g = p.geometry;
  const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
  const int64_t row = int64_t{blockIdx.x} * (kThreads / 32) + warp;  // token * G + head
  const int head = static_cast<int>(row % g.kv_heads);
  const int token = static_cast<int>(row / g.kv_heads);
  if (token >= p.tokens) return;
  const Int8Slot to = {p.blocks[token / kBlockTokens], head, token % kBlockTokens};
  const int64_t key_group =
      kType == DType::kI4 ? token / kInt4GroupTokens * g.kv_heads + head : head;
  const Shared<float> key = SharedAt<float>(0) + warp * g.head_dim;
  const auto key_at = [&](int d) {
    return Stored<kType>(p.k, row * g.head_dim + d, key_group * g.head_dim + d);
  };
  TurnInt8Key(p.layer, g, p.turns, token, head, lane, key_at, key);
  StoreInt8Key(p.layer, g, to, lane, key);
  if constexpr (kType == DType::kI8) {
    for (int d = lane; d < g.head_dim; d += 32) {
      p.layer.i8[ValueIndex(g, to.block, true, head, to.slot, d)] = p.v.i8[row * g.head_dim + d];
    }
    if (lane == 0) {
      p.layer.scales[ScaleIndex(g, to.block, head, g.key_scales(), to.slot)] = p.v.scale[row];
    }
  } else {
    const auto value_at = [&](int d) { return Stored<kType>(p.v, row * g.head_dim + d, row); };
    StoreInt8Value(p.layer, g, to, lane, value_at);
  }
}

struct ReadParams {
  LayerValues layer;
  KvGeometry geometry;
  Global<const int32_t> blocks = nullptr;
  int32_t tokens = 0;
  Global<float> k = nullptr, v = nullptr;
};

__global__ void __launch_bounds__(kThreads) ReadKernel(ReadParams p) {
  LetNextBegin();
  AwaitEarlierKernels();
  const KvGeometry& g = p.geometry;
  const int64_t index = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  const int d = static_cast<int>(index % g.head_dim);
  const int64_t row = index / g.head_dim;
  const int head = static_cast<int>(row % g.kv_heads);
  const int token = static_cast<int>(row / g.kv_heads);
  if (token >= p.tokens) return;
  const int64_t block = p.blocks[token / kBlockTokens];
  const int slot = token % kBlockTokens;
  float k = LoadValue(p.layer, g, ValueIndex(g, block, false, head, slot, d));
  float v = LoadValue(p.layer, g, ValueIndex(g, block, true, head, slot, d));
  if (g.form == KvForm::kI8) {
    k = k * p.layer.scales[ScaleIndex(g, block, head, d / kKeyScaleDims, slot)];
    v = v * p.layer.scales[ScaleIndex(g, block, head, g.key_scales(), slot)];
    if (p.layer.key_balance != nullptr) {
      k = k * p.layer.key_balance[int64_t{head} * g.head_dim + d];
    }
  }
  p.k[index] = k;
  p.v[index] = v;
}

StoredPlane PlaneOf(DType dtype, const void* values, const float* scale, const KvGrid& grid) {
  StoredPlane plane;
  if (dtype == DType::kF32) plane.f32 = static_cast<const float*>(values);
  if (dtype == DType::kF16) plane.f16 = static_cast<const uint16_t*>(values);
  if (dtype == DType::kI8) plane.i8 = static_cast<const int8_t*>(values);
  if (dtype == DType::kI4) plane.i4 = static_cast<const uint8_t*>(values);
  plane.scale = scale;
  plane.step = grid.step;
  plane.low = grid.low;
  return plane;
}

LaunchShape ShapeFor(int64_t threads) {
  LaunchShape shape;
  shape.blocks_x = static_cast<unsigned>((threads + kThreads - 1) / kThreads);
  shape.threads = kThreads;
  return shape;
}

template <DType kType>
Status LaunchLoad(Stream stream, const LoadParams& p) {
  const KvGeometry& g = p.geometry;
  const int64_t rows = int64_t{p.tokens} * g.kv_heads;
  if (g.form != KvForm::kI8) {
    const int64_t pairs = rows * (g.head_dim / 2);
    if (!HaveRuns(g, p.turns)) return Launch(stream, ShapeFor(pairs), LoadKernel<kType, 1>, p);
    return Launch(stream, ShapeFor(pairs / kRunPairs), LoadKernel<kType, kRunPairs>, p);
  }
  LaunchShape shape = ShapeFor(rows * 32);
  shape.shared_bytes = sizeof(float) * static_cast<size_t>(kThreads / 32 * g.head_dim);
  return Launch(stream, shape, LoadInt8Kernel<kType>, p);
}

}  // namespace

Status LoadKv(Stream stream, const LoadArgs& args) {
  const KvLayerPlanes& planes = args.planes;
  if (planes.tokens == 0) return Status::Ok();
  LoadParams p;
  p.k = PlaneOf(planes.dtype, planes.k, planes.k_scale, planes.k_grid);
  p.v = PlaneOf(planes.dtype, planes.v, planes.v_scale, planes.v_grid);
  p.dtype = planes.dtype;
  p.tokens = planes.tokens;
  p.blocks = args.blocks;
  p.layer = LayerOf(*args.pool, args.layer);
  p.geometry = args.pool->geometry();
  p.turns = TurnsOf(args.rotations);
  if (p.dtype == DType::kF32) return LaunchLoad<DType::kF32>(stream, p);
  if (p.dtype == DType::kF16) return LaunchLoad<DType::kF16>(stream, p);
  if (p.dtype == DType::kI8) return LaunchLoad<DType::kI8>(stream, p);
  return LaunchLoad<DType::kI4>(stream, p);
}

Status ReadKv(Stream stream, const ReadArgs& args) {
  if (args.tokens == 0) return Status::Ok();
  ReadParams p;
  p.layer = LayerOf(*args.pool, args.layer);
  p.geometry = args.pool->geometry();
  p.blocks = args.blocks;
  p.tokens = args.tokens;
  p.k = args.k;
  p.v = args.v;
  const KvGeometry& g = p.geometry;
  return Launch(stream, ShapeFor(int64_t{p.tokens} * g.kv_heads * g.head_dim), ReadKernel, p);
}

}  // namespace kvasir::cuda
