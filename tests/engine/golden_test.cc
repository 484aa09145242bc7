// Real models on the CPU backend against an independent implementation (tests/golden/).
#include "kernels/cpu/cpu_backend.h"
#include "tests/engine/golden_fixture.h"

namespace kvasir {
namespace {

using GoldenTest = test::GoldenTest;

std::unique_ptr<Backend> Cpu() {
  auto backend = CreateCpuBackend({});
  KVASIR_CHECK(backend.ok());
  return *std::move(backend);
}

TEST_F(GoldenTest, SmolLm2Q4_1) {
  ASSERT_NO_FATAL_FAILURE(Load("SmolLM2-135M-Instruct.Q4_1.gguf", Cpu()));
  if (!IsSkipped()) Run();
}

TEST_F(GoldenTest, Gemma3Q4_K_M) {
  ASSERT_NO_FATAL_FAILURE(Load("gemma-3-270m-q4_k_m.gguf", Cpu()));
  if (!IsSkipped()) Run();
}

}  // namespace
}  // namespace kvasir
