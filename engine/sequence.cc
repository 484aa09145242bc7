#include "engine/sequence.h"

#include <algorithm>
#include <unordered_set>
#include <utility>

#include "kernels/core/status.h"

namespace kvasir {
namespace {

// Of an answer that may grow, at first.
constexpr int32_t kFirstAnswerSlots = 2 * kBlockTokens;

int32_t TokensOf(const std::vector<SegmentPlan>& segments) {
  int32_t tokens = 0;
  for (const SegmentPlan& segment : segments) tokens += segment.tokens();
  return tokens;
}

std::vector<PromptRow> RowsOfPrompt(const std::vector<SegmentPlan>& segments) {
  std::vector<PromptRow> rows;
  for (size_t s = 0; s < segments.size(); ++s) {
    const auto segment = static_cast<int32_t>(s);
    for (const int32_t local : segments[s].recompute) rows.push_back({segment, local});
    for (int32_t local = segments[s].reused(); local < segments[s].tokens(); ++local) {
      rows.push_back({segment, local});
    }
  }
  return rows;
}

int32_t DistinctSharedBlocks(const std::vector<SegmentPlan>& segments) {
  std::unordered_set<int32_t> ids;
  for (const SegmentPlan& segment : segments) {
    if (segment.blocks) ids.insert(segment.blocks->ids().begin(), segment.blocks->ids().end());
  }
  return static_cast<int32_t>(ids.size());
}

}  // namespace

Sequence::Sequence(RequestId id, Request request, int32_t max_context)
    : id_(id), request_(std::move(request)) {
  std::vector<SegmentPlan>& plan = request_.prompt.segments;
  std::erase_if(plan, [](const SegmentPlan& segment) { return segment.tokens() == 0; });
  prompt_tokens_ = TokensOf(plan);
  prompt_positions_ = static_cast<int32_t>(PositionsOf(request_.prompt));
  max_tokens_ = std::clamp(request_.max_tokens, 0, std::max(0, max_context - prompt_positions_));
  rows_ = RowsOfPrompt(plan);
  KVASIR_CHECK(!rows_.empty());
  const std::vector<int32_t> bases = BasesOf(request_.prompt);
  for (size_t s = 0; s < plan.size(); ++s) segments_.push_back({bases[s], plan[s].reused(), {}});
  Reserve(AnswerSlots());
  blocks_held_ = blocks_needed_ + DistinctSharedBlocks(plan);
  const bool plain = request_.forced.empty() && !request_.attention && !request_.capture;
  if (plain) Reserve(std::min(AnswerSlots(), kFirstAnswerSlots));
  if (request_.sampling.repetition_penalty != 1.0f) {
    for (const SegmentPlan& segment : plan) {
      history_.seen.insert(segment.token_ids.begin(), segment.token_ids.end());
    }
  }
}

void Sequence::Reserve(int32_t answer_slots) {
  reserved_ = answer_slots;
  blocks_needed_ = 0;
  for (size_t s = 0; s < segments_.size(); ++s) {
    for (int32_t block = 0; block < BlocksFor(SlotsOf(s)); ++block) {
      blocks_needed_ += Writes(s, block) ? 1 : 0;
    }
  }
}

// Slots of the segment that have blocks.
int32_t Sequence::SlotsOf(size_t segment) const {
  const int32_t answer = segment + 1 == segments_.size() ? reserved_ : 0;
  return request_.prompt.segments[segment].tokens() + answer;
}

int32_t Sequence::BlocksMissing(int32_t rows) const {
  const int32_t slots = request_.prompt.segments.back().tokens() + answered_ - 1 + rows;
  return std::max(0, BlocksFor(slots) - static_cast<int32_t>(segments_.back().blocks.size()));
}

void Sequence::Grow(const std::vector<int32_t>& ids) {
  std::vector<int32_t>& blocks = segments_.back().blocks;
  blocks.insert(blocks.end(), ids.begin(), ids.end());
  own_blocks_.insert(own_blocks_.end(), ids.begin(), ids.end());
  const auto slots = static_cast<int32_t>(blocks.size()) * kBlockTokens;
  reserved_ = std::min(AnswerSlots(), slots - request_.prompt.segments.back().tokens());
}

std::vector<int32_t> Sequence::Preempt() {
  KVASIR_CHECK(preemptible() && appended_ == 0);
  drafts_.clear();
  placed_ = false;
  next_row_ = 0;
  const std::vector<SegmentPlan>& plan = request_.prompt.segments;
  for (size_t s = 0; s < segments_.size(); ++s) {
    segments_[s].filled = plan[s].reused();
    segments_[s].blocks.clear();
  }
  const auto last = static_cast<int32_t>(segments_.size()) - 1;
  for (; answer_rows_ < answered_; ++answer_rows_) {
    rows_.push_back({last, plan.back().tokens() + answer_rows_});
  }
  Reserve(AnswerSlots());
  return std::exchange(own_blocks_, {});
}

// Whether some row of this sequence will be written to the block.
bool Sequence::Writes(size_t segment, int32_t block) const {
  const SegmentPlan& plan = request_.prompt.segments[segment];
  const int32_t begin = block * kBlockTokens, end = begin + kBlockTokens;
  const bool holds_new = std::max(begin, plan.reused()) < std::min(end, SlotsOf(segment));
  const auto row = std::lower_bound(plan.recompute.begin(), plan.recompute.end(), begin);
  return holds_new || (row != plan.recompute.end() && *row < end);
}

void Sequence::Place(std::vector<int32_t> ids, std::vector<BlockCopy>* copies) {
  KVASIR_CHECK(!placed_ && ids.size() == size_t(blocks_needed_));
  placed_ = true;
  own_blocks_ = std::move(ids);
  auto next = own_blocks_.begin();
  for (size_t s = 0; s < segments_.size(); ++s) {
    const KvBlocks* shared = request_.prompt.segments[s].blocks.get();
    const int32_t shared_count = shared ? static_cast<int32_t>(shared->ids().size()) : 0;
    for (int32_t block = 0; block < BlocksFor(SlotsOf(s)); ++block) {
      if (!Writes(s, block)) {
        segments_[s].blocks.push_back(shared->ids()[size_t(block)]);
        continue;
      }
      if (block < shared_count) copies->push_back({shared->ids()[size_t(block)], *next});
      segments_[s].blocks.push_back(*next++);
    }
  }
}

void Sequence::AppendRow(const PromptRow& row, int32_t token, StepBatch* batch) {
  SequenceSegment& segment = segments_[size_t(row.segment)];
  KVASIR_CHECK(row.local <= segment.filled);
  segment.filled = std::max(segment.filled, row.local + 1);
  batch->token_ids.push_back(token);
  batch->positions.push_back(segment.base + row.local);
  batch->local_positions.push_back(row.local);
  batch->slots.push_back(segment.blocks[size_t(row.local / kBlockTokens)] * kBlockTokens +
                         row.local % kBlockTokens);
}

// Segments up to the last row's position, cut there: what lies behind is masked anyway.
void Sequence::AppendSegments(int32_t last_position, StepBatch* batch) const {
  for (size_t s = 0; s < segments_.size(); ++s) {
    const SequenceSegment& segment = segments_[s];
    if (segment.base > last_position) continue;
    const SegmentPlan& plan = request_.prompt.segments[s];
    const bool last = s + 1 == segments_.size();
    const int32_t end = last ? last_position + 1 : segment.base + plan.tokens();
    const int32_t length = std::min(end, last_position + 1) - segment.base;
    KVASIR_CHECK(length <= segment.filled);
    const auto first = static_cast<int32_t>(batch->block_table.size());
    batch->segments.push_back({segment.base, length, first, plan.side_by_side});
    batch->block_table.insert(batch->block_table.end(), segment.blocks.begin(),
                              segment.blocks.begin() + BlocksFor(length));
  }
}

void Sequence::AppendRows(int32_t rows, StepBatch* batch) {
  KVASIR_CHECK(placed_ && rows >= 1 && appended_ == 0);
  SequenceSpan span;
  span.row_begin = batch->rows();
  span.segment_begin = static_cast<int32_t>(batch->segments.size());
  captured_ = watched_ = {};
  batch_row_ = span.row_begin;
  if (prefill_done()) {
    KVASIR_CHECK(rows == 1 + static_cast<int32_t>(drafts_.size()));
    AppendDecodeRows(batch);
    const bool watched = request_.attention && request_.attention->answer;
    if (watched) watched_ = {batch_row_, batch_row_ + 1, prompt_tokens_ + answered_};
  } else {
    AppendPromptRows(rows, batch);
  }
  span.row_end = batch->rows();
  AppendSegments(batch->positions.back(), batch);
  span.segment_end = static_cast<int32_t>(batch->segments.size());
  span.context = request_.prompt.context;
  batch->sequences.push_back(span);
  if (next_row_ + size_t(appended_) < rows_.size() || max_tokens_ == 0) return;
  const int32_t wanted = appended_ > 0 ? 1 : rows;
  for (int32_t i = wanted; i > 0; --i) batch->logit_rows.push_back(span.row_end - i);
}

void Sequence::AppendDecodeRows(StepBatch* batch) {
  KVASIR_CHECK(answered_ > 0);
  const auto last = static_cast<int32_t>(segments_.size()) - 1;
  int32_t local = request_.prompt.segments.back().tokens() + answered_ - 1;
  AppendRow({last, local}, last_token_, batch);
  for (const int32_t token : drafts_) AppendRow({last, ++local}, token, batch);
}

void Sequence::SetDrafts(std::vector<int32_t> drafts) {
  KVASIR_CHECK(static_cast<int32_t>(drafts.size()) <= DraftRoom());
  drafts_ = std::move(drafts);
}

void Sequence::ClearDrafts() {
  if (drafts_.empty()) return;
  drafts_.clear();
  segments_.back().filled = request_.prompt.segments.back().tokens() + answered_ - 1;
}

void Sequence::AppendPromptRows(int32_t rows, StepBatch* batch) {
  KVASIR_CHECK(rows <= rows_left());
  const int32_t row_begin = batch->rows();
  for (size_t i = next_row_; i < next_row_ + size_t(rows); ++i) {
    AppendRow(rows_[i], TokenOf(rows_[i]), batch);
  }
  appended_ = rows;
  if (answer_rows_ > 0) return;  // everything wanted of the prompt was had the first time
  captured_ = LastRows(capture_tokens(), row_begin, rows);
  if (request_.attention) {
    const int32_t asked = request_.attention->rows;
    watched_ = LastRows(asked > 0 ? asked : capture_tokens(), row_begin, rows);
  }
}

int32_t Sequence::TokenOf(const PromptRow& row) const {
  const std::vector<int32_t>& prompt = request_.prompt.segments[size_t(row.segment)].token_ids;
  const auto local = size_t(row.local);
  return local < prompt.size() ? prompt[local] : answer_[local - prompt.size()];
}

Sequence::CaptureRows Sequence::LastRows(int32_t count, int32_t row_begin, int32_t rows) const {
  const auto first = static_cast<int32_t>(next_row_);
  const int32_t begin = std::max(0, static_cast<int32_t>(rows_.size()) - count);
  const int32_t skipped = std::max(0, begin - first);
  if (skipped >= rows) return {};
  return {row_begin + skipped, row_begin + rows, first + skipped - begin};
}

int32_t Sequence::capture_tokens() const { return request_.prompt.segments.back().rows(); }

void Sequence::Advance() {
  next_row_ += size_t(appended_);
  appended_ = 0;
}

void Sequence::Answer(int32_t token) {
  ++answered_;
  last_token_ = token;
  answer_.push_back(token);
  if (!NeedsHistory(request_.sampling)) return;
  history_.seen.insert(token);
  ++history_.answered[token];
}

void Sequence::Rewind() {
  answered_ = 0;
  answer_.clear();
  segments_.back().filled = request_.prompt.segments.back().tokens();
}

bool Sequence::Force() {
  const std::vector<std::vector<int32_t>>& paths = request_.forced;
  while (path_ < paths.size()) {
    if (path_at_ == 0) Rewind();
    if (path_at_ + 1 < paths[path_].size()) {  // nothing follows a path's last token
      last_token_ = paths[path_][path_at_++];
      answer_.push_back(last_token_);
      ++answered_;
      return true;
    }
    ++path_;
    path_at_ = 0;
  }
  Rewind();
  return false;
}

std::vector<int32_t> Sequence::ExactPrefixBlocks() const {
  if (segments_.size() != 1 || !prefill_done()) return {};
  const SegmentPlan& plan = request_.prompt.segments.front();
  const bool exact = plan.recompute.empty() && (!plan.blocks || plan.reuse == ReuseKind::kPrefix);
  if (!exact) return {};
  const std::vector<int32_t>& blocks = segments_.front().blocks;
  return {blocks.begin(), blocks.begin() + prompt_tokens_ / kBlockTokens};
}

std::vector<std::vector<int32_t>> Sequence::SegmentBlocks() const {
  KVASIR_CHECK(prefill_done());
  std::vector<std::vector<int32_t>> all;
  for (size_t s = 0; s + 1 < segments_.size(); ++s) all.push_back(segments_[s].blocks);
  return all;
}

}  // namespace kvasir
