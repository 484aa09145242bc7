// The part of `kvasir bench` on batches: tokens a second of several answers that are decoded at
// once, over contexts of their own and over one that they share.
#pragma once

#include <boost/json.hpp>
#include <functional>

#include "service/rag_pipeline.h"

namespace kvasir {

inline constexpr int kBatches[] = {1, 4, 8, 16};

// {"1": tokens a second, "4": ...}: all answers together, from the first token of the last one
// until the first one ends, so that no prompt is computed meanwhile. `prepare` makes the prompt of
// one of them.
Result<boost::json::object> MeasureBatches(
    RagPipeline& rag, const std::function<Result<PreparedPrompt>(int index)>& prepare);

}  // namespace kvasir
