// clang-format off
#include "kernels/cpu/simd_avx2.h"  // the instruction set comes first
#include "kernels/cpu/kv_kernels.h"
// clang-format on

namespace kvasir {
namespace {

void PackKTile(const KvTile& tile, const float* scratch, void* k_tile) {
  PackTileByValue(tile, scratch, /*keys=*/true, k_tile);
}

void PackVTile(const KvTile& tile, const float* scratch, void* v_tile) {
  PackTileByValue(tile, scratch, /*keys=*/false, v_tile);
}

}  // namespace

const KvOps kKvAvx2 = kKvTable;

}  // namespace kvasir
