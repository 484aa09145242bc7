#include "engine/draft_model.h"

#include <algorithm>
#include <chrono>
#include <string>
#include <utility>

#include "engine/key_balance.h"

namespace kvasir {
namespace {

int64_t TokensOf(const PromptPlan& prompt) {
  int64_t tokens = 0;
  for (const SegmentPlan& segment : prompt.segments) tokens += segment.tokens();
  return tokens;
}

// The last `count` tokens of a prompt.
std::vector<int32_t> EndOf(const PromptPlan& prompt, size_t count) {
  std::vector<int32_t> end;  // backwards
  for (auto segment = prompt.segments.rbegin(); segment != prompt.segments.rend(); ++segment) {
    const std::vector<int32_t>& ids = segment->token_ids;
    for (auto id = ids.rbegin(); id != ids.rend() && end.size() < count; ++id) end.push_back(*id);
  }
  std::reverse(end.begin(), end.end());
  return end;
}

}  // namespace

Result<std::unique_ptr<DraftModel>> DraftModel::Create(std::shared_ptr<const Model> model,
                                                       std::shared_ptr<Backend> backend,
                                                       const DraftModelOptions& options) {
  const KvLayout layout = model->config.Layout(options.kv_dtype);
  const size_t blocks = options.pool_bytes / layout.BytesPerBlock();
  if (blocks < 1 || blocks > size_t{1} << 26) {
    std::string text = "the draft model's pool of ";
    text.append(std::to_string(options.pool_bytes)).append(" bytes is ");
    text.append(std::to_string(blocks)).append(" blocks; it must hold 1 to 67108864");
    return InvalidArgument(std::move(text));
  }
  KVASIR_ASSIGN_OR_RETURN(std::unique_ptr<KvPool> pool,
                          MakeKvPool(*model, *backend, options.kv_dtype,
                                     static_cast<int32_t>(blocks), options.balance_ids));
  return std::unique_ptr<DraftModel>(
      new DraftModel(std::move(model), std::move(backend), std::move(pool), options.window));
}

DraftModel::DraftModel(std::shared_ptr<const Model> model, std::shared_ptr<Backend> backend,
                       std::unique_ptr<KvPool> pool, int32_t window)
    : backend_(std::move(backend)),
      model_(std::move(model)),
      pool_(std::move(pool)),
      window_(std::min(window, model_->config.context / 2)),
      workspace_(*backend_) {
  for (int32_t block = pool_->blocks(); block > 0; --block) free_.push_back(block - 1);
}

void DraftModel::Begin(RequestId id, const PromptPlan& prompt, std::span<const int32_t> answer) {
  End(id);
  Lane& lane = lanes_[id];
  lane.text = EndOf(prompt, static_cast<size_t>(window_));
  lane.text.insert(lane.text.end(), answer.begin(), answer.end());
}

int32_t DraftModel::RowsToBegin(const PromptPlan& prompt, size_t answered) const {
  return static_cast<int32_t>(std::min<int64_t>(window_, TokensOf(prompt)) +
                              static_cast<int64_t>(answered));
}

void DraftModel::Append(RequestId id, int32_t token) {
  const auto at = lanes_.find(id);
  if (at == lanes_.end()) return;
  Lane& lane = at->second;
  lane.text.push_back(token);
  if (!lane.ahead.empty() && lane.ahead.front() == token) {
    ++lane.computed;
    lane.ahead.erase(lane.ahead.begin());
  } else {
    lane.ahead.clear();
  }
}

void DraftModel::End(RequestId id) {
  const auto at = lanes_.find(id);
  if (at == lanes_.end()) return;
  free_.insert(free_.end(), at->second.blocks.begin(), at->second.blocks.end());
  lanes_.erase(at);
}

bool DraftModel::HasRoom(Lane* lane, size_t tokens) {
  if (tokens > static_cast<size_t>(model_->config.context)) return false;
  const auto needed = static_cast<size_t>(BlocksFor(static_cast<int32_t>(tokens)));
  if (needed > lane->blocks.size() + free_.size()) return false;
  while (lane->blocks.size() < needed) {
    lane->blocks.push_back(free_.back());
    free_.pop_back();
  }
  return true;
}

void DraftModel::AppendRows(const Lane& lane, size_t begin, size_t end, bool logits,
                            StepBatch* batch) const {
  const int32_t row_begin = batch->rows();
  for (size_t at = begin; at < end; ++at) {
    const size_t text = lane.text.size();
    const auto position = static_cast<int32_t>(at);
    batch->token_ids.push_back(at < text ? lane.text[at] : lane.ahead[at - text]);
    batch->positions.push_back(position);
    batch->local_positions.push_back(position);
    batch->slots.push_back(lane.blocks[at / kBlockTokens] * kBlockTokens + position % kBlockTokens);
  }
  if (logits) batch->logit_rows.push_back(batch->rows() - 1);
  const auto segment = static_cast<int32_t>(batch->segments.size());
  batch->sequences.push_back({row_begin, batch->rows(), segment, segment + 1});
  const auto length = static_cast<int32_t>(end);
  batch->segments.push_back({0, length, static_cast<int32_t>(batch->block_table.size())});
  batch->block_table.insert(batch->block_table.end(), lane.blocks.begin(),
                            lane.blocks.begin() + BlocksFor(length));
}

Status DraftModel::Step(const StepBatch& batch, std::span<Wish* const> wishes) {
  const auto begin = std::chrono::steady_clock::now();
  ForwardOptions options;
  draws_.clear();
  const bool draws = backend_->CanSample(model_->config.vocab);
  for (size_t i = 0; draws && i < wishes.size(); ++i) {
    draws_.push_back({static_cast<int32_t>(i), {}});
  }
  options.draws = draws_;
  options.tokens = &tokens_;
  KVASIR_RETURN_IF_ERROR(Forward(*model_, *pool_, batch, workspace_, options, &logits_));
  const std::chrono::duration<double> taken = std::chrono::steady_clock::now() - begin;
  times_.Record(batch.rows(), taken.count());
  const auto vocab = static_cast<size_t>(model_->config.vocab);
  for (size_t i = 0; i < wishes.size(); ++i) {
    const int32_t best =
        draws_.empty() ? BestToken(std::span(logits_).subspan(i * vocab, vocab)) : tokens_[i];
    if (best < 0) return Internal("the draft model's logits hold NaN or infinity");
    wishes[i]->guess.push_back(best);
  }
  return Status::Ok();
}

Status DraftModel::CatchUp(std::span<Wish> wishes, std::vector<Wish*>* active) {
  StepBatch batch;
  int32_t rows_left = kCatchUpRows;
  for (Wish& wish : wishes) {
    const auto at = lanes_.find(wish.id);
    if (at == lanes_.end() || wish.tokens < 1) continue;
    wish.catches_up = rows_left == 0;
    if (wish.catches_up) continue;
    Lane& lane = at->second;
    // The guesses of last time may be right still; they are made again, in the same way.
    lane.ahead.clear();
    const size_t begin = std::min(lane.computed, lane.text.size() - 1);
    const size_t end = std::min(lane.text.size(), begin + static_cast<size_t>(rows_left));
    if (!HasRoom(&lane, lane.text.size() + static_cast<size_t>(wish.tokens))) continue;
    const bool whole = end == lane.text.size();
    AppendRows(lane, begin, end, whole, &batch);
    rows_left -= static_cast<int32_t>(end - begin);
    lane.computed = end;
    wish.catches_up = !whole;
    if (whole) active->push_back(&wish);
  }
  return batch.rows() == 0 ? Status::Ok() : Step(batch, *active);
}

Status DraftModel::Draft(std::span<Wish> wishes) {
  std::vector<Wish*> active;
  KVASIR_RETURN_IF_ERROR(CatchUp(wishes, &active));
  while (true) {
    std::erase_if(active, [](const Wish* wish) {
      return wish->guess.size() >= static_cast<size_t>(wish->tokens);
    });
    if (active.empty()) return Status::Ok();
    StepBatch batch;
    for (const Wish* wish : active) {
      Lane& lane = lanes_.at(wish->id);
      lane.ahead.push_back(wish->guess.back());
      const size_t end = lane.text.size() + lane.ahead.size();
      AppendRows(lane, end - 1, end, /*logits=*/true, &batch);
    }
    KVASIR_RETURN_IF_ERROR(Step(batch, active));
  }
}

}  // namespace kvasir
