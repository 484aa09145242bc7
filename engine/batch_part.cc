#include "engine/batch_part.h"

#include <vector>

namespace kvasir {
namespace {

template <typename T>
std::vector<T> Slice(const std::vector<T>& from, int32_t begin, int32_t end) {
  return {from.begin() + begin, from.begin() + end};
}

}  // namespace

StepBatch BatchOfSequence(const StepBatch& batch, size_t index) {
  const SequenceSpan& span = batch.sequences[index];
  StepBatch part;
  part.token_ids = Slice(batch.token_ids, span.row_begin, span.row_end);
  part.positions = Slice(batch.positions, span.row_begin, span.row_end);
  part.local_positions = Slice(batch.local_positions, span.row_begin, span.row_end);
  part.slots = Slice(batch.slots, span.row_begin, span.row_end);
  part.sequences = {
      {0, span.row_end - span.row_begin, 0, span.segment_end - span.segment_begin, span.context}};
  for (int32_t s = span.segment_begin; s < span.segment_end; ++s) {
    SegmentRef segment = batch.segments[size_t(s)];
    const int32_t first = segment.first_block;
    segment.first_block = static_cast<int32_t>(part.block_table.size());
    const auto from = batch.block_table.begin() + first;
    part.block_table.insert(part.block_table.end(), from, from + BlocksFor(segment.length));
    part.segments.push_back(segment);
  }
  for (const int32_t row : batch.logit_rows) {
    if (row >= span.row_begin && row < span.row_end)
      part.logit_rows.push_back(row - span.row_begin);
  }
  return part;
}

}  // namespace kvasir
