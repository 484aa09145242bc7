// The part of `kvasir bench` on sharing: KV in the pool for one request and for sixteen that use
// the same chunks in sixteen orders, and what private copies of the chunks would have taken.
#pragma once

#include <boost/json.hpp>
#include <functional>

#include "service/rag_pipeline.h"

namespace kvasir {

// `prepare` makes the prompt of a turn: the same chunks in an order of its own, KV in the pool.
//   requests, chunks   how many run at once, over how many shared runs of KV (the anchor is one)
//   chunk_kv_bytes     of the pool, by cached KV, while nothing runs: one prompt, sixteen prompts
//   private_kv_bytes   what sixteen would take with copies of their own
//   own_kv_bytes       most that requests held beside that while they ran: question and answer
//   ratio              chunk_kv_bytes of sixteen to that of one
Result<boost::json::object> MeasureOrders(
    Runtime& runtime, RagPipeline& rag,
    const std::function<Result<PreparedPrompt>(int turn)>& prepare);

}  // namespace kvasir
