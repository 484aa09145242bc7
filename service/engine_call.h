// RunToEnd: one request through the engine, awaited on the caller's thread. For passes whose tokens
// nobody reads: repair, probes, evaluation.
#pragma once

#include "engine/engine.h"
#include "kernels/core/status.h"

namespace kvasir {

struct FinishedCall {
  std::vector<int32_t> tokens;
  RequestTiming timing;
};

// Replaces the request's sink. kCancelled when the engine stops.
Result<FinishedCall> RunToEnd(Engine& engine, Request request);

}  // namespace kvasir
