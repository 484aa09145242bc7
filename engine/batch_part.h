// BatchOfSequence: one sequence's share of a step as a step of its own. Pure.
#pragma once

#include <cstddef>

#include "kernels/core/step_batch.h"

namespace kvasir {

// Rows, segments, blocks and logits of batch.sequences[index], renumbered from 0.
StepBatch BatchOfSequence(const StepBatch& batch, size_t index);

}  // namespace kvasir
