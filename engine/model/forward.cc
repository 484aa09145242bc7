#include "engine/model/forward.h"

#include <algorithm>
#include <utility>

namespace kvasir {
namespace {

enum Slot : size_t {
  kHidden,
  kNormed,
  kQuery,
  kKey,
  kValue,
  kAttended,
  kGate,
  kUp,
  kDelta,
  kLastHidden,
  kLastAttended,
  kLogits,
};

// One pass over one batch: the layer equations, with the things that every one of them needs.
class Pass {
 public:
  Pass(const Model& model, KvPool& pool, const StepBatch& batch, Workspace& workspace,
       const ForwardOptions& options)
      : model_(model),
        config_(model.config),
        pool_(pool),
        batch_(batch),
        workspace_(workspace),
        backend_(workspace.backend()),
        options_(options),
        plan_(backend_.PlanAttention(batch)) {}

  // Logits are left in the workspace.
  Status Run() {
    TensorView x;
    KVASIR_ASSIGN_OR_RETURN(x, Get(kHidden, batch_.rows(), config_.width));
    backend_.Embed(*model_.embedding, batch_.token_ids, config_.embed_scale, x);
    const bool probe = options_.layers > 0 && options_.layers < config_.layers;
    const int32_t last = (probe ? options_.layers : config_.layers) - 1;
    for (int32_t layer = 0; layer < last; ++layer) {
      KVASIR_RETURN_IF_ERROR(ProjectAndStore(layer, x));
      KVASIR_ASSIGN_OR_RETURN(const TensorView attended, Attend(layer));
      KVASIR_RETURN_IF_ERROR(MixAttention(layer, attended, x));
      KVASIR_RETURN_IF_ERROR(FeedForward(layer, x));
    }
    KVASIR_RETURN_IF_ERROR(ProjectAndStore(last, x));
    if (!probe && !batch_.logit_rows.empty()) return Finish(last, x);
    return MassesOf(last).empty() ? Status::Ok() : Attend(last).status();
  }

 private:
  Result<TensorView> Get(Slot slot, int64_t rows, int64_t cols) {
    return workspace_.Get(slot, rows, cols);
  }
  const LayerWeights& Weights(int32_t layer) const {
    return model_.layers[static_cast<size_t>(layer)];
  }
  const RopeTable& Rope(int32_t layer) const {
    const auto table = config_.layer_rope[static_cast<size_t>(layer)];
    return config_.ropes[static_cast<size_t>(table)];
  }
  void RmsNorm(const TensorView& x, const Buffer& weight, int64_t width, const TensorView& out) {
    backend_.Norm(NormKind::kRms, x, width, weight.f32(), nullptr, config_.norm_eps, out);
  }
  // The rows of x behind a norm, for products to take.
  Result<NormedRows> Normed(const TensorView& x, const Buffer& weight) {
    NormedRows rows;
    rows.x = x;
    rows.weight = weight.f32();
    rows.eps = config_.norm_eps;
    KVASIR_ASSIGN_OR_RETURN(rows.room, Get(kNormed, x.rows, x.cols));
    return rows;
  }
  static const float* OrNull(const std::unique_ptr<Buffer>& buffer) {
    return buffer ? buffer->f32() : nullptr;
  }

  // q, k, v = W norm(x) (+ bias, QK-norm); k, v into the pool and into the captures.
  Status ProjectAndStore(int32_t layer, const TensorView& x) {
    const LayerWeights& w = Weights(layer);
    KVASIR_ASSIGN_OR_RETURN(const NormedRows h, Normed(x, *w.attn_norm));
    KVASIR_ASSIGN_OR_RETURN(q_, Get(kQuery, x.rows, w.q->outputs()));
    KVASIR_ASSIGN_OR_RETURN(k_, Get(kKey, x.rows, w.k->outputs()));
    KVASIR_ASSIGN_OR_RETURN(v_, Get(kValue, x.rows, w.v->outputs()));
    const Projection projections[] = {{w.q.get(), OrNull(w.q_bias), q_},
                                      {w.k.get(), OrNull(w.k_bias), k_},
                                      {w.v.get(), OrNull(w.v_bias), v_}};
    backend_.MatMul(h, projections);
    if (config_.qk_norm) {
      RmsNorm(q_, *w.q_norm, config_.head_dim, q_);
      RmsNorm(k_, *w.k_norm, config_.head_dim, k_);
    }
    Capture(layer);
    backend_.AppendKv(pool_, layer, k_, v_, batch_, &Rope(layer));
    return Status::Ok();
  }

  void Capture(int32_t layer) {
    for (const CaptureRange& range : options_.captures) {
      KvCapture& to = *range.capture;
      const size_t token = static_cast<size_t>(to.kv_heads) * static_cast<size_t>(to.head_dim);
      const size_t at = static_cast<size_t>(layer) * to.LayerStride() +
                        static_cast<size_t>(range.token_begin) * token;
      backend_.SaveKv(k_, v_, range.row_begin, range.row_end, to.k.data() + at, to.v.data() + at);
    }
  }

  // Where the softmax weights of a layer are wanted.
  std::vector<MassRange> MassesOf(int32_t layer) const {
    std::vector<MassRange> ranges;
    for (const AttentionRange& range : options_.attention) {
      AttentionMass& mass = *range.mass;
      if (layer < mass.layer_begin || layer >= mass.layer_end) continue;
      ranges.push_back({range.row_begin, range.row_end, mass.Of(layer), mass.positions});
    }
    return ranges;
  }

  Result<TensorView> Attend(int32_t layer) {
    if (options_.before_attention) {
      KVASIR_RETURN_IF_ERROR(options_.before_attention(layer));
    }
    TensorView out;
    KVASIR_ASSIGN_OR_RETURN(out, Get(kAttended, q_.rows, q_.cols));
    AttentionArgs args;
    args.pool = &pool_;
    args.layer = layer;
    args.q = q_;
    args.scale = config_.attention_scale;
    args.window = config_.layer_window[static_cast<size_t>(layer)];
    args.rope = &Rope(layer);
    args.batch = &batch_;
    args.plan = plan_.get();
    args.out = out;
    const std::vector<MassRange> masses = MassesOf(layer);
    args.mass = masses;
    backend_.Attention(args);
    return out;
  }

  // x += compute, with a norm between if the architecture has one there.
  // compute(accumulate, out): out = (accumulate ? out : 0) + its result.
  template <typename Compute>
  Status AddWithNorm(const std::unique_ptr<Buffer>& post_norm, const TensorView& x,
                     const Compute& compute) {
    if (!post_norm) {
      compute(true, x);
      return Status::Ok();
    }
    TensorView delta;
    KVASIR_ASSIGN_OR_RETURN(delta, Get(kDelta, x.rows, x.cols));
    compute(false, delta);
    RmsNorm(delta, *post_norm, config_.width, delta);
    backend_.Add(x, delta);
    return Status::Ok();
  }

  Status MixAttention(int32_t layer, const TensorView& attended, const TensorView& x) {
    const LayerWeights& w = Weights(layer);
    return AddWithNorm(w.post_attn_norm, x, [&](bool accumulate, const TensorView& out) {
      backend_.MatMul(attended, *w.o, nullptr, accumulate, out);
    });
  }

  // x += W_down (activation(W_gate h) * W_up h), h = norm(x).
  Status FeedForward(int32_t layer, const TensorView& x) {
    const LayerWeights& w = Weights(layer);
    KVASIR_ASSIGN_OR_RETURN(const NormedRows h, Normed(x, *w.ffn_norm));
    TensorView gate, up;
    KVASIR_ASSIGN_OR_RETURN(gate, Get(kGate, x.rows, config_.ffn_width));
    KVASIR_ASSIGN_OR_RETURN(up, Get(kUp, x.rows, config_.ffn_width));
    const FeedForwardWeights weights{w.gate.get(), w.up.get(), w.down.get(), config_.activation};
    return AddWithNorm(w.post_ffn_norm, x, [&](bool accumulate, const TensorView& out) {
      backend_.FeedForward(h, weights, accumulate, gate, up, out);
    });
  }

  // The last layer behind its K and V feeds nothing but logits: only the rows that want them go on.
  Status Finish(int32_t layer, const TensorView& x) {
    KVASIR_ASSIGN_OR_RETURN(const TensorView attended, Attend(layer));
    const auto rows = static_cast<int64_t>(batch_.logit_rows.size());
    TensorView last, last_attended;
    KVASIR_ASSIGN_OR_RETURN(last, Get(kLastHidden, rows, x.cols));
    KVASIR_ASSIGN_OR_RETURN(last_attended, Get(kLastAttended, rows, attended.cols));
    backend_.GatherRows(x, batch_.logit_rows, last);
    backend_.GatherRows(attended, batch_.logit_rows, last_attended);
    KVASIR_RETURN_IF_ERROR(MixAttention(layer, last_attended, last));
    KVASIR_RETURN_IF_ERROR(FeedForward(layer, last));
    return Head(last);
  }

  Status Head(const TensorView& x) {
    KVASIR_ASSIGN_OR_RETURN(const NormedRows h, Normed(x, *model_.output_norm));
    TensorView out;
    KVASIR_ASSIGN_OR_RETURN(out, Get(kLogits, x.rows, config_.vocab));
    const Projection head{&model_.OutputHead(), nullptr, out};
    backend_.MatMul(h, {&head, 1});
    return Status::Ok();
  }

  const Model& model_;
  const ModelConfig& config_;
  KvPool& pool_;
  const StepBatch& batch_;
  Workspace& workspace_;
  Backend& backend_;
  const ForwardOptions& options_;
  std::unique_ptr<AttentionPlan> plan_;
  TensorView q_, k_, v_;  // of the layer at hand
};

// Ended however it is left: what was captured is then in place, or nobody writes it any more.
class Step {
 public:
  explicit Step(Backend& backend) : backend_(backend) { backend_.BeginStep(); }
  ~Step() { backend_.EndStep(); }
  Step(const Step&) = delete;
  Step& operator=(const Step&) = delete;

 private:
  Backend& backend_;
};

// Draws from the rows of `logits` that options.draws names.
void Draw(Backend& backend, const TensorView& logits, const ForwardOptions& options) {
  if (options.draws.empty()) return;
  options.tokens->resize(options.draws.size());
  backend.Sample(logits, options.draws, *options.tokens);
}

// Brings the runs of rows between those that were drawn from to the host.
void Fetch(Backend& backend, const TensorView& from, std::span<const RowDraw> draws,
           std::vector<float>* logits) {
  const auto width = static_cast<size_t>(from.cols);
  logits->resize((static_cast<size_t>(from.rows) - draws.size()) * width);
  float* to = logits->data();
  int32_t row = 0;
  const auto fetch = [&](int32_t end) {
    const size_t count = static_cast<size_t>(end - row) * width;
    if (count > 0) backend.Download(from.f32_row(row), to, count * sizeof(float));
    to += count;
    row = end + 1;
  };
  for (const RowDraw& draw : draws) fetch(draw.row);
  fetch(static_cast<int32_t>(from.rows));
}

// Whether nothing but logits and KV is wanted of the pass, so that it may be done again alike.
bool IsPlain(const ForwardOptions& options) {
  return options.captures.empty() && options.attention.empty() && options.layers == 0 &&
         !options.before_attention;
}

Status Compute(const Model& model, KvPool& pool, const StepBatch& batch, Workspace& workspace,
               const ForwardOptions& options, std::vector<float>* logits) {
  Backend& backend = workspace.backend();
  const auto queue = [&](const StepBatch& rows) {
    return Pass(model, pool, rows, workspace, options).Run();
  };
  KVASIR_RETURN_IF_ERROR(
      IsPlain(options) ? backend.RunStep(batch, {&model, &pool, &workspace}, queue) : queue(batch));
  const bool probe = options.layers > 0 && options.layers < model.config.layers;
  if (probe || batch.logit_rows.empty()) {
    logits->clear();
    return Status::Ok();
  }
  const auto rows = static_cast<int64_t>(batch.logit_rows.size());
  KVASIR_ASSIGN_OR_RETURN(const TensorView out, workspace.Get(kLogits, rows, model.config.vocab));
  Draw(backend, out, options);
  Fetch(backend, out, options.draws, logits);
  return Status::Ok();
}

Status CheckTokens(const ModelConfig& config, const std::vector<int32_t>& ids) {
  for (const int32_t id : ids) {
    if (id < 0 || id >= config.vocab) {
      return InvalidArgument("token id " + std::to_string(id) + " is outside the vocabulary of " +
                             std::to_string(config.vocab));
    }
  }
  return Status::Ok();
}

}  // namespace

Result<TensorView> Workspace::Get(size_t slot, int64_t rows, int64_t cols) {
  if (slot >= slots_.size()) slots_.resize(slot + 1);
  const size_t bytes = static_cast<size_t>(rows) * static_cast<size_t>(cols) * sizeof(float);
  std::unique_ptr<Buffer>& buffer = slots_[slot];
  if (!buffer || buffer->bytes() < bytes) {
    buffer.reset();  // contents are undefined anyway: never hold both
    KVASIR_ASSIGN_OR_RETURN(buffer, backend_.Allocate(bytes));
  }
  return F32View(buffer->f32(), rows, cols);
}

Status PrepareForward(const Model& model, Backend& backend, int64_t most_rows) {
  std::vector<const PackedWeight*> weights = {&model.OutputHead()};
  for (const LayerWeights& w : model.layers) {
    for (const auto* weight : {&w.q, &w.k, &w.v, &w.o, &w.gate, &w.up, &w.down}) {
      weights.push_back(weight->get());
    }
  }
  return backend.Prepare(weights, most_rows);
}

Status Forward(const Model& model, KvPool& pool, const StepBatch& batch, Workspace& workspace,
               const ForwardOptions& options, std::vector<float>* logits) {
  KVASIR_CHECK(pool.layout().layers == model.config.layers);
  KVASIR_CHECK(options.draws.empty() || options.tokens != nullptr);
  if (batch.rows() == 0) {
    logits->clear();
    return Status::Ok();
  }
  KVASIR_RETURN_IF_ERROR(CheckTokens(model.config, batch.token_ids));
  Status status;
  {
    const Step step(workspace.backend());
    status = Compute(model, pool, batch, workspace, options, logits);
  }
  return status.ok() ? workspace.backend().status() : status;
}

}  // namespace kvasir
