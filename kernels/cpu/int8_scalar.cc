// Products in 8 bits in portable C++: every row count takes the tiled path.
#include "kernels/cpu/int8_kernels.h"
#include "kernels/cpu/matmul_vector_scalar.h"

namespace kvasir {
namespace {

void Quantize(const float* x, int64_t inputs, QuantizedBlock* out) {
  QuantizeBlocks(x, inputs / kQuantizedInputs, out);
}

void NoDirect(const PackedView&, int64_t, int, const QuantizedBlock*, int64_t, int, float*) {}

}  // namespace

const Int8Ops kInt8Scalar = {
    .direct_rows = 0,
    .direct_panels = 1,
    .tile_rows = 2,
    .tile_panels = 1,
    .round = Quantize,
    .direct = NoDirect,
    .unpack = UnpackPanels<Vector, 1>,
    .multiply = Int8Multiply<Vector, 2, 1>,
};

}  // namespace kvasir
