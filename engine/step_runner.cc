#include "engine/step_runner.h"

#include <algorithm>
#include <exception>
#include <new>
#include <string>

#include "engine/batch_part.h"
#include "engine/load_wait.h"
#include "engine/write_check.h"

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

// The same for attention weights. Layers beyond the model's are left out.
void AddAttention(Sequence& sequence, int32_t shift, const ModelConfig& config,
                  std::vector<AttentionRange>* ranges) {
  AttentionMass* mass = sequence.request().attention.get();
  const Sequence::CaptureRows rows = sequence.watched_rows();
  if (mass == nullptr || rows.begin == rows.end) return;
  if (rows.token == 0) {
    const int32_t end = mass->layer_end == 0 ? config.layers : mass->layer_end;
    mass->layer_end = std::clamp(end, 0, config.layers);
    mass->layer_begin = std::clamp(mass->layer_begin, 0, mass->layer_end);
    mass->heads = config.heads;
    mass->positions = sequence.prompt_tokens() + (mass->answer ? sequence.max_tokens() : 0);
    const auto layers = static_cast<size_t>(mass->layer_end - mass->layer_begin);
    mass->mass.assign(layers * size_t(mass->heads) * size_t(mass->positions), 0.0f);
  }
  ranges->push_back({mass, rows.begin + shift, rows.end + shift});
}

// Whether nobody but the draw looks at the logits of the request's rows.
bool DrawsFromLogitsAlone(const Request& request) {
  return !request.on_logits && request.forced.empty() && DrawsFromLogitsAlone(request.sampling);
}

// The end of a sequence's run in batch.logit_rows, which begins at `begin`.
int32_t LogitRowsEnd(const StepBatch& batch, size_t sequence, int32_t begin) {
  const std::vector<int32_t>& rows = batch.logit_rows;
  auto end = static_cast<size_t>(begin);
  while (end < rows.size() && rows[end] < batch.sequences[sequence].row_end) ++end;
  return static_cast<int32_t>(end);
}

}  // namespace

class StepRunner::Outputs {
 public:
  Outputs(const StepRunner& runner, const StepBatch& batch, bool ok)
      : runner_(runner), batch_(batch), ok_(ok) {}

  // Of the next sequence.
  StepOutput Take() {
    const int32_t begin = row_;
    row_ = LogitRowsEnd(batch_, index_++, begin);
    const auto rows = static_cast<size_t>(row_ - begin);
    if (!ok_ || rows == 0) return {};
    const std::vector<RowDraw>& draws = runner_.draws_;
    if (drawn_ < draws.size() && draws[drawn_].row == begin) {
      drawn_ += rows;
      return {std::span(runner_.tokens_).subspan(drawn_ - rows, rows), {}};
    }
    const auto vocab = static_cast<size_t>(runner_.model_.config.vocab);
    fetched_ += rows * vocab;
    return {{}, std::span(runner_.logits_).subspan(fetched_ - rows * vocab, rows * vocab)};
  }

 private:
  const StepRunner& runner_;
  const StepBatch& batch_;
  const bool ok_;
  size_t index_ = 0, drawn_ = 0, fetched_ = 0;
  int32_t row_ = 0;  // of the batch's logit rows
};

// Every row of a sequence is drawn as if the rows before it had been computed alone.
void StepRunner::AddDraws(const StepBatch& batch, std::span<Sequence* const> sequences) {
  draws_.clear();
  if (!draws_on_device_) return;
  int32_t row = 0;
  for (size_t i = 0; i < sequences.size(); ++i) {
    const Sequence& sequence = *sequences[i];
    const int32_t begin = row;
    row = LogitRowsEnd(batch, i, begin);
    if (!DrawsFromLogitsAlone(sequence.request())) continue;
    for (int32_t r = begin; r < row; ++r) {
      const auto position = static_cast<uint64_t>(sequence.next_position() + r - begin);
      draws_.push_back({r, DrawOf(sequence.request().sampling, position)});
    }
  }
}

Status StepRunner::TryCompute(const StepBatch& batch, std::span<Sequence* const> sequences) {
  ForwardOptions options;
  for (size_t i = 0; i < sequences.size(); ++i) {
    // A part computed alone begins at row 0; captured_rows speak of the whole step's batch.
    const int32_t begin = batch.sequences[i].row_begin;
    const int32_t shift = begin - sequences[i]->batch_row();
    KvLayout layout = pool_.layout();
    options.layers = sequences[i]->request().layers;
    if (options.layers > 0) layout.layers = std::min(layout.layers, options.layers);
    AddCapture(*sequences[i], shift, layout, &options.captures);
    AddAttention(*sequences[i], shift, model_.config, &options.attention);
  }
  const bool complete = std::all_of(sequences.begin(), sequences.end(), [](Sequence* sequence) {
    return IsComplete(sequence->request().prompt);
  });
  if (!complete) {
    options.before_attention = [sequences](int32_t layer) { return AwaitLayer(sequences, layer); };
  }
  AddDraws(batch, sequences);
  options.draws = draws_;
  options.tokens = &tokens_;
  return Forward(model_, pool_, batch, workspace_, options, &logits_);
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

// A write into a shared block would change what others compute, without any error.
void StepRunner::CheckOwners([[maybe_unused]] const StepPlan& plan) const {
#ifndef NDEBUG
  const Status status = CheckWrites(plan.batch, plan.sequences, blocks_);
  if (!status.ok()) CheckFailed(__FILE__, __LINE__, status.message().c_str());
#endif
}

void StepRunner::RunEachAlone(const StepPlan& plan, const Handler& handle) {
  for (size_t i = 0; i < plan.sequences.size(); ++i) {
    Sequence* sequence = plan.sequences[i];
    const StepBatch part = BatchOfSequence(plan.batch, i);
    const Status status = Compute(part, {&sequence, 1});
    handle(*sequence, status, Outputs(*this, part, status.ok()).Take());
  }
}

void StepRunner::Run(const StepPlan& plan, const std::function<void()>& computed,
                     const Handler& handle) {
  CheckOwners(plan);
  for (const BlockCopy& copy : plan.copies) backend_.CopyBlock(pool_, copy.from, copy.to);
  // Rows that end at different layers do not go in one pass.
  if (plan.sequences.size() > 1 && plan.has_probe()) {
    computed();
    return RunEachAlone(plan, handle);
  }
  const Status status = Compute(plan.batch, plan.sequences);
  computed();
  if (!status.ok() && plan.sequences.size() > 1) return RunEachAlone(plan, handle);
  Outputs outputs(*this, plan.batch, status.ok());
  for (Sequence* sequence : plan.sequences) handle(*sequence, status, outputs.Take());
}

}  // namespace kvasir
