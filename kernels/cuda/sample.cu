// Two kernels: the highest logit of every chunk of every row; then a block a row, which is done if
// the row is greedy. Else it cuts by top-k, then top-p, each by bins over the weights and bins
// within the bin where the measure is reached (two passes mostly), and picks by one random number
// and the weights' running sum in order of ids: what TokenDrawer does.
#include "kernels/core/random.h"
#include "kernels/cuda/sample.cuh"
#include "kernels/cuda/sample_row.cuh"

namespace kvasir::cuda {
namespace {

constexpr int kBestThreads = 256;

struct SampleParams {
  Matrix logits;
  Global<const RowDraw> draws = nullptr;
  Global<uint64_t> best = nullptr;  // [N][chunks]
  Global<int32_t> tokens = nullptr;
  int64_t chunks = 0;
};

__device__ __forceinline__ SampleRow RowOf(const SampleParams& p, const RowDraw& draw) {
  SampleRow row;
  row.logits = p.logits.data + draw.row * p.logits.stride;
  row.vocab = p.logits.cols;
  row.aligned = p.logits.aligned;
  return row;
}

// The higher logit first, then the lower id.
__device__ __forceinline__ uint64_t RankOf(uint32_t key, int32_t id) {
  return uint64_t{key} << 32 | (0xFFFFFFFFu - static_cast<uint32_t>(id));
}
__device__ __forceinline__ int32_t IdOf(uint64_t rank) {
  return static_cast<int32_t>(0xFFFFFFFFu - static_cast<uint32_t>(rank));
}
__device__ __forceinline__ uint64_t Higher(uint64_t a, uint64_t b) { return a > b ? a : b; }

__global__ void __launch_bounds__(kBestThreads) BestKernel(SampleParams p) {
  LetNextBegin();
  AwaitEarlierKernels();
  const int64_t index = blockIdx.y, chunk = blockIdx.x;
  const SampleRow row = RowOf(p, p.draws[index]);
  const int64_t begin = chunk * (kSampleChunk / 4), end = begin + kSampleChunk / 4;
  const int64_t quads = QuadsOf(row.vocab);
  uint64_t best = 0;
  ForEachLogit(row, begin, end < quads ? end : quads, static_cast<int>(threadIdx.x), kBestThreads,
               [&](int32_t id, float logit) { best = Higher(best, RankOf(KeyOf(logit), id)); });
  best = ReduceWarp(best, [](uint64_t a, uint64_t b) { return Higher(a, b); });
  const Shared<uint64_t> of_warps = SharedAt<uint64_t>(0);
  if (threadIdx.x % 32 == 0) of_warps[threadIdx.x / 32] = best;
  SyncBlock();
  if (threadIdx.x != 0) return;
  for (int i = 1; i < kBestThreads / 32; ++i) best = Higher(best, of_warps[i]);
  p.best[index * p.chunks + chunk] = best;
}

// The upper 64 bits of a product.
constexpr uint64_t MultiplyHigh(uint64_t a, uint64_t b) {
  const uint64_t a0 = a & 0xFFFFFFFFu, a1 = a >> 32, b0 = b & 0xFFFFFFFFu, b1 = b >> 32;
  const uint64_t low = (a0 * b0 >> 32) + (a1 * b0 & 0xFFFFFFFFu) + a0 * b1;
  return a1 * b1 + (a1 * b0 >> 32) + (low >> 32);
}

__device__ __forceinline__ Cut Truncate(const SampleRow& row, const DrawParams& draw) {
  Cut cut = {0, static_cast<int32_t>(row.vocab)};
  if (draw.top_k > 0 && draw.top_k < row.vocab) {
    const auto k = static_cast<uint64_t>(draw.top_k);
    cut = FindCut(row, cut, false, [k](uint64_t) { return k; });
  }
  if (draw.top_p < 1.0f) {
    cut = FindCut(row, cut, true, [&](uint64_t total) {
      const double share = double{draw.top_p} * static_cast<double>(total);
      const auto whole = static_cast<uint64_t>(share);
      return static_cast<double>(whole) < share || whole == 0 ? whole + 1 : whole;
    });
  }
  return cut;
}

__global__ void __launch_bounds__(kSampleThreads) SampleKernel(SampleParams p) {
  LetNextBegin();
  AwaitEarlierKernels();
  const RowDraw draw = p.draws[blockIdx.x];
  SampleRow row = RowOf(p, draw);
  uint64_t best = 0;
  for (int64_t i = 0; i < p.chunks; ++i) best = Higher(best, p.best[blockIdx.x * p.chunks + i]);
  const auto key = static_cast<uint32_t>(best >> 32);
  const bool none = key == kNoKey || key <= kMinusInfinityKey;
  int32_t token = none ? -1 : IdOf(best);
  if (!none && draw.params.temperature > 0.0f) {
    constexpr float kLog2E = 1.4426950408889634f, kMost = 3.4028234663852886e38f;
    row.max = LogitOf(key);
    const float factor = kLog2E / draw.params.temperature;
    row.factor = factor < kMost ? factor : kMost;
    const Cut cut = Truncate(row, draw.params);
    token = FindId(
        row,
        [&](int32_t id, float logit) {
          const float weight = row.Weight(logit);
          const bool kept = weight >= draw.params.min_p && Keeps(cut, KeyOf(logit), id);
          return kept ? row.Units(weight) : uint64_t{0};
        },
        [&](uint64_t total) {
          return MultiplyHigh(RandomBitsAt(draw.params.seed, draw.params.position) << 11, total);
        });
  }
  if (threadIdx.x == 0) p.tokens[blockIdx.x] = token;
}

}  // namespace

Status Sample(Stream stream, const SampleArgs& args) {
  if (args.count == 0) return Status::Ok();
  SampleParams p;
  p.logits = MatrixOf(args.logits);
  p.draws = args.draws;
  p.best = args.best;
  p.tokens = args.tokens;
  p.chunks = SampleChunks(args.logits.cols);
  LaunchShape shape;
  shape.blocks_x = static_cast<unsigned>(p.chunks);
  shape.blocks_y = static_cast<unsigned>(args.count);
  shape.threads = kBestThreads;
  shape.shared_bytes = kBestThreads / 32 * sizeof(uint64_t);
  KVASIR_RETURN_IF_ERROR(Launch(stream, shape, BestKernel, p));
  shape = {};
  shape.blocks_x = static_cast<unsigned>(args.count);
  shape.threads = kSampleThreads;
  shape.shared_bytes = kSampleSharedBytes;
  return Launch(stream, shape, SampleKernel, p);
}

}  // namespace kvasir::cuda
