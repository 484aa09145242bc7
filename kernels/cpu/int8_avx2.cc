// Products in 8 bits with AVX2.
#include "kernels/cpu/int8_kernels.h"
#include "kernels/cpu/matmul_vector_avx2.h"

namespace kvasir {
namespace {

void Direct(const PackedView& w, int64_t first_panel, int panels, const QuantizedBlock* x,
            int64_t stride, int rows, float* c) {
  WithInt8Block<Vector>(w.kind, [&]<class Block>() {
    const auto run = [&](auto kernel) { kernel(w, first_panel, panels, x, stride, rows, c); };
    if (rows == 1) return run(RunInt8Direct<Vector, Block, 1, 1>);
    if (rows == 2) return run(RunInt8Direct<Vector, Block, 1, 2>);
    run(RunInt8Direct<Vector, Block, 1, 3>);
  });
}

}  // namespace

const Int8Ops kInt8Avx2 = {
    .direct_rows = 3,
    .direct_panels = 1,
    .tile_rows = 3,
    .tile_panels = 1,
    .quantize = QuantizeBlocks,
    .direct = Direct,
    .unpack = UnpackPanels<Vector, 1>,
    .multiply = Int8Multiply<Vector, 3, 1>,
};

}  // namespace kvasir
