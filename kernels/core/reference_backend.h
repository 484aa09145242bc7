// The reference backend: every operator in the plainest scalar code, accumulated in double. The
// oracle that all other backends are tested against; slow on purpose.
#pragma once

#include <memory>

#include "kernels/core/backend.h"

namespace kvasir {

// KV pools of kF32 only (a kBF16 layout rounds on write, so that it can be compared too).
std::unique_ptr<Backend> CreateReferenceBackend();

}  // namespace kvasir
