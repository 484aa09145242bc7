// Matrix products in portable C++: every row count takes the tiled path (direct_rows = 0), whose
// loops the compiler may turn into whatever vectors the baseline has.
#include "kernels/cpu/matmul_kernels.h"
#include "kernels/cpu/matmul_vector_scalar.h"

namespace kvasir {
namespace {

void NoDirect(const PackedView&, int64_t, int, const float*, int64_t, int, float*) {}

}  // namespace

const MatMulOps kMatMulScalar = {
    .direct_rows = 0,
    .direct_panels = 1,
    .tile_rows = 2,
    .tile_panels = 1,
    .direct = NoDirect,
    .decode = Decode<Vector, 1>,
    .multiply = Multiply<Vector, 2, 1>,
    .finish = Finish<Vector>,
};

}  // namespace kvasir
