// What every backend refuses to hold, in the same words.
#pragma once

#include <cstdint>

#include "kernels/core/dtype.h"
#include "kernels/core/kv_layout.h"
#include "kernels/core/status.h"

namespace kvasir {

// kInvalidArgument for shapes that nothing has, kUnimplemented for pools that no backend offers.
Status CheckPoolShape(const KvLayout& layout, int32_t blocks);
// A matrix of n outputs of k inputs in a model file.
Status CheckWeightShape(DType dtype, int64_t n, int64_t k);

}  // namespace kvasir
