// HostFetches: what the host wants of the card's memory. Copies to pinned memory are queued; Finish
// waits once for all of them and hands them out. The step's thread alone.
#pragma once

#include <cstddef>
#include <vector>

#include "kernels/cuda/pinned_memory.h"

namespace kvasir::cuda {

class HostFetches {
 public:
  // Pinned memory that is kept; what does not fit is handed out in parts, each with a wait.
  static constexpr size_t kMostBytes = size_t{64} << 20;

  explicit HostFetches(Stream stream) : stream_(stream) {}

  // Pinned memory for `bytes` until the next Finish.
  Result<char*> Stage(size_t bytes);
  // Finish copies `bytes` from `staged` to `to`.
  void HandOut(const char* staged, void* to, size_t bytes) {
    if (bytes > 0) wanted_.push_back({staged, static_cast<char*>(to), bytes});
  }
  // Whether something of [to, to + bytes) is yet to be handed out.
  bool IsWanted(const void* to, size_t bytes) const;
  bool empty() const { return wanted_.empty(); }
  Status Finish();
  // Nobody wants them any more.
  Status Forget();

 private:
  struct Wanted {
    const char* staged;
    char* to;
    size_t bytes;
  };
  // A slab with room for `bytes` behind the last one in use, or none.
  bool FindRoom(size_t bytes);
  Status AddSlab(size_t bytes);

  const Stream stream_;
  std::vector<PinnedMemory> slabs_;
  size_t slab_ = 0, used_ = 0;  // of the slab in use
  size_t bytes_ = 0;            // of all slabs
  std::vector<Wanted> wanted_;
};

}  // namespace kvasir::cuda
