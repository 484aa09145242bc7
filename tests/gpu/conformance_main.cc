// The conformance suite over the card of this machine.
//   kvasir_gpu_conformance [PART OF A NAME]
#include <cstdio>

#include "gtest/gtest.h"
#include "kernels/cuda/device.h"

int main(int argc, char** argv) {
  const auto device = kvasir::cuda::OpenDevice();
  if (!device.ok()) {
    std::printf("no CUDA device: skipped (%s)\n", device.status().message().c_str());
    return 0;
  }
  std::printf("%s\n", device->name.c_str());
  return testing::RunAll(argc > 1 ? argv[1] : "");
}
