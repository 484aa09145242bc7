// Matrix products with AVX2 and FMA; a 16-lane vector is two registers. Tile: 6 rows x 16 outputs,
// 12 accumulators, two weights and one broadcast in 15 of 16 registers.
#include "kernels/cpu/matmul_kernels.h"
#include "kernels/cpu/matmul_vector_avx2.h"

namespace kvasir {
namespace {

constexpr int kTileRows = 6;
constexpr int kTilePanels = 1;
constexpr int kDirectPanels = 2;
constexpr int kDirectRows = 4;

void Direct(const PackedView& w, int64_t first_panel, int panels, const float* x, int64_t stride,
            int rows, float* c) {
  WithDecoder<Vector>(w.kind, [&]<class Decoder>() {
    const auto run = [&](auto kernel) { kernel(w, first_panel, panels, x, stride, rows, c); };
    if (rows == 1) return run(RunDirect<Vector, Decoder, 2, 1>);
    if (rows == 2) return run(RunDirect<Vector, Decoder, 1, 2>);
    run(RunDirect<Vector, Decoder, 1, 4>);
  });
}

}  // namespace

const MatMulOps kMatMulAvx2 = {
    .direct_rows = kDirectRows,
    .direct_panels = kDirectPanels,
    .tile_rows = kTileRows,
    .tile_panels = kTilePanels,
    .direct = Direct,
    .decode = Decode<Vector, kTilePanels>,
    .multiply = Multiply<Vector, kTileRows, kTilePanels>,
    .finish = Finish<Vector>,
};

}  // namespace kvasir
