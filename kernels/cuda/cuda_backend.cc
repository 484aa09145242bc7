#include "kernels/cuda/cuda_backend.h"

#include <algorithm>
#include <cstring>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "kernels/core/shape_checks.h"
#include "kernels/cuda/activate.cuh"
#include "kernels/cuda/attention_step.h"
#include "kernels/cuda/embed.cuh"
#include "kernels/cuda/gather.cuh"
#include "kernels/cuda/kv_append.cuh"
#include "kernels/cuda/kv_loader.h"
#include "kernels/cuda/kv_reader.h"
#include "kernels/cuda/mirror.h"
#include "kernels/cuda/norm.cuh"
#include "kernels/cuda/products.h"
#include "kernels/cuda/repeated_steps.h"
#include "kernels/cuda/sample.cuh"
#include "kernels/cuda/sample_step.h"

namespace kvasir {
namespace {

using cuda::CudaAttentionPlan;
using cuda::CudaKvPool;
using cuda::CudaWeight;
using cuda::DeviceBuffers;
using cuda::Mirror;
using cuda::RepeatedSteps;
using cuda::RotationTables;
using cuda::Scratch;
using cuda::StepTable;

class CudaBuffer final : public Buffer {
 public:
  CudaBuffer(void* data, size_t bytes) {
    data_ = data;
    bytes_ = bytes;
  }
  ~CudaBuffer() override { cuda::FreeDeviceMemory(data_); }
};

// Owned by the backend, so that what uses a stream dies before it.
class StreamOwner {
 public:
  explicit StreamOwner(cuda::Stream stream) : stream_(stream) {}
  ~StreamOwner() { cuda::DestroyStream(stream_); }
  StreamOwner(const StreamOwner&) = delete;
  StreamOwner& operator=(const StreamOwner&) = delete;
  cuda::Stream get() const { return stream_; }

 private:
  cuda::Stream stream_;
};

// "NVIDIA H100 80GB HBM3, compute capability 9.0, 79 GiB".
std::string Describe(const cuda::DeviceInfo& device) {
  std::string text = device.name + ", compute capability ";
  text.append(std::to_string(device.compute / 10)).append(".");
  text.append(std::to_string(device.compute % 10)).append(", ");
  return text.append(std::to_string(device.memory_bytes >> 30)).append(" GiB");
}

class CudaBackend final : public Backend {
 public:
  CudaBackend(const CudaOptions& options, const cuda::DeviceInfo& device, cuda::Stream stream,
              std::unique_ptr<cuda::Gemm> gemm)
      : name_(options.compute == CudaCompute::kF32 ? "cuda-f32" : "cuda-bf16"),
        device_(Describe(device)),
        stream_(stream),
        step_(stream),
        fetches_(stream),
        products_(stream, &buffers_, std::move(gemm)),
        attention_{stream,
                   &buffers_,
                   &rotations_,
                   &step_,
                   &fetches_,
                   device.multiprocessors,
                   options.compute == CudaCompute::kBf16},
        uses_graphs_(options.graphs),
        steps_(attention_, options.overlapped) {}
  Status Init() {
    KVASIR_ASSIGN_OR_RETURN(loader_, cuda::KvLoader::Create(&rotations_));
    KVASIR_ASSIGN_OR_RETURN(reader_, cuda::KvReader::Create(loader_.get()));
    return Status::Ok();
  }
  // Queued work still uses the memory of the members.
  ~CudaBackend() override { Keep(cuda::Synchronize(stream_.get())); }

  std::string_view name() const override { return name_; }
  std::string device() const override { return device_; }
  Status status() const override {
    const std::lock_guard lock(mutex_);
    return error_;
  }

  // ---- memory
  Result<std::unique_ptr<Buffer>> Allocate(size_t bytes) override {
    KVASIR_RETURN_IF_ERROR(status());
    KVASIR_ASSIGN_OR_RETURN(void* data, cuda::AllocateDeviceMemory(bytes));
    return std::unique_ptr<Buffer>(std::make_unique<CudaBuffer>(data, bytes));
  }
  void Upload(const void* host, void* device, size_t bytes) override {
    Do([&] { return cuda::CopyToDevice(device, host, bytes, stream_.get()); });
  }
  void Download(const void* device, void* host, size_t bytes) override {
    const bool done = Do([&]() -> Status {
      KVASIR_ASSIGN_OR_RETURN(char* staged, fetches_.Stage(bytes));
      KVASIR_RETURN_IF_ERROR(cuda::CopyToHost(staged, device, bytes, stream_.get()));
      fetches_.HandOut(staged, host, bytes);
      return Finish();
    });
    if (!done && bytes > 0) std::memset(host, 0, bytes);
  }

  Result<std::unique_ptr<PackedWeight>> Pack(DType dtype, const void* data, int64_t n,
                                             int64_t k) override {
    KVASIR_RETURN_IF_ERROR(status());
    KVASIR_RETURN_IF_ERROR(CheckWeightShape(dtype, n, k));
    KVASIR_ASSIGN_OR_RETURN(auto weight, CudaWeight::Create(dtype, data, n, k, stream_.get()));
    return std::unique_ptr<PackedWeight>(std::move(weight));
  }
  Status Prepare(std::span<const PackedWeight* const> weights, int64_t most_rows) override {
    KVASIR_RETURN_IF_ERROR(status());
    return products_.Prepare(weights, most_rows);
  }

  // ---- KV pool
  Result<std::unique_ptr<KvPool>> CreateKvPool(const KvLayout& layout, int32_t blocks,
                                               std::span<const float> key_balance) override {
    KVASIR_RETURN_IF_ERROR(status());
    KVASIR_ASSIGN_OR_RETURN(auto pool,
                            CudaKvPool::Create(layout, blocks, key_balance, stream_.get()));
    constexpr int64_t kMostExpected = 32768;  // 16 MiB at 64 pairs
    rotations_.Expect(std::min(int64_t{blocks} * kBlockTokens, kMostExpected));
    return std::unique_ptr<KvPool>(std::move(pool));
  }
  void CopyBlock(KvPool& pool, int32_t from, int32_t to) override {
    const auto& kv = PoolOf(pool);
    if (from == to) return;
    const auto block = [&](int32_t id) {
      KVASIR_CHECK(id >= 0 && id < kv.blocks());
      return kv.Layer(0) + static_cast<size_t>(id) * kv.block_bytes();
    };
    const cuda::Runs runs = {kv.block_bytes(), static_cast<size_t>(kv.layout().layers),
                             kv.layer_bytes(), kv.layer_bytes()};
    const int32_t both[] = {from, to};
    Do([&] {
      KVASIR_RETURN_IF_ERROR(AwaitLoads(kv, cuda::KvLoader::kEveryLayer, both));
      return cuda::CopyRuns(block(to), block(from), runs, stream_.get());
    });
  }
  Status LoadKv(KvPool& pool, int32_t layer, const KvLayerPlanes& planes,
                std::span<const int32_t> block_ids, const RopeTable* rope) override {
    KVASIR_CHECK(planes.dtype == DType::kF32 || planes.dtype == DType::kF16 ||
                 planes.dtype == DType::kI8 || planes.dtype == DType::kI4);
    KVASIR_CHECK(block_ids.size() >= static_cast<size_t>(BlocksFor(planes.tokens)));
    CheckLayer(pool, layer);
    CheckBlocks(pool, block_ids);
    return DoBesideStep(
        [&] { return loader_->Load(PoolOf(pool), layer, planes, block_ids, rope); });
  }
  void SaveKv(const TensorView& k, const TensorView& v, int32_t row_begin, int32_t row_end,
              float* host_k, float* host_v) override {
    KVASIR_CHECK(row_begin >= 0 && row_begin <= row_end && row_end <= k.rows && row_end <= v.rows);
    Do([&] {
      KVASIR_RETURN_IF_ERROR(FetchRows(k, row_begin, row_end, host_k));
      KVASIR_RETURN_IF_ERROR(FetchRows(v, row_begin, row_end, host_v));
      return FinishOutsideStep();
    });
  }
  Status ReadKv(const KvPool& pool, int32_t layer, std::span<const int32_t> block_ids,
                int32_t tokens, float* host_k, float* host_v) override {
    KVASIR_CHECK(block_ids.size() >= static_cast<size_t>(BlocksFor(tokens)));
    CheckLayer(pool, layer);
    CheckBlocks(pool, block_ids);
    return DoBesideStep([&] {
      KVASIR_RETURN_IF_ERROR(AwaitEarlierSteps());
      return reader_->Read(PoolOf(pool), layer, block_ids, tokens, host_k, host_v);
    });
  }

  // ---- step
  void BeginStep() override {
    {
      const std::lock_guard lock(mutex_);
      if (IsLackOfMemory(error_)) error_ = Status::Ok();
    }
    Do([&] { return fetches_.Forget(); });  // of a step that did not end
    const std::lock_guard lock(step_mutex_);
    in_step_ = true;
  }
  // Waits even after an error: what was queued before it still reads and writes blocks.
  void EndStep() override {
    if (queued_ && !Do([&] { return Finish(); })) Keep(cuda::Synchronize(stream_.get()));
    const std::lock_guard lock(step_mutex_);
    in_step_ = false;
  }
  Status RunStep(const StepBatch& batch, const StepKey& key,
                 const std::function<Status(const StepBatch&)>& queue) override {
    if (!uses_graphs_) return queue(batch);
    Status queued;
    if (steps_.Takes(batch, key)) {
      Do([&] {
        // A graph knows no loads: those of the step's blocks come before all of it.
        KVASIR_RETURN_IF_ERROR(loader_->HoldBack(stream_.get(), nullptr,
                                                 cuda::KvLoader::kEveryLayer, batch.block_table));
        return steps_.Run(batch, key, queue, &queued);
      });
    } else {
      queued = queue(batch);
      steps_.Learn(key, group_, kv_heads_);
    }
    return queued;
  }

  void Embed(const PackedWeight& table, std::span<const int32_t> token_ids, float scale,
             const TensorView& out) override {
    KVASIR_CHECK(out.rows == static_cast<int64_t>(token_ids.size()));
    KVASIR_CHECK(out.cols == table.inputs());
    for (const int32_t id : token_ids) KVASIR_CHECK(id >= 0 && id < table.outputs());
    const auto& weight = WeightOf(table);
    Do([&]() -> Status {
      KVASIR_ASSIGN_OR_RETURN(const int32_t* ids, OnCard(StepTable::kTokens, token_ids, tokens_));
      return cuda::Embed(stream_.get(), weight.layout(), weight.data(), ids, scale, out);
    });
  }
  void Norm(NormKind kind, const TensorView& x, int64_t width, const float* weight,
            const float* bias, float eps, const TensorView& out) override {
    KVASIR_CHECK(width > 0 && x.cols % width == 0 && out.rows == x.rows && out.cols == x.cols);
    Do([&] { return cuda::Norm(stream_.get(), {kind, x, out, width, weight, bias, eps}); });
  }
  using Backend::MatMul;
  void MatMul(const TensorView& x, const PackedWeight& w, const float* bias, bool accumulate,
              const TensorView& out) override {
    KVASIR_CHECK(x.cols == w.inputs() && out.cols == w.outputs() && out.rows == x.rows);
    Do([&] { return products_.MatMul(x, WeightOf(w), bias, accumulate, out); });
  }
  void MatMul(const NormedRows& in, std::span<const Projection> projections) override {
    for (const Projection& p : projections) {
      KVASIR_CHECK(in.x.cols == p.weight->inputs() && p.out.cols == p.weight->outputs());
      KVASIR_CHECK(p.out.rows == in.x.rows);
    }
    Do([&] { return products_.MatMul(in, projections); });
  }
  void FeedForward(const NormedRows& in, const FeedForwardWeights& weights, bool accumulate,
                   const TensorView& gate, const TensorView& up, const TensorView& out) override {
    KVASIR_CHECK(in.x.cols == weights.gate->inputs() && in.x.cols == weights.up->inputs());
    KVASIR_CHECK(gate.cols == weights.gate->outputs() && up.cols == weights.up->outputs());
    KVASIR_CHECK(gate.cols == weights.down->inputs() && up.cols == gate.cols);
    KVASIR_CHECK(out.cols == weights.down->outputs() && out.rows == in.x.rows);
    KVASIR_CHECK(gate.rows == in.x.rows && up.rows == in.x.rows);
    Do([&] { return products_.FeedForward(in, weights, accumulate, gate, up, out); });
  }
  void Activate(ActivationKind kind, const TensorView& gate, const TensorView& up,
                const TensorView& out) override {
    KVASIR_CHECK(out.rows == gate.rows && out.cols == gate.cols);
    KVASIR_CHECK(up.data == nullptr || (up.rows == gate.rows && up.cols == gate.cols));
    Do([&] { return cuda::Activate(stream_.get(), kind, gate, up, out); });
  }
  void Add(const TensorView& x, const TensorView& y) override {
    KVASIR_CHECK(x.rows == y.rows && x.cols == y.cols);
    Do([&] { return cuda::Add(stream_.get(), x, y); });
  }
  void GatherRows(const TensorView& x, std::span<const int32_t> rows,
                  const TensorView& out) override {
    KVASIR_CHECK(out.rows == static_cast<int64_t>(rows.size()) && out.cols == x.cols);
    for (const int32_t row : rows) KVASIR_CHECK(row >= 0 && row < x.rows);
    Do([&]() -> Status {
      KVASIR_ASSIGN_OR_RETURN(const int32_t* on_card,
                              OnCard(StepTable::kLogitRows, rows, gathered_));
      return cuda::GatherRows(stream_.get(), x, on_card, out);
    });
  }
  void AppendKv(KvPool& pool, int32_t layer, const TensorView& k, const TensorView& v,
                const StepBatch& batch, const RopeTable* rope) override {
    const KvGeometryCheck check(pool, k, v, batch);
    CheckLayer(pool, layer);
    Do([&]() -> Status {
      cuda::AppendArgs args;
      args.pool = &PoolOf(pool);
      args.layer = layer;
      args.k = k;
      args.v = v;
      KVASIR_RETURN_IF_ERROR(AwaitLoadsOfSlots(*args.pool, layer, batch.slots));
      KVASIR_ASSIGN_OR_RETURN(args.slots, OnCard(StepTable::kSlots, batch.slots, slots_));
      KVASIR_ASSIGN_OR_RETURN(args.positions,
                              OnCard(StepTable::kLocalPositions, batch.local_positions, locals_));
      KVASIR_ASSIGN_OR_RETURN(args.rotations, rotations_.Get(rope, check.positions, stream_.get()));
      return cuda::AppendKv(stream_.get(), args);
    });
  }

  std::unique_ptr<AttentionPlan> PlanAttention(const StepBatch& batch) override {
    if (const auto* made = steps_.PlanOf(batch)) return std::make_unique<CudaAttentionPlan>(*made);
    auto plan = std::make_unique<CudaAttentionPlan>(batch, attention_);
    // Most likely the heads of the step before: then all of the step's integers go in one copy.
    if (group_ > 0) Do([&] { return plan->For(group_, kv_heads_).status(); });
    return plan;
  }
  void Attention(const AttentionArgs& args) override {
    const KvLayout& layout = args.pool->layout();
    KVASIR_CHECK(args.plan != nullptr && args.batch != nullptr);
    KVASIR_CHECK(args.q.cols % (int64_t{layout.head_dim} * layout.kv_heads) == 0);
    KVASIR_CHECK(args.out.rows == args.q.rows && args.out.cols == args.q.cols);
    KVASIR_CHECK(args.q.rows == args.batch->rows());
    KVASIR_CHECK(&static_cast<const CudaAttentionPlan&>(*args.plan).batch() == args.batch);
    KVASIR_CHECK(args.rope == nullptr || args.rope->rotary_dims <= layout.head_dim);
    CheckMassRanges(args.mass, *args.batch);
    CheckLayer(*args.pool, args.layer);
    kv_heads_ = layout.kv_heads;
    group_ =
        static_cast<int32_t>(args.q.cols / (int64_t{layout.head_dim} * int64_t{layout.kv_heads}));
    Do([&] {
      const auto& plan = static_cast<const CudaAttentionPlan&>(*args.plan);
      if (steps_.recording() && !plan.Has(group_, kv_heads_)) {
        return RepeatedSteps::CannotRecord();
      }
      KVASIR_RETURN_IF_ERROR(AwaitLoads(PoolOf(*args.pool), args.layer, args.batch->block_table));
      KVASIR_RETURN_IF_ERROR(cuda::RunAttention(attention_, args));
      return args.mass.empty() ? Status::Ok() : FinishOutsideStep();
    });
  }

  bool CanSample(int64_t vocab) const override { return vocab <= cuda::kSampleMaxVocab; }
  void Sample(const TensorView& logits, std::span<const RowDraw> draws,
              std::span<int32_t> tokens) override {
    KVASIR_CHECK(draws.size() == tokens.size() && CanSample(logits.cols));
    for (const RowDraw& draw : draws) KVASIR_CHECK(draw.row >= 0 && draw.row < logits.rows);
    std::fill(tokens.begin(), tokens.end(), -1);
    if (draws.empty()) return;
    Do([&] {
      KVASIR_RETURN_IF_ERROR(
          cuda::QueueSample(stream_.get(), &buffers_, &fetches_, logits, draws, tokens));
      return FinishOutsideStep();
    });
  }

 private:
  // Rows of a step fit the pool; how many rotations they need.
  struct KvGeometryCheck {
    KvGeometryCheck(const KvPool& pool, const TensorView& k, const TensorView& v,
                    const StepBatch& batch) {
      const int64_t width = int64_t{pool.layout().kv_heads} * pool.layout().head_dim;
      KVASIR_CHECK(k.rows == batch.rows() && v.rows == batch.rows());
      KVASIR_CHECK(k.cols == width && v.cols == width);
      for (const int32_t slot : batch.slots) {
        KVASIR_CHECK(slot >= kNoSlot && slot / kBlockTokens < pool.blocks());
      }
      for (const int32_t position : batch.local_positions) {
        KVASIR_CHECK(position >= 0);
        positions = std::max(positions, int64_t{position} + 1);
      }
    }
    int64_t positions = 0;
  };

  static const CudaKvPool& PoolOf(const KvPool& pool) {
    return static_cast<const CudaKvPool&>(pool);
  }
  static const CudaWeight& WeightOf(const PackedWeight& weight) {
    return static_cast<const CudaWeight&>(weight);
  }
  static void CheckLayer(const KvPool& pool, int32_t layer) {
    KVASIR_CHECK(layer >= 0 && layer < pool.layout().layers);
  }
  static void CheckBlocks(const KvPool& pool, std::span<const int32_t> ids) {
    for (const int32_t id : ids) KVASIR_CHECK(id >= 0 && id < pool.blocks());
  }

  // Does what is asked unless something failed before; keeps what fails.
  template <typename Work>
  bool Do(const Work& work) {
    queued_ = true;
    if (steps_.recording()) return steps_.Record(work);
    return status().ok() && Keep(work());
  }
  // The same of what does not concern the step's stream; any thread. Memory that does not suffice
  // is neither of a step's errors nor of another call's.
  template <typename Work>
  Status DoBesideStep(const Work& work) {
    Status done = status();
    if (done.ok() || IsLackOfMemory(done)) done = work();
    if (!IsLackOfMemory(done)) Keep(done);
    return done;
  }
  static bool IsLackOfMemory(const Status& status) {
    return status.code() == StatusCode::kResourceExhausted;
  }
  bool Keep(const Status& status) {
    if (status.ok()) return true;
    const std::lock_guard lock(mutex_);
    if (error_.ok() || IsLackOfMemory(error_)) error_ = status;
    return false;
  }

  // Loads into these blocks come before what is queued from now on.
  Status AwaitLoads(const CudaKvPool& pool, int32_t layer, std::span<const int32_t> blocks) {
    if (steps_.recording()) return Status::Ok();  // RunStep has done it
    return loader_->HoldBack(stream_.get(), &pool, layer, blocks);
  }
  // Blocks that were given back while they were loaded may be somebody else's by now.
  Status AwaitLoadsOfSlots(const CudaKvPool& pool, int32_t layer,
                           const std::vector<int32_t>& slots) {
    if (loader_->idle()) return Status::Ok();
    std::vector<int32_t> blocks;
    for (const int32_t slot : slots) blocks.push_back(slot / kBlockTokens);
    return AwaitLoads(pool, layer, blocks);
  }

  // Waits for all that is queued and hands out what was fetched.
  Status Finish() {
    if (steps_.recording()) return RepeatedSteps::CannotRecord();
    queued_ = false;
    return fetches_.Finish();
  }
  // Within a step its end does.
  Status FinishOutsideStep() { return in_step_ ? Status::Ok() : Finish(); }

  // Of the step's tables, or else of `mirror`.
  Result<const int32_t*> OnCard(StepTable table, std::span<const int32_t> values, Mirror& mirror) {
    if (const int32_t* found = step_.Find(table, values)) return found;
    if (steps_.recording()) return RepeatedSteps::CannotRecord();
    return mirror.Of(values, buffers_, stream_.get());
  }

  Status FetchRows(const TensorView& from, int32_t begin, int32_t end, float* to) {
    const size_t width = static_cast<size_t>(from.cols) * sizeof(float);
    const auto rows = static_cast<size_t>(end - begin);
    KVASIR_ASSIGN_OR_RETURN(char* staged, fetches_.Stage(rows * width));
    const cuda::Runs runs = {width, rows, width,
                             static_cast<size_t>(from.row_stride) * sizeof(float)};
    KVASIR_RETURN_IF_ERROR(cuda::CopyRuns(staged, from.f32_row(begin), runs, stream_.get()));
    fetches_.HandOut(staged, to, rows * width);
    return Status::Ok();
  }

  // Blocks that may be read are written by no step under way.
  Status AwaitEarlierSteps() {
    const std::lock_guard lock(step_mutex_);
    return in_step_ ? Status::Ok() : cuda::Synchronize(stream_.get());
  }

  const std::string name_, device_;
  const StreamOwner stream_;
  DeviceBuffers buffers_;
  RotationTables rotations_;
  cuda::StepTables step_;
  cuda::HostFetches fetches_;
  bool queued_ = false;               // since the last wait
  int32_t group_ = 0, kv_heads_ = 0;  // of the last attention
  cuda::Products products_;
  const cuda::AttentionContext attention_;
  const bool uses_graphs_;
  RepeatedSteps steps_;
  Mirror tokens_, gathered_, slots_, locals_;
  std::unique_ptr<cuda::KvLoader> loader_;
  std::unique_ptr<cuda::KvReader> reader_;
  mutable std::mutex mutex_;
  Status error_;  // under mutex_
  std::mutex step_mutex_;
  bool in_step_ = false;  // under step_mutex_; read by the step's thread without
};

}  // namespace

Result<std::unique_ptr<Backend>> CreateCudaBackend(const CudaOptions& options) {
  KVASIR_ASSIGN_OR_RETURN(const cuda::DeviceInfo device, cuda::OpenDevice());
  std::unique_ptr<cuda::Gemm> gemm;
  if (options.compute == CudaCompute::kBf16) {
    KVASIR_ASSIGN_OR_RETURN(gemm, cuda::CreateGemm());
  }
  KVASIR_ASSIGN_OR_RETURN(cuda::Stream stream, cuda::CreateStream(false));
  auto backend = std::make_unique<CudaBackend>(options, device, stream, std::move(gemm));
  KVASIR_RETURN_IF_ERROR(backend->Init());
  return std::unique_ptr<Backend>(std::move(backend));
}

}  // namespace kvasir
