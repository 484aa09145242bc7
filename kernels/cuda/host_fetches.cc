#include "kernels/cuda/host_fetches.h"

#include <algorithm>
#include <cstring>

namespace kvasir::cuda {

bool HostFetches::FindRoom(size_t bytes) {
  for (; slab_ < slabs_.size(); ++slab_, used_ = 0) {
    if (used_ + bytes <= slabs_[slab_].bytes()) return true;
  }
  return false;
}

// Twice as large as the one before, so that there are few.
Status HostFetches::AddSlab(size_t bytes) {
  constexpr size_t kLeast = size_t{1} << 18;
  PinnedMemory slab;
  KVASIR_RETURN_IF_ERROR(slab.Reserve(std::max({bytes, kLeast, bytes_})));
  bytes_ += slab.bytes();
  slabs_.push_back(std::move(slab));
  slab_ = slabs_.size() - 1;
  used_ = 0;
  return Status::Ok();
}

Result<char*> HostFetches::Stage(size_t bytes) {
  const size_t rounded = (bytes + 255) / 256 * 256;
  if (!FindRoom(rounded)) {
    if (bytes_ + rounded > kMostBytes) KVASIR_RETURN_IF_ERROR(Finish());
    if (!FindRoom(rounded)) KVASIR_RETURN_IF_ERROR(AddSlab(rounded));
  }
  char* const staged = slabs_[slab_].data() + used_;
  used_ += rounded;
  return staged;
}

bool HostFetches::IsWanted(const void* to, size_t bytes) const {
  const auto* const begin = static_cast<const char*>(to);
  return std::any_of(wanted_.begin(), wanted_.end(), [&](const Wanted& wanted) {
    return wanted.to < begin + bytes && begin < wanted.to + wanted.bytes;
  });
}

Status HostFetches::Finish() {
  KVASIR_RETURN_IF_ERROR(Synchronize(stream_));
  for (const Wanted& wanted : wanted_) std::memcpy(wanted.to, wanted.staged, wanted.bytes);
  wanted_.clear();
  slab_ = used_ = 0;
  return Status::Ok();
}

Status HostFetches::Forget() {
  if (wanted_.empty()) return Status::Ok();
  wanted_.clear();
  return Finish();
}

}  // namespace kvasir::cuda
