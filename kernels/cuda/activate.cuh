// Backend::Activate and Backend::Add on the card: values one by one.
#pragma once

#include <cstdint>

#include "kernels/core/backend.h"
#include "kernels/cuda/device.h"

namespace kvasir::cuda {

// out = activation(gate) * up; up.data null = activation(gate). [T][F]; out may be gate.
Status Activate(Stream stream, ActivationKind kind, const TensorView& gate, const TensorView& up,
                const TensorView& out);
// The same, rounded to bf16 [T][stride], zeros behind F. stride: a multiple of 4.
Status ActivateToBf16(Stream stream, ActivationKind kind, const TensorView& gate,
                      const TensorView& up, uint16_t* out, int64_t stride);
// x += y. [T][E]
Status Add(Stream stream, const TensorView& x, const TensorView& y);

}  // namespace kvasir::cuda
