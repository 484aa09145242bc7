#include "engine/step_runner.h"

#include <exception>
#include <new>
#include <string>

#include "engine/batch_part.h"

namespace kvasir {
namespace {

// Rows to copy out, relative to the sequence's first row in `batch`.
void AddCapture(Sequence& sequence, int32_t shift, const KvLayout& layout,
                std::vector<CaptureRange>* captures) {
  KvCapture* capture = sequence.request().capture.get();
  const Sequence::CaptureRows rows = sequence.captured_rows();
  if (capture == nullptr || rows.begin == rows.end) return;
  if (rows.token == 0) *capture = KvCapture::For(layout, sequence.capture_tokens());
  captures->push_back({capture, rows.begin + shift, rows.end + shift, rows.token});
}

}  // namespace

Status StepRunner::TryCompute(const StepBatch& batch, std::span<Sequence* const> sequences) {
  std::vector<CaptureRange> captures;
  for (size_t i = 0; i < sequences.size(); ++i) {
    // A part computed alone begins at row 0; captured_rows speak of the whole step's batch.
    const int32_t begin = batch.sequences[i].row_begin;
    AddCapture(*sequences[i], begin - sequences[i]->batch_row(), pool_.layout(), &captures);
  }
  return Forward(model_, pool_, batch, workspace_, captures, &logits_);
}

Status StepRunner::Compute(const StepBatch& batch, std::span<Sequence* const> sequences) {
  try {
    return TryCompute(batch, sequences);
  } catch (const std::bad_alloc&) {
    return ResourceExhausted("out of memory in a step of " + std::to_string(batch.rows()) +
                             " rows");
  } catch (const std::exception& error) {
    return Internal(std::string("a step failed: ") + error.what());
  }
}

std::span<const float> StepRunner::LogitsOf(size_t logit_row) const {
  const auto vocab = static_cast<size_t>(model_.config.vocab);
  return std::span<const float>(logits_).subspan(logit_row * vocab, vocab);
}

void StepRunner::RunEachAlone(const StepPlan& plan, const Handler& handle) {
  for (size_t i = 0; i < plan.sequences.size(); ++i) {
    Sequence* sequence = plan.sequences[i];
    const StepBatch part = BatchOfSequence(plan.batch, i);
    const Status status = Compute(part, {&sequence, 1});
    const bool has_logits = status.ok() && !part.logit_rows.empty();
    handle(*sequence, status, has_logits ? LogitsOf(0) : std::span<const float>());
  }
}

void StepRunner::Run(const StepPlan& plan, const std::function<void()>& computed,
                     const Handler& handle) {
  for (const BlockCopy& copy : plan.copies) backend_.CopyBlock(pool_, copy.from, copy.to);
  const Status status = Compute(plan.batch, plan.sequences);
  computed();
  if (!status.ok() && plan.sequences.size() > 1) return RunEachAlone(plan, handle);
  size_t logit_row = 0;
  for (size_t i = 0; i < plan.sequences.size(); ++i) {
    const int32_t last_row = plan.batch.sequences[i].row_end - 1;
    const bool wants =
        logit_row < plan.batch.logit_rows.size() && plan.batch.logit_rows[logit_row] == last_row;
    const bool has_logits = wants && status.ok();
    handle(*plan.sequences[i], status, has_logits ? LogitsOf(logit_row) : std::span<const float>());
    logit_row += wants ? 1 : 0;
  }
}

}  // namespace kvasir
