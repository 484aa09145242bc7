// CheckRequest: everything that can be said against a request before it is queued. Pure.
#pragma once

#include <cstdint>

#include "engine/block_pool.h"
#include "engine/request.h"
#include "kernels/core/status.h"

namespace kvasir {

struct RequestLimits {
  int32_t vocab = 0;
  int32_t max_context = 0;
};

// kInvalidArgument with the numbers in question. `pool` tells whether shared blocks are alive.
Status CheckRequest(const Request& request, const RequestLimits& limits, const BlockPool& pool);

}  // namespace kvasir
