// Matrix products with AVX-512. Tile: 12 rows x 32 outputs, 24 accumulators, two weights and one
// broadcast in 27 of 32 registers.
#include "kernels/cpu/matmul_kernels.h"
#include "kernels/cpu/matmul_vector_avx512.h"

namespace kvasir {
namespace {

constexpr int kTileRows = 12;
constexpr int kTilePanels = 2;
constexpr int kDirectPanels = 4;
constexpr int kDirectRows = 8;

// Panels side by side give each core enough independent sums to hide the latency of an addition.
void Direct(const PackedView& w, int64_t first_panel, int panels, const float* x, int64_t stride,
            int rows, float* c) {
  WithDecoder<Vector>(w.kind, [&]<class Decoder>() {
    const auto run = [&](auto kernel) { kernel(w, first_panel, panels, x, stride, rows, c); };
    if (rows == 1) return run(RunDirect<Vector, Decoder, 4, 1>);
    if (rows == 2) return run(RunDirect<Vector, Decoder, 4, 2>);
    if (rows <= 4) return run(RunDirect<Vector, Decoder, 4, 4>);
    if (rows <= 6) return run(RunDirect<Vector, Decoder, 2, 6>);
    run(RunDirect<Vector, Decoder, 2, 8>);
  });
}

}  // namespace

const MatMulOps kMatMulAvx512 = {
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
