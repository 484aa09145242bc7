// kvasir_kernel_bench [threads [isa [int8|f32 [q4|bf16|f16]]]]: rates of the matrix products on the
// shapes of SmolLM2-135M (random values; q4: Q4_1 layers, Q8_0 output head), beside the roofs
// measured in the same run.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <vector>

#include "kernels/core/thread_pool.h"
#include "kernels/cpu/bench/random_source.h"
#include "kernels/cpu/block_matmul.h"
#include "kernels/cpu/cpu_backend.h"
#include "kernels/cpu/matmul.h"
#include "kernels/cpu/pack.h"
#include "kernels/cpu/roof.h"

namespace kvasir {
namespace {

struct Shape {
  int64_t n, k;
};
constexpr Shape kLayer[] = {{576, 576},  {192, 576},  {192, 576}, {576, 576},
                            {1536, 576}, {1536, 576}, {576, 1536}};
constexpr Shape kHead = {49152, 576};
constexpr int kLayers = 30;

struct WeightTypes {
  const char* name;
  DType layer, head;
};
constexpr WeightTypes kWeightTypes[] = {{"q4", DType::kQ4_1, DType::kQ8_0},
                                        {"bf16", DType::kBF16, DType::kBF16},
                                        {"f16", DType::kF16, DType::kF16}};

using Weight = std::unique_ptr<CpuPackedWeight>;

struct Bench {
  ThreadPool& threads;
  MatrixMultiplier multiplier;
  std::optional<Int8Multiplier> int8;
  std::optional<Bf16Multiplier> bf16;
  Roof roof;
  WeightTypes types;
  std::mt19937 random{1};
  std::vector<float> x{}, out{};
  WeightArena arena{};

  Weight MakeWeight(DType dtype, const Shape& shape) {
    const std::vector<uint8_t> source = RandomSource(dtype, shape.n * shape.k, random);
    auto packed = PackMatrix(arena, threads, dtype, source.data(), shape.n, shape.k);
    KVASIR_CHECK(packed.ok());
    return std::move(*packed);
  }

  void Multiply(const CpuPackedWeight& w, int64_t rows) {
    const TensorView in = F32View(x.data(), rows, w.inputs());
    const Projection projection{&w, nullptr, F32View(out.data(), rows, w.outputs())};
    if (UsesInt8()) return int8->MatMul(in, nullptr, {&projection, 1}, false);
    if (UsesBf16()) return bf16->MatMul(in, nullptr, {&projection, 1}, false);
    multiplier.MatMul(in, w, nullptr, false, projection.out);
  }
  // Of the arithmetic at hand, 1e9 operations a second.
  double compute_roof() const {
    return UsesInt8() ? roof.gops_int8 : UsesBf16() ? roof.gflops_bf16 : roof.gflops_fp32;
  }
  bool UsesInt8() const { return int8.has_value() && TraitsOf(types.layer).block_elements > 1; }
  bool UsesBf16() const { return bf16.has_value() && TraitsOf(types.layer).block_elements == 1; }

  // FNV-1a over the bits of the first `count` results.
  uint32_t Hash(int64_t count) const {
    uint32_t hash = 2166136261u;
    for (int64_t i = 0; i < count; ++i) {
      uint32_t bits;
      std::memcpy(&bits, &out[static_cast<size_t>(i)], sizeof bits);
      hash = (hash ^ bits) * 16777619u;
    }
    return hash;
  }
};

// Seconds of the fastest call, over about 0.2 s: other load on the machine only slows calls, and
// the roof is taken in the same way.
double BestSeconds(const std::function<void()>& call) {
  using Clock = std::chrono::steady_clock;
  double best = 1e30, spent = 0;
  call();
  for (int calls = 0; spent < 0.2 || calls < 5; ++calls) {
    const auto begin = Clock::now();
    call();
    const double seconds = std::chrono::duration<double>(Clock::now() - begin).count();
    best = std::min(best, seconds);
    spent += seconds;
  }
  return best;
}

// One matrix in cache, many rows: what prefill pays.
void BenchShapes(Bench& bench) {
  std::printf("\n%-18s %6s %10s %7s  %s\n", "product", "rows", "GFLOP/s", "roof %", "hash");
  for (const Shape& shape : {kLayer[0], kLayer[1], kLayer[4], kLayer[6]}) {
    const Weight w = bench.MakeWeight(bench.types.layer, shape);
    for (int64_t rows : {1, 4, 8, 12, 16, 30, 64, 128, 512}) {
      const double seconds = BestSeconds([&] { bench.Multiply(*w, rows); });
      const double gflops = 2e-9 * static_cast<double>(rows * shape.n * shape.k) / seconds;
      const std::string name = std::to_string(shape.n) + " <- " + std::to_string(shape.k);
      std::printf("%-18s %6ld %10.1f %6.1f%%  %08x\n", name.c_str(), static_cast<long>(rows),
                  gflops, 100 * gflops / bench.compute_roof(), bench.Hash(rows * shape.n));
    }
  }
}

// All weights of the model in order, as a step reads them: what decode and prefill pay. The head
// is taken for at most 16 rows, as only sampled rows need it.
void BenchModel(Bench& bench) {
  std::vector<Weight> weights;
  double bytes = 0, flops = 0;
  for (int layer = 0; layer < kLayers; ++layer) {
    for (const Shape& shape : kLayer) weights.push_back(bench.MakeWeight(bench.types.layer, shape));
  }
  for (const Weight& w : weights) {
    bytes += static_cast<double>(w->bytes());
    flops += 2.0 * static_cast<double>(w->outputs() * w->inputs());
  }
  const Weight head = bench.MakeWeight(bench.types.head, kHead);
  const double head_bytes = static_cast<double>(head->bytes());
  const double head_flops = 2.0 * static_cast<double>(head->outputs() * head->inputs());
  std::printf("\nall weights: layers %.1f MB, head %.1f MB as packed\n", bytes * 1e-6,
              head_bytes * 1e-6);
  std::printf("%6s %9s %9s %8s %8s %10s %7s\n", "rows", "ms", "rows/s", "GB/s", "roof %", "GFLOP/s",
              "roof %");
  for (int64_t rows : {1, 2, 3, 4, 6, 8, 12, 16, 30, 64, 512}) {
    const int64_t head_rows = rows <= 16 ? rows : 1;
    const double seconds = BestSeconds([&] {
      for (const Weight& w : weights) bench.Multiply(*w, rows);
      bench.Multiply(*head, head_rows);
    });
    const double gbps = (bytes + head_bytes) / seconds * 1e-9;
    const double gflops =
        (flops * static_cast<double>(rows) + head_flops * static_cast<double>(head_rows)) /
        seconds * 1e-9;
    std::printf("%6ld %9.3f %9.0f %8.1f %7.1f%% %10.1f %6.1f%%\n", static_cast<long>(rows),
                seconds * 1e3, static_cast<double>(rows) / seconds, gbps,
                100 * gbps / bench.roof.dram_gbps, gflops, 100 * gflops / bench.compute_roof());
  }
}

Isa IsaNamed(const char* name) {
  for (Isa isa : SupportedIsas()) {
    if (IsaName(isa) == name) return isa;
  }
  return SupportedIsas().back();
}

const WeightTypes& TypesNamed(const char* name) {
  for (const WeightTypes& types : kWeightTypes) {
    if (std::strcmp(types.name, name) == 0) return types;
  }
  return kWeightTypes[0];
}

int Run(int thread_count, Isa isa, bool with_int8, const WeightTypes& types) {
  ThreadPool threads(thread_count);
  Result<Roof> roof = MeasureRoof(thread_count);
  auto multiplier = MatrixMultiplier::Create(MatMulOpsFor(isa), threads);
  if (!roof.ok() || !multiplier.ok()) {
    std::fprintf(stderr, "%s%s\n", roof.status().message().c_str(),
                 multiplier.status().message().c_str());
    return 1;
  }
  std::printf(
      "isa %s, threads %d, weights %s\nroof: fp32 %.0f GFLOP/s, bf16 %.0f GFLOP/s, int8 %.0f "
      "GOP/s, "
      "DRAM %.1f GB/s\n",
      std::string(IsaName(isa)).c_str(), thread_count, types.name, roof->gflops_fp32,
      roof->gflops_bf16, roof->gops_int8, roof->dram_gbps);
  std::optional<Int8Multiplier> int8;
  if (with_int8) {
    auto created = Int8Multiplier::Create(Int8OpsFor(isa), MatMulOpsFor(isa), threads);
    if (created.ok()) int8 = std::move(*created);
  }
  std::optional<Bf16Multiplier> bf16;
  if (const Bf16Ops* const ops = Bf16OpsFor(isa); with_int8 && ops != nullptr) {
    auto created = Bf16Multiplier::Create(*ops, MatMulOpsFor(isa), threads);
    if (created.ok()) bf16 = std::move(*created);
  }
  Bench bench{threads, std::move(*multiplier), std::move(int8), std::move(bf16), *roof, types};
  std::normal_distribution<float> normal;
  bench.x.resize(512 * 1536);
  for (float& value : bench.x) value = normal(bench.random);
  bench.out.resize(512 * 1536 + 16 * 49152);
  if (!getenv("NOSHAPES")) BenchShapes(bench);
  BenchModel(bench);
  return 0;
}

}  // namespace
}  // namespace kvasir

int main(int argc, char** argv) {
  const int threads = argc > 1 ? std::max(1, std::atoi(argv[1])) : 2;
  const kvasir::Isa isa = argc > 2 ? kvasir::IsaNamed(argv[2]) : kvasir::SupportedIsas().back();
  const bool int8 = argc <= 3 || std::strcmp(argv[3], "f32") != 0;
  return kvasir::Run(threads, isa, int8, kvasir::TypesNamed(argc > 4 ? argv[4] : "q4"));
}
