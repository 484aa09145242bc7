#include "kernels/core/attention_mass.h"

#include <algorithm>

#include "kernels/core/status.h"

namespace kvasir {
namespace {

// One past the largest position of a key that rows [row_begin, row_end) of a sequence may see.
int64_t SeenEnd(const StepBatch& batch, const SequenceSpan& span, const MassRange& range) {
  int64_t end = 0;
  for (int32_t s = span.segment_begin; s < span.segment_end; ++s) {
    const SegmentRef& segment = batch.segments[static_cast<size_t>(s)];
    end = std::max(end, int64_t{segment.base} + segment.length);
  }
  const auto rows = batch.positions.begin();
  const int64_t last = *std::max_element(rows + range.row_begin, rows + range.row_end);
  return std::min(end, last + 1);
}

}  // namespace

void CheckMassRanges(std::span<const MassRange> ranges, const StepBatch& batch) {
  int32_t end = 0;
  auto span = batch.sequences.begin();
  for (const MassRange& range : ranges) {
    KVASIR_CHECK(range.row_begin >= end && range.row_end >= range.row_begin);
    end = range.row_end;
    if (range.row_begin == range.row_end) continue;
    while (span != batch.sequences.end() && span->row_end <= range.row_begin) ++span;
    KVASIR_CHECK(span != batch.sequences.end());
    KVASIR_CHECK(span->context.scale == 1.0f);  // such weights are not gathered
    KVASIR_CHECK(range.row_begin >= span->row_begin && range.row_end <= span->row_end);
    KVASIR_CHECK(range.mass != nullptr && range.stride >= SeenEnd(batch, *span, range));
  }
}

}  // namespace kvasir
