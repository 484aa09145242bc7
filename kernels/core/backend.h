// Backend: the seam between the model's forward pass and a device, at operator granularity over
// whole batches. Implementations: the scalar double-precision reference (tests only), CPU, CUDA.
//
// Contract of every operator
//  - Calls come from one thread at a time, in order; a call returns when its result may be used by
//    the next call on the same backend (a device backend may queue).
//  - A row's result depends on that row's inputs and the KV it sees alone, *bit for bit*: never on
//    the number of rows, their order or the other sequences in the batch (fixed reduction order).
//  - Shapes, strides and ids are checked by the caller; operators KVASIR_CHECK what would write
//    out of bounds. Outputs never overlap inputs unless said.
//  - Memory handed out by Allocate and CreateKvPool belongs to the backend's device; only Upload
//    and Download cross over.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "kernels/core/attention_mass.h"
#include "kernels/core/draw.h"
#include "kernels/core/kv_layout.h"
#include "kernels/core/rope.h"
#include "kernels/core/status.h"
#include "kernels/core/step_batch.h"
#include "kernels/core/tensor_view.h"

namespace kvasir {

// Device memory. Owned by whoever holds the pointer; must die before its backend.
class Buffer {
 public:
  virtual ~Buffer() = default;
  void* data() const { return data_; }
  float* f32() const { return static_cast<float*>(data_); }
  size_t bytes() const { return bytes_; }

 protected:
  void* data_ = nullptr;
  size_t bytes_ = 0;
};

// A weight matrix [N outputs][K inputs] in the form the backend likes best.
class PackedWeight {
 public:
  virtual ~PackedWeight() = default;
  int64_t outputs() const { return outputs_; }  // N
  int64_t inputs() const { return inputs_; }    // K
  size_t bytes() const { return bytes_; }       // resident bytes as packed

 protected:
  int64_t outputs_ = 0, inputs_ = 0;
  size_t bytes_ = 0;
};

// KV storage of `blocks` blocks; the order of values inside is the backend's own affair.
class KvPool {
 public:
  virtual ~KvPool() = default;
  const KvLayout& layout() const { return layout_; }
  int32_t blocks() const { return blocks_; }

 protected:
  KvLayout layout_;
  int32_t blocks_ = 0;
};

// What Attention needs to know of a batch, worked out once a step and used by every layer: split
// decisions, cos/sin per (row, segment). Plain host work; the batch must outlive it.
class AttentionPlan {
 public:
  virtual ~AttentionPlan() = default;
};

enum class NormKind : uint8_t {
  kRms,    // x * rsqrt(mean(x^2) + eps) * weight
  kLayer,  // (x - mean) * rsqrt(var + eps) * weight + bias
};

enum class ActivationKind : uint8_t { kSilu, kGeluTanh, kGeluErf };

// Rows that products take behind a norm of their whole width.
struct NormedRows {
  TensorView x;  // [T][E]
  NormKind kind = NormKind::kRms;
  const float* weight = nullptr;  // [E]
  const float* bias = nullptr;    // [E] or null
  float eps = 0.0f;
  TensorView room;  // [T][E]: where the normed rows may lie; undefined afterwards
};

// One of several products that share their input.
struct Projection {
  const PackedWeight* weight = nullptr;
  const float* bias = nullptr;  // [N] or null
  TensorView out;               // [T][N]
};

// The weights of a gated feed-forward: gate, up [F][E], down [E][F].
struct FeedForwardWeights {
  const PackedWeight* gate = nullptr;
  const PackedWeight* up = nullptr;
  const PackedWeight* down = nullptr;
  ActivationKind activation = ActivationKind::kSilu;
};

// What a step's calls depend on beside its batch. Addresses that are compared, not followed.
struct StepKey {
  const void* model = nullptr;
  const void* pool = nullptr;
  const void* workspace = nullptr;
  friend bool operator==(const StepKey&, const StepKey&) = default;
};

struct AttentionArgs {
  const KvPool* pool = nullptr;
  int32_t layer = 0;
  TensorView q;                     // [T][H*D], *not* rotated, after QK-norm
  float scale = 1.0f;               // on q.k
  int32_t window = 0;               // 0 = all; else key_position > query_position - window
  const RopeTable* rope = nullptr;  // null = no positions (embedders)
  const StepBatch* batch = nullptr;
  const AttentionPlan* plan = nullptr;  // made by PlanAttention from the same batch
  TensorView out;                       // [T][H*D]
  // Rows whose softmax weights are wanted as well; ranges ascend and do not overlap. `out` is the
  // same, bit for bit, with and without them.
  std::span<const MassRange> mass = {};
};

class Backend {
 public:
  virtual ~Backend() = default;

  virtual std::string_view name() const = 0;  // "reference", "cpu-avx512", "cuda-bf16", ...
  // The card in words; empty: this machine's own processors.
  virtual std::string device() const { return {}; }

  // Ok while what was computed counts. kResourceExhausted: the device had no memory for an operator
  // of this step; BeginStep forgets it. Any other error lasts: operators then do nothing, those
  // that return a Status say so, and a new backend may fail likewise until the process ends.
  // Complete once EndStep, Download or ReadKv has returned. Any thread.
  virtual Status status() const { return Status::Ok(); }

  // ---- memory -------------------------------------------------------------------------------
  // 64-byte aligned, contents undefined. kResourceExhausted if there is none.
  virtual Result<std::unique_ptr<Buffer>> Allocate(size_t bytes) = 0;
  virtual void Upload(const void* host, void* device, size_t bytes) = 0;
  virtual void Download(const void* device, void* host, size_t bytes) = 0;

  // ---- weights ------------------------------------------------------------------------------
  // data: row-major [N][K] of `dtype` (GGUF blocks run along K). May be freed afterwards.
  virtual Result<std::unique_ptr<PackedWeight>> Pack(DType dtype, const void* data, int64_t n,
                                                     int64_t k) = 0;
  // Does beforehand what would otherwise be done when products of these weights first meet so many
  // rows, up to `most_rows`: before the first step, on its thread or with nobody else calling. What
  // is computed is the same without. kResourceExhausted if there is no memory for such products.
  virtual Status Prepare(std::span<const PackedWeight* const> weights, int64_t most_rows) {
    (void)weights, (void)most_rows;
    return Status::Ok();
  }

  // ---- KV pool ------------------------------------------------------------------------------
  // key_balance: [L][G][D] > 0, or empty = ones. Pools of kI8 keep turned keys divided by it and
  // multiply turned queries by it; other pools have no use for it. Copied.
  virtual Result<std::unique_ptr<KvPool>> CreateKvPool(const KvLayout& layout, int32_t blocks,
                                                       std::span<const float> key_balance) = 0;
  Result<std::unique_ptr<KvPool>> CreateKvPool(const KvLayout& layout, int32_t blocks) {
    return CreateKvPool(layout, blocks, {});
  }
  // Copies all layers of block `from` to block `to`.
  virtual void CopyBlock(KvPool& pool, int32_t from, int32_t to) = 0;
  // Dequantises one layer of a chunk, turns its keys to local positions 0..tokens-1 and scatters
  // them over block_ids [BlocksFor(tokens)]. rope may be null. Unlike other operators it may be
  // called from any thread, beside a running step, as long as nobody else uses these blocks. The
  // planes may be freed when it returns; operators that are called later find the KV, which a
  // device may still be copying. kResourceExhausted: the device had no memory for this load; the
  // blocks are undefined, all else is as it was, and the same load may work later.
  virtual Status LoadKv(KvPool& pool, int32_t layer, const KvLayerPlanes& planes,
                        std::span<const int32_t> block_ids, const RopeTable* rope) = 0;
  // Copies rows [row_begin, row_end) of k [T][G*D] (before RoPE) and v [T][G*D] to host memory,
  // [rows][G*D] fp32 each: it is there when the call returns, between BeginStep and EndStep when
  // EndStep returns.
  virtual void SaveKv(const TensorView& k, const TensorView& v, int32_t row_begin, int32_t row_end,
                      float* host_k, float* host_v) = 0;
  // Reads one layer back: keys as they lie (rotated to local positions) and values, fp32
  // [tokens][G*D] each. As LoadKv, from any thread, as long as nobody writes these blocks; after
  // an error what was read is undefined.
  virtual Status ReadKv(const KvPool& pool, int32_t layer, std::span<const int32_t> block_ids,
                        int32_t tokens, float* host_k, float* host_v) = 0;

  // ---- step ---------------------------------------------------------------------------------
  // What SaveKv and Attention write to host memory between these is complete when EndStep returns,
  // so a device need not wait for each. Nothing that the step queued reads or writes pools then.
  virtual void BeginStep() {}
  virtual void EndStep() {}
  // Within a step: `queue` calls the operators for the rows of the batch that it is given, and none
  // that brings anything to the host. A backend may give it a batch with more rows behind those of
  // `batch`, whose slots are kNoSlot and which no sequence has; or, if it did the same for an
  // earlier batch under the same key, do that again with this batch's numbers, calling nothing.
  virtual Status RunStep(const StepBatch& batch, const StepKey& key,
                         const std::function<Status(const StepBatch&)>& queue) {
    (void)key;
    return queue(batch);
  }

  // out [T][E] = table[token_ids] * scale.
  virtual void Embed(const PackedWeight& table, std::span<const int32_t> token_ids, float scale,
                     const TensorView& out) = 0;
  // Per row, over consecutive groups of `width` elements (width = E, or D for QK-norm):
  // x [R][n*width] -> out, which may be x. weight [width]; bias [width] or null.
  virtual void Norm(NormKind kind, const TensorView& x, int64_t width, const float* weight,
                    const float* bias, float eps, const TensorView& out) = 0;
  // out [T][N] = (accumulate ? out : 0) + x [T][K] * w^T + bias [N] (or null).
  virtual void MatMul(const TensorView& x, const PackedWeight& w, const float* bias,
                      bool accumulate, const TensorView& out) = 0;
  // The same of normed rows for several weights, without accumulating: what they share is done
  // once. The bits of Norm and the products alone.
  virtual void MatMul(const NormedRows& in, std::span<const Projection> projections) {
    Norm(in.kind, in.x, in.x.cols, in.weight, in.bias, in.eps, in.room);
    for (const Projection& projection : projections) {
      MatMul(in.room, *projection.weight, projection.bias, false, projection.out);
    }
  }
  // out [T][F] = activation(gate) * up; up.data null = activation(gate). out may be gate.
  virtual void Activate(ActivationKind kind, const TensorView& gate, const TensorView& up,
                        const TensorView& out) = 0;
  // out [T][E] = (accumulate ? out : 0) + (activation(h gate^T) * h up^T) down^T, h the normed
  // rows: the bits of the operators above. `gate` and `up` [T][F] are room for what lies between.
  // out may be in.x.
  virtual void FeedForward(const NormedRows& in, const FeedForwardWeights& weights, bool accumulate,
                           const TensorView& gate, const TensorView& up, const TensorView& out) {
    const Projection projections[] = {{weights.gate, nullptr, gate}, {weights.up, nullptr, up}};
    MatMul(in, projections);
    Activate(weights.activation, gate, up, gate);
    MatMul(gate, *weights.down, nullptr, accumulate, out);
  }
  // x [T][E] += y.
  virtual void Add(const TensorView& x, const TensorView& y) = 0;
  // out [R][E] = x rows `rows`.
  virtual void GatherRows(const TensorView& x, std::span<const int32_t> rows,
                          const TensorView& out) = 0;

  // Turns k [T][G*D] to the batch's local_positions (rope null = not at all) and writes k, v into
  // the batch's slots of `layer`.
  virtual void AppendKv(KvPool& pool, int32_t layer, const TensorView& k, const TensorView& v,
                        const StepBatch& batch, const RopeTable* rope) = 0;

  virtual std::unique_ptr<AttentionPlan> PlanAttention(const StepBatch& batch) = 0;
  // out = softmax(scale * <R(position - base) q, key>) * value over all segments of the row's
  // sequence under the mask. The keys' own rotation is in the pool already. args.mass is complete
  // when the call returns, within a step when EndStep does; the caller clears it beforehand.
  virtual void Attention(const AttentionArgs& args) = 0;

  // Whether Sample is there for rows of so many logits. Without it they are downloaded and drawn
  // from on the host.
  virtual bool CanSample(int64_t vocab) const {
    (void)vocab;
    return false;
  }
  // tokens[i] (host memory, written when the call returns, within a step when EndStep does) = the
  // token that `draws[i]` takes from its row of logits [R][V], as TokenDrawer would; -1 if no token
  // can be drawn from that row.
  virtual void Sample(const TensorView& logits, std::span<const RowDraw> draws,
                      std::span<int32_t> tokens) {
    (void)logits, (void)draws, (void)tokens;
    KVASIR_CHECK(!"a backend that cannot sample");
  }
};

}  // namespace kvasir
