// DraftModel: a smaller model of the same vocabulary that guesses how answers go on, those of one
// step together.
//
// It has KV of its own: a small pool, shared by its answers block by block. It reads the last
// `window` tokens of a prompt, as if nothing stood before, and catches up lazily: what an answer
// has gained since its last guess is computed at its next one, kCatchUpRows rows a call. KV of its
// own right guesses stays. Guesses are greedy. The engine's thread alone.
// Limits: without a free block, or at the end of its own context, an answer gets no guess.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <unordered_map>
#include <vector>

#include "engine/model/forward.h"
#include "engine/model/model.h"
#include "engine/request.h"
#include "engine/speculation.h"

namespace kvasir {

struct DraftModelOptions {
  size_t pool_bytes = size_t{64} << 20;  // of KV
  DType kv_dtype = DType::kBF16;
  int32_t window = 512;                   // tokens of a prompt that it reads, the last ones
  std::vector<int32_t> balance_ids = {};  // as EngineOptions'
};

class DraftModel {
 public:
  static constexpr int32_t kCatchUpRows = 256;

  struct Wish {
    RequestId id = 0;
    int32_t tokens = 0;          // wanted
    std::vector<int32_t> guess;  // given; none while it catches up or without room
    bool catches_up = false;     // it will have a guess later
  };

  // The backend must be the one that the model is packed for.
  static Result<std::unique_ptr<DraftModel>> Create(std::shared_ptr<const Model> model,
                                                    std::shared_ptr<Backend> backend,
                                                    const DraftModelOptions& options);

  // ---- answers
  void Begin(RequestId id, const PromptPlan& prompt, std::span<const int32_t> answer);
  void Append(RequestId id, int32_t token);
  void End(RequestId id);  // unknown ones too
  // Rows to compute before the first guess of an answer that begins now.
  int32_t RowsToBegin(const PromptPlan& prompt, size_t answered) const;

  // An error (or what it throws) leaves nothing to go on with: drop the whole object.
  Status Draft(std::span<Wish> wishes);

  // Seconds of a step of so many rows; 0 = not known yet.
  double Seconds(int32_t rows) const { return times_.Seconds(rows); }
  size_t WeightBytes() const { return model_->WeightBytes(); }
  int32_t free_blocks() const { return static_cast<int32_t>(free_.size()); }
  int32_t total_blocks() const { return pool_->blocks(); }

 private:
  struct Lane {
    std::vector<int32_t> text;    // what it reads of the prompt, and the answer
    size_t computed = 0;          // leading tokens of the text that have KV
    std::vector<int32_t> ahead;   // guesses behind the text that have KV
    std::vector<int32_t> blocks;  // of text and guesses
  };
  DraftModel(std::shared_ptr<const Model> model, std::shared_ptr<Backend> backend,
             std::unique_ptr<KvPool> pool, int32_t window);

  bool HasRoom(Lane* lane, size_t tokens);
  // Adds the tokens at positions [begin, end) of text and guesses.
  void AppendRows(const Lane& lane, size_t begin, size_t end, bool logits, StepBatch* batch) const;
  // Computes the batch and gives each of `wishes` the likeliest token behind its last row.
  Status Step(const StepBatch& batch, std::span<Wish* const> wishes);
  // The first guesses, and the wishes that got one.
  Status CatchUp(std::span<Wish> wishes, std::vector<Wish*>* active);

  const std::shared_ptr<Backend> backend_;  // first in, last out
  const std::shared_ptr<const Model> model_;
  const std::unique_ptr<KvPool> pool_;
  const int32_t window_;
  Workspace workspace_;
  std::vector<int32_t> free_;  // blocks
  std::unordered_map<RequestId, Lane> lanes_;
  StepTimes times_;
  std::vector<float> logits_;
  std::vector<RowDraw> draws_;
  std::vector<int32_t> tokens_;
};

}  // namespace kvasir
