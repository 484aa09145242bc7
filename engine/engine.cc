#include "engine/engine.h"

#include <algorithm>
#include <chrono>
#include <string>
#include <utility>

#include "engine/engine_impl.h"
#include "engine/key_balance.h"
#include "engine/vocabulary_check.h"

namespace kvasir {
namespace {

std::string N(int64_t value) { return std::to_string(value); }

Status CheckOptions(const EngineOptions& options, const ModelConfig& config) {
  if (options.kv_dtype != DType::kF32 && options.kv_dtype != DType::kBF16 &&
      options.kv_dtype != DType::kI8) {
    return InvalidArgument("kv_dtype is " + std::string(TraitsOf(options.kv_dtype).name) +
                           "; the pool can hold f32, bf16 or int8");
  }
  if (options.step_rows < 1 || options.max_sequences < 1 || options.max_waiting < 0 ||
      options.stall_ms < 0) {
    return InvalidArgument("step_rows (" + N(options.step_rows) + ") and max_sequences (" +
                           N(options.max_sequences) + ") must be at least 1, max_waiting (" +
                           N(options.max_waiting) + ") and stall_ms (" + N(options.stall_ms) +
                           ") at least 0");
  }
  if (options.max_context < 0 || options.max_context > config.context) {
    return InvalidArgument("max_context is " + N(options.max_context) +
                           "; the model was trained for " + N(config.context) + " tokens");
  }
  return Status::Ok();
}

bool Drafts(const EngineOptions& options) {
  return options.draft_model != nullptr && options.draft_tokens != 0;
}

// Null if none is wanted.
Result<std::unique_ptr<DraftModel>> MakeDraftModel(const Model& model,
                                                   const std::shared_ptr<Backend>& backend,
                                                   const EngineOptions& options) {
  if (options.draft_model == nullptr) return std::unique_ptr<DraftModel>();
  KVASIR_RETURN_IF_ERROR(CheckSameVocabulary(model, *options.draft_model));
  if (!Drafts(options)) return std::unique_ptr<DraftModel>();
  if (options.draft_window < 1) {
    return InvalidArgument("draft_window is " + N(options.draft_window) +
                           "; it must be at least 1");
  }
  DraftModelOptions draft;
  draft.pool_bytes = options.draft_pool_bytes;
  draft.kv_dtype = options.kv_dtype;
  draft.balance_ids = options.balance_ids;
  draft.window = options.draft_window;
  return DraftModel::Create(options.draft_model, backend, draft);
}

// Products of every step that the engine will make. Before the pools are there: trials need room.
Result<double> PrepareSteps(const Model& model, Backend& backend, const EngineOptions& options) {
  const auto begin = std::chrono::steady_clock::now();
  KVASIR_RETURN_IF_ERROR(PrepareForward(model, backend, options.step_rows));
  if (Drafts(options)) {
    const int32_t rows = std::max(DraftModel::kCatchUpRows, options.max_sequences);
    KVASIR_RETURN_IF_ERROR(PrepareForward(*options.draft_model, backend, rows));
  }
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

}  // namespace

Result<std::unique_ptr<Engine>> Engine::Create(std::shared_ptr<const Model> model,
                                               std::shared_ptr<Backend> backend,
                                               const EngineOptions& options) {
  KVASIR_CHECK(model != nullptr && backend != nullptr);
  KVASIR_RETURN_IF_ERROR(CheckOptions(options, model->config));
  const KvLayout layout = model->config.Layout(options.kv_dtype);
  const size_t blocks = options.pool_bytes / layout.BytesPerBlock();
  if (blocks < 1 || blocks > size_t{1} << 26) {
    return InvalidArgument("pool_bytes is " + std::to_string(options.pool_bytes) + ", " +
                           std::to_string(blocks) + " blocks of " +
                           std::to_string(layout.BytesPerBlock()) +
                           " bytes; it must hold 1 to 67108864 blocks");
  }
  KVASIR_ASSIGN_OR_RETURN(const double prepare_seconds, PrepareSteps(*model, *backend, options));
  KVASIR_ASSIGN_OR_RETURN(std::unique_ptr<KvPool> pool,
                          MakeKvPool(*model, *backend, options.kv_dtype,
                                     static_cast<int32_t>(blocks), options.balance_ids));
  KVASIR_ASSIGN_OR_RETURN(std::unique_ptr<DraftModel> draft,
                          MakeDraftModel(*model, backend, options));
  return std::unique_ptr<Engine>(std::make_unique<EngineImpl>(std::move(model), std::move(backend),
                                                              std::move(pool), std::move(draft),
                                                              options, prepare_seconds));
}

}  // namespace kvasir
