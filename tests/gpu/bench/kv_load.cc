// KV of chunks from pinned memory into the pool: dequantised, turned, scattered.
#include <numeric>
#include <vector>

#include "tests/gpu/bench/card.h"
#include "tests/gpu/bench/kv_planes.h"

namespace kvasir::bench {

Status RunKvLoads(Bench& bench) {
  const KvLayout layout =
      bench.smoke ? KvLayout{2, 1, 64, DType::kBF16} : KvLayout{32, 8, 128, DType::kBF16};
  KVASIR_ASSIGN_OR_RETURN(const std::shared_ptr<Backend> backend, OpenCard(CudaCompute::kBf16));
  KVASIR_ASSIGN_OR_RETURN(const Finisher finisher, Finisher::Create(*backend));
  const RopeTable rope = RopeTable::Plain(RopePairing::kHalfSplit, layout.head_dim, 500000);
  for (const int32_t tokens :
       bench.smoke ? std::vector<int32_t>{40} : std::vector<int32_t>{256, 512, 2048, 8192}) {
    KVASIR_ASSIGN_OR_RETURN(const KvPlanes planes, KvPlanes::Pinned(layout, tokens, 23));
    KVASIR_ASSIGN_OR_RETURN(const std::unique_ptr<KvPool> pool,
                            backend->CreateKvPool(layout, BlocksFor(tokens)));
    std::vector<int32_t> blocks(static_cast<size_t>(BlocksFor(tokens)));
    std::iota(blocks.begin(), blocks.end(), 0);
    const auto load = [&]() -> Status {
      for (int32_t layer = 0; layer < layout.layers; ++layer) {
        KVASIR_RETURN_IF_ERROR(
            backend->LoadKv(*pool, layer, planes.Layer(layer, tokens), blocks, &rope));
      }
      return Status::Ok();
    };
    KVASIR_ASSIGN_OR_RETURN(const double seconds,
                            TimeOf(bench, load, [&] { return finisher.Finish(); }));
    bench.report.AddRate("INT8 chunk of " + std::to_string(tokens) + " tokens", planes.bytes(),
                         seconds, "GB/s");
  }
  return Status::Ok();
}

}  // namespace kvasir::bench
