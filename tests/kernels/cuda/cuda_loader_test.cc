// The CUDA backend as programs find it: what happens where there is no library, a wrong one, no
// driver or no card. Runs on any machine.
#include "kernels/cuda/loader/cuda_loader.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <string>

namespace kvasir {
namespace {

class NamedLibrary {
 public:
  explicit NamedLibrary(const char* path) { setenv("KVASIR_CUDA_LIBRARY", path, 1); }
  ~NamedLibrary() { unsetenv("KVASIR_CUDA_LIBRARY"); }
};

TEST(CudaLoader, NoLibraryIsNotFoundAndSaysWhatToDo) {
  const NamedLibrary named("/nowhere/libkvasir_kernels_cuda.so");
  const Status status = LoadCudaBackend({}).status();
  EXPECT_EQ(status.code(), StatusCode::kNotFound);
  EXPECT_NE(status.message().find("/nowhere/"), std::string::npos) << status.message();
  EXPECT_NE(status.message().find("KVASIR_CUDA_LIBRARY"), std::string::npos);
}

TEST(CudaLoader, AnotherLibraryIsRefused) {
  const NamedLibrary named("libm.so.6");
  const Status status = LoadCudaBackend({}).status();
  EXPECT_EQ(status.code(), StatusCode::kUnavailable);
  EXPECT_NE(status.message().find("another build"), std::string::npos) << status.message();
}

#if defined(KVASIR_BUILT_CUDA_LIBRARY)
// The library loads without a driver; what it says then is for the user.
TEST(CudaLoader, TheBuiltLibraryWorksOrSaysWhyNot) {
  const NamedLibrary named(KVASIR_BUILT_CUDA_LIBRARY);
  auto backend = LoadCudaBackend({});
  if (backend.ok()) {
    EXPECT_EQ((*backend)->name(), "cuda-bf16");
    EXPECT_TRUE((*backend)->status().ok());
    return;
  }
  EXPECT_NE(backend.status().message().find("CUDA device"), std::string::npos)
      << backend.status().message();
}
#endif

}  // namespace
}  // namespace kvasir
