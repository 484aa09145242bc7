// What the conformance tests share: every present backend, and scenes: batches of sequences over
// segments whose KV lies in scattered blocks.
#pragma once

#include <cmath>
#include <cstdint>
#include <functional>
#include <limits>
#include <memory>
#include <numeric>
#include <random>
#include <span>
#include <string>
#include <vector>

#include "kernels/core/backend.h"
#include "kernels/core/reference_backend.h"
#include "kernels/cpu/cpu_backend.h"
// Over the CUDA backend: in the emulation, or on a card (tests/gpu).
#if defined(KVASIR_CUDA_EMULATION) || defined(KVASIR_CONFORMANCE_ON_CARD)
#define KVASIR_CONFORMANCE_OF_CUDA
#include "kernels/cuda/cuda_backend.h"
#endif

namespace kvasir {

inline constexpr double kUnit = 0x1p-24;  // rounding unit of fp32

struct BackendMaker {
  std::string name;
  std::function<std::unique_ptr<Backend>(int threads)> make;
};

inline BackendMaker CpuMaker(Isa isa, ComputeType compute) {
  const std::string suffix = compute == ComputeType::kInt8 ? "_int8" : "";
  return {"cpu_" + std::string(IsaName(isa)) + suffix, [isa, compute](int threads) {
            auto backend = CreateCpuBackend({.threads = threads, .isa = isa, .compute = compute});
            KVASIR_CHECK(backend.ok());
            return std::move(*backend);
          }};
}

#if defined(KVASIR_CONFORMANCE_OF_CUDA)

inline BackendMaker CudaMaker(CudaCompute compute) {
  return {compute == CudaCompute::kF32 ? "cuda_f32" : "cuda_bf16", [compute](int) {
            auto backend = CreateCudaBackend({.compute = compute});
            KVASIR_CHECK(backend.ok());
            return std::move(*backend);
          }};
}

inline std::vector<BackendMaker> PresentBackends() { return {CudaMaker(CudaCompute::kF32)}; }
inline std::vector<BackendMaker> AttentionBackends() {
  return {CudaMaker(CudaCompute::kF32), CudaMaker(CudaCompute::kBf16)};
}

#else

// Everything in fp32.
inline std::vector<BackendMaker> PresentBackends() {
  std::vector<BackendMaker> makers = {{"reference", [](int) { return CreateReferenceBackend(); }}};
  for (const Isa isa : SupportedIsas()) makers.push_back(CpuMaker(isa, ComputeType::kF32));
  return makers;
}

// And those whose attention rounds its inputs.
inline std::vector<BackendMaker> AttentionBackends() {
  std::vector<BackendMaker> makers = PresentBackends();
  for (const Isa isa : SupportedIsas()) makers.push_back(CpuMaker(isa, ComputeType::kInt8));
  return makers;
}

#endif

class Conformance : public testing::TestWithParam<BackendMaker> {
 protected:
  Conformance() : backend_(GetParam().make(2)), reference_(CreateReferenceBackend()) {}

  std::unique_ptr<Backend> backend_, reference_;
  std::mt19937 random_{11};
};

// A matrix in backend memory with its host copy. Starts as NaN: an output that nobody writes
// cannot pass.
class Tensor {
 public:
  Tensor(Backend& backend, int64_t rows, int64_t cols, int64_t padding = 0)
      : backend_(backend),
        host(static_cast<size_t>(rows * (cols + padding)),
             std::numeric_limits<float>::quiet_NaN()) {
    auto buffer = backend.Allocate(std::max<size_t>(bytes(), 4));
    KVASIR_CHECK(buffer.ok());
    buffer_ = std::move(*buffer);
    view_ = {buffer_->data(), DType::kF32, rows, cols, cols + padding};
    Push();
  }
  Tensor(Backend& backend, int64_t rows, int64_t cols, const std::vector<float>& values)
      : Tensor(backend, rows, cols) {
    host = values;
    Push();
  }
  void Push() { backend_.Upload(host.data(), buffer_->data(), bytes()); }
  const std::vector<float>& Pull() {
    backend_.Download(buffer_->data(), host.data(), bytes());
    return host;
  }
  const TensorView& view() const { return view_; }
  float at(int64_t row, int64_t col) const {
    return host[static_cast<size_t>(row * view_.row_stride + col)];
  }

 private:
  size_t bytes() const { return host.size() * sizeof(float); }
  Backend& backend_;
  std::unique_ptr<Buffer> buffer_;
  TensorView view_;

 public:
  std::vector<float> host;
};

inline std::vector<float> Normal(size_t count, std::mt19937& random, float scale = 1.0f) {
  std::normal_distribution<float> normal(0.0f, scale);
  std::vector<float> values(count);
  for (float& value : values) value = normal(random);
  return values;
}

// One sequence: segments of these lengths one behind the other, and the absolute positions of the
// rows that are computed, ascending.
struct SequenceSpec {
  std::vector<int32_t> segments;
  std::vector<int32_t> rows;
};

inline std::vector<int32_t> RowRange(int32_t begin, int32_t end) {
  std::vector<int32_t> rows(static_cast<size_t>(end - begin));
  std::iota(rows.begin(), rows.end(), begin);
  return rows;
}

inline int32_t TokensOf(const SequenceSpec& spec) {
  return std::accumulate(spec.segments.begin(), spec.segments.end(), 0);
}

// Lays sequences into a batch, blocks drawn at random from a pool of `blocks`.
class SceneBuilder {
 public:
  SceneBuilder(int32_t blocks, std::mt19937& random) : free_(static_cast<size_t>(blocks)) {
    std::iota(free_.begin(), free_.end(), 0);
    std::shuffle(free_.begin(), free_.end(), random);
  }
  void Add(const SequenceSpec& spec) {
    SequenceSpan span;
    span.segment_begin = static_cast<int32_t>(batch.segments.size());
    span.row_begin = batch.rows();
    int32_t base = 0;
    for (const int32_t length : spec.segments) {
      batch.segments.push_back({base, length, static_cast<int32_t>(batch.block_table.size())});
      for (int32_t i = 0; i < BlocksFor(length); ++i) {
        KVASIR_CHECK(!free_.empty());
        batch.block_table.push_back(free_.back());
        free_.pop_back();
      }
      base += length;
    }
    span.segment_end = static_cast<int32_t>(batch.segments.size());
    for (const int32_t row : spec.rows) AddRow(span, row);
    span.row_end = batch.rows();
    batch.sequences.push_back(span);
  }

  StepBatch batch;

 private:
  void AddRow(const SequenceSpan& span, int32_t position) {
    int32_t s = span.segment_begin;
    while (s + 1 < span.segment_end &&
           batch.segments[static_cast<size_t>(s + 1)].base <= position) {
      ++s;
    }
    const SegmentRef& segment = batch.segments[static_cast<size_t>(s)];
    const int32_t local = position - segment.base;
    KVASIR_CHECK(local < segment.length);
    batch.token_ids.push_back(0);
    batch.positions.push_back(position);
    batch.local_positions.push_back(local);
    const auto entry = static_cast<size_t>(segment.first_block + local / kBlockTokens);
    batch.slots.push_back(batch.block_table[entry] * kBlockTokens + local % kBlockTokens);
  }

  std::vector<int32_t> free_;
};

inline std::vector<int32_t> BlocksOf(const StepBatch& batch, const SegmentRef& segment) {
  const auto begin = batch.block_table.begin() + segment.first_block;
  return {begin, begin + BlocksFor(segment.length)};
}

// KV of one layer of one segment on the host: [length][G][D] each.
struct SegmentKv {
  std::vector<float> k, v;
};

// Fills every segment of `batch` with random KV, as it lies (not turned).
inline std::vector<SegmentKv> FillSegments(Backend& backend, KvPool& pool, int32_t layer,
                                           const StepBatch& batch, std::mt19937& random) {
  std::vector<SegmentKv> all;
  const auto width =
      static_cast<size_t>(pool.layout().kv_heads) * static_cast<size_t>(pool.layout().head_dim);
  for (const SegmentRef& segment : batch.segments) {
    const size_t count = static_cast<size_t>(segment.length) * width;
    SegmentKv kv{Normal(count, random), Normal(count, random)};
    KvLayerPlanes planes{DType::kF32, segment.length, kv.k.data(), nullptr, kv.v.data(), nullptr};
    EXPECT_TRUE(backend.LoadKv(pool, layer, planes, BlocksOf(batch, segment), nullptr).ok());
    EXPECT_TRUE(backend
                    .ReadKv(pool, layer, BlocksOf(batch, segment), segment.length, kv.k.data(),
                            kv.v.data())
                    .ok());  // as the pool's type rounds them
    all.push_back(std::move(kv));
  }
  return all;
}

inline constexpr DType kPoolTypes[] = {DType::kBF16, DType::kF32, DType::kI8};

struct AttentionCase {
  int32_t kv_heads = 1, group = 1, head_dim = 64;
  DType dtype = DType::kBF16;
  int32_t window = 0;
  const RopeTable* rope = nullptr;
  float scale() const { return 1.0f / std::sqrt(static_cast<float>(head_dim)); }
  int64_t q_width() const { return int64_t{kv_heads} * group * head_dim; }
};

// Runs attention of `batch` on `pool`; q [T][H*D]; returns [T][H*D].
inline std::vector<float> RunAttention(Backend& backend, const KvPool& pool, int32_t layer,
                                       const StepBatch& batch, const AttentionCase& c,
                                       const std::vector<float>& q,
                                       std::span<const MassRange> mass = {}) {
  Tensor in(backend, batch.rows(), c.q_width(), q), out(backend, batch.rows(), c.q_width());
  const auto plan = backend.PlanAttention(batch);
  AttentionArgs args;
  args.pool = &pool;
  args.layer = layer;
  args.q = in.view();
  args.scale = c.scale();
  args.window = c.window;
  args.rope = c.rope;
  args.batch = &batch;
  args.plan = plan.get();
  args.out = out.view();
  args.mass = mass;
  backend.Attention(args);
  return out.Pull();
}

}  // namespace kvasir
