#include "kernels/cuda/step_tables.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <utility>

namespace kvasir::cuda {

StepTables::~StepTables() { FreeDeviceMemory(device_); }

Status StepTables::MakeRoom(const Contents& contents) {
  constexpr size_t kLeast = 256;  // and so every table's alignment
  bool grows = device_ == nullptr;
  size_t begin = 0;
  auto rooms = rooms_;  // they stay as they were where there is no memory for more
  for (size_t i = 0; i < contents.size(); ++i) {
    Room& room = rooms[i];
    const size_t wanted = std::bit_ceil(std::max(contents[i].size(), kLeast));
    grows |= wanted > room.bytes;
    room = {begin, std::max(room.bytes, wanted), contents[i].size()};
    begin += room.bytes;
  }
  if (!grows) {
    rooms_ = rooms;
    return Status::Ok();
  }
  ++layout_;
  bytes_ = 0;
  FreeDeviceMemory(std::exchange(device_, nullptr));
  KVASIR_ASSIGN_OR_RETURN(void* device, AllocateDeviceMemory(begin));
  device_ = static_cast<char*>(device);
  bytes_ = begin;
  rooms_ = rooms;
  return Status::Ok();
}

Status StepTables::Upload(const Contents& contents) {
  ++uploads_;
  KVASIR_RETURN_IF_ERROR(copied_.Await());
  KVASIR_RETURN_IF_ERROR(MakeRoom(contents));
  KVASIR_RETURN_IF_ERROR(source_.Reserve(bytes_));
  for (size_t i = 0; i < contents.size(); ++i) {
    if (contents[i].empty()) continue;
    std::memcpy(source_.data() + rooms_[i].begin, contents[i].data(), contents[i].size());
  }
  KVASIR_RETURN_IF_ERROR(CopyToDevice(device_, source_.data(), bytes_, stream_));
  return copied_.Record(stream_);
}

const int32_t* StepTables::Find(StepTable table, std::span<const int32_t> values) const {
  const Room& room = RoomOf(table);
  if (values.empty() || values.size_bytes() != room.used) return nullptr;
  if (device_ == nullptr || source_.bytes() < bytes_) return nullptr;  // an upload failed
  if (std::memcmp(source_.data() + room.begin, values.data(), room.used) != 0) return nullptr;
  return At<int32_t>(table);
}

}  // namespace kvasir::cuda
