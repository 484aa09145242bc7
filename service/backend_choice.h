// Which device computes: engine.backend.
#pragma once

#include <memory>
#include <string>

#include "kernels/core/backend.h"
#include "kernels/core/status.h"
#include "service/config.h"

namespace kvasir {

// The processors of this machine: engine.isa, engine.threads, engine.compute.
Result<std::unique_ptr<Backend>> MakeCpuBackend(const Config& config);

// The first card. kNotFound if nothing is there (no library, no driver, no card), kUnavailable if
// what is there cannot be used; the message names it and what to do.
Result<std::unique_ptr<Backend>> MakeCudaBackend(const Config& config);

// "cpu-avx512", "cuda-bf16 (NVIDIA H100 80GB HBM3, compute capability 9.0, 79 GiB)".
std::string NameOf(const Backend& backend);

// Whether an error of a start on a card may be the card's, so that a start on the CPU may do
// better.
bool MayBeTheCards(const Status& status);

}  // namespace kvasir
