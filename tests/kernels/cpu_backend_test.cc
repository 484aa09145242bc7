#include "kernels/cpu/cpu_backend.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "kernels/cpu/aligned_memory.h"
#include "kernels/cpu/roof.h"
#include "kernels/cpu/weight_arena.h"
#include "tests/kernels/random_weights.h"

namespace kvasir {
namespace {

// Sets KVASIR_ISA for one test.
class ForcedIsa {
 public:
  explicit ForcedIsa(const char* name) { setenv("KVASIR_ISA", name, 1); }
  ~ForcedIsa() { unsetenv("KVASIR_ISA"); }
};

TEST(CpuBackend, EveryIsaOfThisMachineCanBeForced) {
  for (Isa isa : SupportedIsas()) {
    auto by_option = CreateCpuBackend({.threads = 1, .isa = isa});
    ASSERT_TRUE(by_option.ok());
    EXPECT_EQ((*by_option)->name(), "cpu-" + std::string(IsaName(isa)));
    const ForcedIsa forced(std::string(IsaName(isa)).c_str());
    auto by_environment = CreateCpuBackend({.threads = 1});
    ASSERT_TRUE(by_environment.ok());
    EXPECT_EQ((*by_environment)->name(), (*by_option)->name());
  }
}

TEST(CpuBackend, RejectsWhatItCannotDo) {
  EXPECT_EQ(CreateCpuBackend({.threads = -1}).status().code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(CreateCpuBackend({.threads = 1025}).status().code(), StatusCode::kInvalidArgument);
  const ForcedIsa forced("sse9");
  const Status status = CreateCpuBackend({}).status();
  EXPECT_EQ(status.code(), StatusCode::kInvalidArgument);
  EXPECT_NE(status.message().find("sse9"), std::string::npos);
}

TEST(CpuBackend, BuffersRoundTrip) {
  auto backend = CreateCpuBackend({.threads = 1});
  ASSERT_TRUE(backend.ok());
  for (size_t bytes : {size_t{1}, size_t{1000}, size_t{3} << 20}) {
    auto buffer = (*backend)->Allocate(bytes);
    ASSERT_TRUE(buffer.ok());
    EXPECT_EQ(reinterpret_cast<uintptr_t>((*buffer)->data()) % 64, 0u);
    const std::vector<char> sent(bytes, 'k');
    std::vector<char> received(bytes);
    (*backend)->Upload(sent.data(), (*buffer)->data(), bytes);
    (*backend)->Download((*buffer)->data(), received.data(), bytes);
    EXPECT_EQ(sent, received);
  }
}

TEST(CpuBackend, PackedTableServesEmbedAndMatMul) {
  auto backend = CreateCpuBackend({.threads = 2});
  ASSERT_TRUE(backend.ok());
  std::mt19937 random(3);
  const std::vector<uint8_t> source = RandomWeights(DType::kQ8_0, 50, 64, random);
  auto table = (*backend)->Pack(DType::kQ8_0, source.data(), 50, 64);
  ASSERT_TRUE(table.ok());
  std::vector<float> row(64), logits(50);
  const std::vector<int32_t> ids = {49};
  (*backend)->Embed(**table, ids, 1.0f, F32View(row.data(), 1, 64));
  (*backend)->MatMul(F32View(row.data(), 1, 64), **table, nullptr, false,
                     F32View(logits.data(), 1, 50));
  double squares = 0;
  for (float value : row) squares += double{value} * value;
  EXPECT_NEAR(logits[49], squares, 64 * 0x1p-24 * squares);  // K roundings of positive terms
}

TEST(AlignedMemory, RefusesWhatCannotBe) {
  EXPECT_EQ(AlignedMemory::Allocate(SIZE_MAX).status().code(), StatusCode::kResourceExhausted);
  EXPECT_EQ(AlignedMemory::Allocate(SIZE_MAX / 4).status().code(), StatusCode::kResourceExhausted);
  auto nothing = AlignedMemory::Allocate(0);
  ASSERT_TRUE(nothing.ok());
  EXPECT_EQ(nothing->bytes(), 0u);
}

TEST(WeightArena, PartsAreAlignedApartAndOutliveTheArena) {
  std::vector<ArenaMemory> parts;
  {
    WeightArena arena;
    for (size_t bytes : {size_t{1}, size_t{100}, size_t{40} << 20, size_t{40} << 20, size_t{64}}) {
      auto part = arena.Allocate(bytes);
      ASSERT_TRUE(part.ok());
      std::memset(part->data, static_cast<int>(parts.size()), part->bytes);
      parts.push_back(*part);
    }
  }
  for (size_t i = 0; i < parts.size(); ++i) {
    EXPECT_EQ(reinterpret_cast<uintptr_t>(parts[i].data) % 64, 0u);
    EXPECT_EQ(parts[i].data[0], i);
    EXPECT_EQ(parts[i].data[parts[i].bytes - 1], i);
  }
}

TEST(Roof, MeasuresWhatTheMachineHas) {
  auto roof = MeasureRoof(1);
  ASSERT_TRUE(roof.ok());
  EXPECT_GT(roof->gflops_fp32, 0.0);
  EXPECT_GT(roof->dram_gbps, 0.0);
  const bool avx512 = SupportedIsas().back() == Isa::kAvx512;
  EXPECT_EQ(roof->gflops_bf16 > 0, avx512);
  EXPECT_EQ(roof->gops_int8 > 0, avx512);
  EXPECT_EQ(MeasureRoof(0).status().code(), StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace kvasir
