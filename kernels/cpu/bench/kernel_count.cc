// kvasir_kernel_count [isa [int8|f32]]: every hot kernel once or a few times on one thread, always
// the same work, for tools that count instructions (tests/peers/instructions.py): a machine's noise
// does not show in those.
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "kernels/core/backend.h"
#include "kernels/cpu/bench/random_source.h"
#include "kernels/cpu/cpu_backend.h"

namespace kvasir {
namespace {

constexpr int64_t kInputs = 576, kOutputs = 576;
constexpr int32_t kKeys = 512, kHeadDim = 64, kGroup = 3;

std::vector<float> Floats(int64_t count, std::mt19937& random) {
  std::vector<float> values(static_cast<size_t>(count));
  for (float& value : values) value = static_cast<float>(random() % 2001) * 1e-3f - 1.0f;
  return values;
}

std::unique_ptr<PackedWeight> Weight(Backend& backend, DType dtype, std::mt19937& random) {
  const std::vector<uint8_t> source = RandomSource(dtype, kInputs * kOutputs, random);
  auto packed = backend.Pack(dtype, source.data(), kOutputs, kInputs);
  KVASIR_CHECK(packed.ok());
  return std::move(*packed);
}

void CountProducts(Backend& backend, std::mt19937& random) {
  for (const DType dtype : {DType::kQ4_1, DType::kQ8_0, DType::kBF16, DType::kF16}) {
    const auto weight = Weight(backend, dtype, random);
    for (const int64_t rows : {1, 8, 64}) {
      std::vector<float> x = Floats(rows * kInputs, random), out(size_t(rows * kOutputs));
      backend.MatMul(F32View(x.data(), rows, kInputs), *weight, nullptr, false,
                     F32View(out.data(), rows, kOutputs));
    }
  }
}

void CountRows(Backend& backend, std::mt19937& random) {
  std::vector<float> x = Floats(16 * kInputs, random), y = x;
  const std::vector<float> weight = Floats(kInputs, random);
  const TensorView view = F32View(x.data(), 16, kInputs);
  backend.Norm(NormKind::kRms, view, kInputs, weight.data(), nullptr, 1e-5f, view);
  backend.Activate(ActivationKind::kSilu, view, F32View(y.data(), 16, kInputs), view);
}

// The last `rows` rows of one sequence of kKeys.
void CountAttention(Backend& backend, DType pool_dtype, int32_t rows, std::mt19937& random) {
  auto pool = std::move(*backend.CreateKvPool({1, 1, kHeadDim, pool_dtype}, BlocksFor(kKeys)));
  const RopeTable rope = RopeTable::Plain(RopePairing::kInterleaved, kHeadDim, 10000);
  StepBatch batch;
  batch.segments = {{0, kKeys, 0}};
  batch.block_table.resize(size_t(BlocksFor(kKeys)));
  std::iota(batch.block_table.begin(), batch.block_table.end(), 0);
  batch.sequences = {{0, rows, 0, 1, {}}};
  for (int32_t position = kKeys - rows; position < kKeys; ++position) {
    batch.token_ids.push_back(0);
    batch.positions.push_back(position);
    batch.local_positions.push_back(position);
    batch.slots.push_back(position);
  }
  std::vector<float> k = Floats(int64_t{kKeys} * kHeadDim, random), v = k;
  const KvLayerPlanes planes{DType::kF32, kKeys, k.data(), nullptr, v.data(), nullptr};
  KVASIR_CHECK(backend.LoadKv(*pool, 0, planes, batch.block_table, &rope).ok());
  std::vector<float> q = Floats(rows * kGroup * kHeadDim, random), out(q.size());
  const auto plan = backend.PlanAttention(batch);
  AttentionArgs args;
  args.pool = pool.get();
  args.q = F32View(q.data(), rows, kGroup * kHeadDim);
  args.scale = 0.125f;
  args.rope = &rope;
  args.batch = &batch;
  args.plan = plan.get();
  args.out = F32View(out.data(), rows, kGroup * kHeadDim);
  backend.Attention(args);
}

int Run(const std::string& isa_name, bool int8) {
  CpuOptions options;
  options.threads = 1;
  options.compute = int8 ? ComputeType::kInt8 : ComputeType::kF32;
  for (const Isa isa : SupportedIsas()) {
    if (isa_name.empty() || IsaName(isa) == isa_name) options.isa = isa;
  }
  auto backend = CreateCpuBackend(options);
  if (!backend.ok()) {
    std::fprintf(stderr, "%s\n", backend.status().message().c_str());
    return 1;
  }
  std::mt19937 random(1);
  CountProducts(**backend, random);
  CountRows(**backend, random);
  for (const DType pool : {DType::kBF16, DType::kI8}) {
    CountAttention(**backend, pool, 1, random);
    CountAttention(**backend, pool, 16, random);
  }
  std::printf("%s\n", std::string((*backend)->name()).c_str());
  return 0;
}

}  // namespace
}  // namespace kvasir

int main(int argc, char** argv) {
  return kvasir::Run(argc > 1 ? argv[1] : "", argc <= 2 || std::strcmp(argv[2], "f32") != 0);
}
