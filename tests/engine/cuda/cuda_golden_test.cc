// A real model on the emulated card, in fp32, against an independent implementation
// (tests/golden/). Of all twenty prompts: kvasir_gpu_bench_emulated (kernels/cuda/README.md).
#include "kernels/cuda/cuda_backend.h"
#include "tests/engine/golden_fixture.h"

namespace kvasir {
namespace {

using CudaGoldenTest = test::GoldenTest;

TEST_F(CudaGoldenTest, SmolLm2Q4_1) {
  auto backend = CreateCudaBackend({.compute = CudaCompute::kF32});
  ASSERT_TRUE(backend.ok()) << backend.status().ToString();
  ASSERT_NO_FATAL_FAILURE(Load("SmolLM2-135M-Instruct.Q4_1.gguf", *std::move(backend)));
  if (IsSkipped()) return;
  KeepShortest(2, 12);
  Run();
}

}  // namespace
}  // namespace kvasir
