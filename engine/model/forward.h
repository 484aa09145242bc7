// Forward: one pass of a decoder over the rows of a step, readable from top to bottom like the
// layer equations; no device test, no mode flag.
#pragma once

#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "engine/model/model.h"
#include "kernels/core/attention_mass.h"
#include "kernels/core/backend.h"
#include "kernels/core/step_batch.h"

namespace kvasir {

// Activations, grown on demand and kept from step to step. One per engine thread.
class Workspace {
 public:
  explicit Workspace(Backend& backend) : backend_(backend) {}
  Backend& backend() const { return backend_; }
  // An fp32 [rows][cols] window of slot `slot` (a small number naming the use); contents undefined.
  Result<TensorView> Get(size_t slot, int64_t rows, int64_t cols);

 private:
  Backend& backend_;
  std::vector<std::unique_ptr<Buffer>> slots_;
};

// Asks Forward to copy the K (before RoPE) and V of batch rows [row_begin, row_end) to tokens
// [token_begin, ...) of `capture`.
struct CaptureRange {
  KvCapture* capture = nullptr;
  int32_t row_begin = 0, row_end = 0;
  int32_t token_begin = 0;
};

// Asks Forward to add the softmax weights of batch rows [row_begin, row_end), all of one sequence,
// to `mass`, in the layers that it names.
struct AttentionRange {
  AttentionMass* mass = nullptr;
  int32_t row_begin = 0, row_end = 0;
};

struct ForwardOptions {
  std::vector<CaptureRange> captures;
  std::vector<AttentionRange> attention;  // ascending by rows, without overlap
  int32_t layers = 0;                     // compute only so many layers, without logits; 0 = all
  // Called before a layer's attention reads the pool; an error ends the pass. May be empty.
  std::function<Status(int32_t layer)> before_attention = nullptr;
  // Rows of the logits (indices into batch.logit_rows, ascending) whose tokens the backend draws
  // (it must be able to sample); `tokens` [draws] is resized. Their logits stay on the device.
  std::span<const RowDraw> draws = {};
  std::vector<int32_t>* tokens = nullptr;
};

// Lets the backend prepare for passes of up to so many rows (Backend::Prepare).
Status PrepareForward(const Model& model, Backend& backend, int64_t most_rows);

// Writes K and V of all rows into the pool, and the logits of batch.logit_rows that are not drawn
// from, [rows][V] in their order, to host memory `logits` (resized). After an error, the backend's
// among them, nothing that was written counts.
Status Forward(const Model& model, KvPool& pool, const StepBatch& batch, Workspace& workspace,
               const ForwardOptions& options, std::vector<float>* logits);

}  // namespace kvasir
