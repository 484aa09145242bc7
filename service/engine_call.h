// RunToEnd: one request through the engine, awaited on the caller's thread. For passes whose tokens
// nobody reads: repair, probes, evaluation.
#pragma once

#include <functional>

#include "engine/engine.h"
#include "kernels/core/status.h"

namespace kvasir {

struct FinishedCall {
  std::vector<int32_t> tokens;
  RequestTiming timing;
};

// Replaces the request's sink. kCancelled when the engine stops.
Result<FinishedCall> RunToEnd(Engine& engine, Request request);

// The same for work that gives way: `go_on` is asked every few milliseconds; when it says no the
// request is cancelled: kCancelled.
Result<FinishedCall> RunWhile(Engine& engine, Request request, const std::function<bool()>& go_on);

}  // namespace kvasir
