// ServiceContext: what every route needs: the runtime, its pipelines, counters and start state.
// Thread-safe. Owned by the server (or a test); outlives every request.
#pragma once

#include <atomic>
#include <chrono>
#include <string>

#include "service/ingest_pipeline.h"
#include "service/metrics.h"
#include "service/rag_pipeline.h"
#include "service/runtime.h"

namespace kvasir {

inline constexpr char kVersion[] = "0.1.0";

struct ServiceContext {
  explicit ServiceContext(Runtime& runtime_in)
      : runtime(runtime_in), rag(runtime_in), ingest(runtime_in) {}

  Runtime& runtime;
  RagPipeline rag;
  IngestPipeline ingest;
  Metrics metrics;
  std::atomic<bool> draining{false};
  std::chrono::steady_clock::time_point started = std::chrono::steady_clock::now();
  int64_t started_unix_s = std::chrono::duration_cast<std::chrono::seconds>(
                               std::chrono::system_clock::now().time_since_epoch())
                               .count();
};

}  // namespace kvasir
