// Backend::Activate and Backend::Add on the card: values one by one.
#pragma once

#include "kernels/core/backend.h"
#include "kernels/cuda/device.h"

namespace kvasir::cuda {

// out = activation(gate) * up; up.data null = activation(gate). [T][F]; out may be gate.
Status Activate(Stream stream, ActivationKind kind, const TensorView& gate, const TensorView& up,
                const TensorView& out);
// x += y. [T][E]
Status Add(Stream stream, const TensorView& x, const TensorView& y);

}  // namespace kvasir::cuda
