// Sequence: one running or waiting request: its rows still to compute, its blocks and its answer so
// far. The only mutable thing in the scheduler.
//
// Pure state without threads or clocks; owned by the Scheduler, touched by the engine's thread.
// Invariants: rows are computed in order of position; a segment's valid slots are always a leading
// run of it; every slot that a sequence writes lies in a block that it alone owns.
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "engine/request.h"
#include "engine/sampler.h"
#include "kernels/core/prompt_plan.h"
#include "kernels/core/step_batch.h"

namespace kvasir {

// One prompt row to compute, by segment and local position in it.
struct PromptRow {
  int32_t segment = 0;
  int32_t local = 0;
};

struct SequenceSegment {
  int32_t base = 0;             // absolute position of local position 0
  int32_t filled = 0;           // leading slots that hold valid KV
  std::vector<int32_t> blocks;  // table of the whole segment, the answer's room included; set by
                                // Place
};

// A block to copy before the step that first writes it.
struct BlockCopy {
  int32_t from = 0, to = 0;
  friend bool operator==(const BlockCopy&, const BlockCopy&) = default;
};

class Sequence {
 public:
  // The request must have passed CheckRequest. `max_context` cuts max_tokens.
  Sequence(RequestId id, Request request, int32_t max_context);

  RequestId id() const { return id_; }
  void set_id(RequestId id) { id_ = id; }
  const Request& request() const { return request_; }
  Request& request() { return request_; }

  // ---- blocks
  // How many blocks of its own the sequence needs to begin: the copies of shared blocks that it
  // writes into and the room for tokens without KV. Of the answer the first tokens' room alone,
  // the rest by Grow; the whole of it once it was preempted, and with forced tokens or what is
  // captured.
  int32_t BlocksNeeded() const { return blocks_needed_; }
  // All blocks that must be in the pool at once in the end: its own and the shared ones.
  int32_t BlocksHeld() const { return blocks_held_; }
  // Takes over `ids` (BlocksNeeded of them); appends the copies to make before the next step.
  void Place(std::vector<int32_t> ids, std::vector<BlockCopy>* copies);
  bool placed() const { return placed_; }
  // Blocks that the answer's next `rows` rows lack.
  int32_t BlocksMissing(int32_t rows) const;
  void Grow(const std::vector<int32_t>& ids);
  // Whether its blocks may be taken away: not those of one that has room for its whole answer.
  bool preemptible() const { return placed_ && reserved_ < AnswerSlots(); }
  // Back to waiting: gives up its own blocks, which the caller must free. What was computed is
  // computed again, the answer so far as if it were prompt; then the answer goes on.
  std::vector<int32_t> Preempt();
  const std::vector<int32_t>& own_blocks() const { return own_blocks_; }

  // The scheduler's clock when it came (Scheduler::Enqueue).
  int64_t queued_at() const { return queued_at_; }
  void set_queued_at(int64_t rows) { queued_at_ = rows; }

  // ---- rows
  int32_t prompt_tokens() const { return prompt_tokens_; }
  int32_t max_tokens() const { return max_tokens_; }  // as cut by the context
  bool prefill_done() const { return next_row_ == rows_.size(); }
  int32_t rows_left() const { return static_cast<int32_t>(rows_.size() - next_row_); }
  // Prompt tokens that no row is computed for.
  int32_t reused_tokens() const {
    return prompt_tokens_ + answer_rows_ - static_cast<int32_t>(rows_.size());
  }
  // Appends the next `rows` prompt rows, or the decode row and those of the drafts behind it, to
  // the batch, with logits wanted for the prompt's last row and for every decode row.
  void AppendRows(int32_t rows, StepBatch* batch);
  // Of the rows appended last: those whose KV the request wants captured, as [begin, end) of the
  // batch's rows, and the capture's token of the first.
  struct CaptureRows {
    int32_t begin = 0, end = 0, token = 0;
  };
  CaptureRows captured_rows() const { return captured_; }
  // The same for the rows whose attention is wanted; `token` counts the rows asked for.
  CaptureRows watched_rows() const { return watched_; }
  int32_t batch_row() const { return batch_row_; }  // first of the rows appended last
  int32_t capture_tokens() const;  // rows of the last segment that the prompt computes
  // The rows appended last have been computed.
  void Advance();

  // ---- answer
  int32_t answered() const { return answered_; }
  int32_t last_token() const { return last_token_; }
  // Guesses of the tokens behind last_token(), to be verified in the next step.
  const std::vector<int32_t>& drafts() const { return drafts_; }
  void SetDrafts(std::vector<int32_t> drafts);
  // So many drafts at most fit the room of the answer.
  int32_t DraftRoom() const { return std::max(0, max_tokens_ - 1 - answered_); }
  // After a step: drafts are gone, and what was computed for wrong ones counts no more.
  void ClearDrafts();
  int32_t next_position() const { return prompt_positions_ + answered_; }
  void Answer(int32_t token);
  // Takes the next token of the request's forced paths as if it had been answered; at the end of a
  // path goes back to the prompt's end. False = there are none left.
  bool Force();
  // Logits of the prompt's last row, for the free answer behind forced paths.
  std::vector<float>& start_logits() { return start_logits_; }
  const TokenHistory& history() const { return history_; }

  // The leading full blocks of the prompt if it is one segment of exact KV from position 0.
  std::vector<int32_t> ExactPrefixBlocks() const;
  // Blocks of each segment but the last, by segment, once the prompt is computed.
  std::vector<std::vector<int32_t>> SegmentBlocks() const;
  int32_t SegmentTokens(size_t segment) const { return request_.prompt.segments[segment].tokens(); }

 private:
  // Slots that the whole answer takes: its last token is never fed back.
  int32_t AnswerSlots() const { return std::max(0, max_tokens_ - 1); }
  void Reserve(int32_t answer_slots);
  int32_t TokenOf(const PromptRow& row) const;
  bool Writes(size_t segment, int32_t block) const;
  int32_t SlotsOf(size_t segment) const;
  // The rows of this step among the prompt's last `count`.
  CaptureRows LastRows(int32_t count, int32_t row_begin, int32_t rows) const;
  void Rewind();
  void AppendDecodeRows(StepBatch* batch);
  void AppendPromptRows(int32_t rows, StepBatch* batch);
  void AppendRow(const PromptRow& row, int32_t token, StepBatch* batch);
  void AppendSegments(int32_t last_position, StepBatch* batch) const;

  RequestId id_;
  Request request_;
  int32_t prompt_tokens_ = 0, prompt_positions_ = 0, max_tokens_ = 0;
  std::vector<SequenceSegment> segments_;
  std::vector<PromptRow> rows_;  // in order of position
  size_t next_row_ = 0;
  int32_t appended_ = 0;  // prompt rows in the step under way
  int32_t blocks_needed_ = 0, blocks_held_ = 0;
  int32_t reserved_ = 0;     // slots of the answer that have, or will have, their blocks
  int32_t answer_rows_ = 0;  // of rows_: the answer up to a preemption
  int64_t queued_at_ = 0;
  bool placed_ = false;
  std::vector<int32_t> own_blocks_;
  CaptureRows captured_, watched_;
  int32_t batch_row_ = 0;
  int32_t answered_ = 0;
  int32_t last_token_ = -1;
  std::vector<int32_t> answer_;  // all of it
  std::vector<int32_t> drafts_;
  size_t path_ = 0, path_at_ = 0;  // the forced token to feed next
  std::vector<float> start_logits_;
  TokenHistory history_;
};

}  // namespace kvasir
