#include "kernels/cuda/loader/cuda_loader.h"

#include <dlfcn.h>
#include <unistd.h>

#include <climits>
#include <cstdlib>
#include <mutex>
#include <string>
#include <vector>

#include "kernels/cuda/loader/cuda_entry.h"

namespace kvasir {
namespace {

constexpr char kName[] = "libkvasir_kernels_cuda.so";

std::string ProgramFolder() {
  char path[PATH_MAX];
  const ssize_t length = readlink("/proc/self/exe", path, sizeof path);
  if (length <= 0) return ".";
  const std::string whole(path, static_cast<size_t>(length));
  return whole.substr(0, whole.rfind('/'));
}

// "" if none is named.
std::string NamedLibrary() {
  const char* const named = std::getenv("KVASIR_CUDA_LIBRARY");
  return named == nullptr ? "" : named;
}

std::vector<std::string> Candidates() {
  const std::string named = NamedLibrary();
  if (!named.empty()) return {named};
  return {ProgramFolder() + "/" + kName, kName};
}

// The library says so too, but only once it and cuBLASLt, hundreds of megabytes, are loaded. Kept
// open: the library will want it.
Status CheckDriver() {
  if (dlopen("libcuda.so.1", RTLD_LAZY | RTLD_LOCAL) != nullptr) return Status::Ok();
  const char* const why = dlerror();
  return NotFound(std::string("no CUDA device: no NVIDIA driver is installed (") + why + ")");
}

template <typename Function>
Status Find(void* library, const char* name, Function* function) {
  *function = reinterpret_cast<Function>(dlsym(library, name));
  if (*function != nullptr) return Status::Ok();
  return Unavailable(std::string("the CUDA library lacks ") + name +
                     "; it belongs to another build of Kvasir");
}

Result<CudaCreateFunction> CreatorIn(void* library) {
  CudaAbiFunction abi = nullptr;
  KVASIR_RETURN_IF_ERROR(Find(library, "kvasir_cuda_abi", &abi));
  if (abi() != kCudaAbi) {
    return Unavailable("the CUDA library belongs to another build of Kvasir: rebuild it");
  }
  CudaCreateFunction create = nullptr;
  KVASIR_RETURN_IF_ERROR(Find(library, "kvasir_cuda_create", &create));
  return create;
}

Result<CudaCreateFunction> Open() {
  if (NamedLibrary().empty()) KVASIR_RETURN_IF_ERROR(CheckDriver());
  std::string tried;
  for (const std::string& candidate : Candidates()) {
    void* const library = dlopen(candidate.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (library != nullptr) return CreatorIn(library);
    tried.append(tried.empty() ? "" : "; ").append(dlerror());
  }
  return NotFound("no CUDA backend: " + tried + ". Build with nvcc on the path, or name the " +
                  "library in KVASIR_CUDA_LIBRARY");
}

// Opened once, and again where another library is named; a failure is tried again by the next call.
Result<CudaCreateFunction> Opened() {
  static std::mutex mutex;
  static CudaCreateFunction create = nullptr;
  static std::vector<std::string> from;
  const std::lock_guard lock(mutex);
  if (create == nullptr || from != Candidates()) {
    from = Candidates();
    create = nullptr;
    KVASIR_ASSIGN_OR_RETURN(create, Open());
  }
  return create;
}

}  // namespace

Result<std::unique_ptr<Backend>> LoadCudaBackend(const CudaOptions& options) {
  KVASIR_ASSIGN_OR_RETURN(const CudaCreateFunction create, Opened());
  Result<std::unique_ptr<Backend>> result = Internal("the CUDA library gave no answer");
  create(&options, &result);
  return result;
}

}  // namespace kvasir
