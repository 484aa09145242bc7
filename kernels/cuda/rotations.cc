#include "kernels/cuda/rotations.h"

#include <algorithm>

namespace kvasir::cuda {

RotationTables::~RotationTables() {
  for (const Entry& entry : entries_) FreeDeviceMemory(entry.table);
  for (void* table : outgrown_) FreeDeviceMemory(table);
}

RotationTables::Entry& RotationTables::EntryOf(const RopeTable& rope) {
  for (Entry& entry : entries_) {
    const RopeTable& have = entry.rope;
    if (have.pairing == rope.pairing && have.inv_freq == rope.inv_freq &&
        have.magnitude == rope.magnitude) {
      return entry;
    }
  }
  return entries_.emplace_back(Entry{rope, 0, nullptr});
}

Status RotationTables::Grow(Entry& entry, int64_t positions, Stream stream) {
  const int64_t wanted = std::max({expected_, positions, 2 * entry.positions});
  const size_t half = entry.rope.inv_freq.size();
  std::vector<float> pairs(static_cast<size_t>(wanted) * half * 2), cos(half), sin(half);
  for (int64_t p = 0; p < wanted; ++p) {
    entry.rope.CosSin(p, cos.data(), sin.data());
    float* const row = pairs.data() + static_cast<size_t>(p) * half * 2;
    for (size_t j = 0; j < half; ++j) row[2 * j] = cos[j], row[2 * j + 1] = sin[j];
  }
  KVASIR_ASSIGN_OR_RETURN(void* table, AllocateDeviceMemory(pairs.size() * sizeof(float)));
  if (entry.table != nullptr) outgrown_.push_back(entry.table);
  entry.table = table;
  ++version_;
  entry.positions = wanted;
  KVASIR_RETURN_IF_ERROR(CopyToDevice(table, pairs.data(), pairs.size() * sizeof(float), stream));
  return Synchronize(stream);  // other streams may read it next
}

void RotationTables::Expect(int64_t positions) {
  const std::lock_guard lock(mutex_);
  expected_ = std::max(expected_, positions);
}

Status RotationTables::Cover(int64_t positions, Stream stream) {
  const std::lock_guard lock(mutex_);
  for (Entry& entry : entries_) {
    if (positions > entry.positions) KVASIR_RETURN_IF_ERROR(Grow(entry, positions, stream));
  }
  return Status::Ok();
}

uint64_t RotationTables::version() {
  const std::lock_guard lock(mutex_);
  return version_;
}

Result<RotationView> RotationTables::Get(const RopeTable* rope, int64_t positions, Stream stream) {
  if (rope == nullptr || rope->inv_freq.empty()) return RotationView{};
  const std::lock_guard lock(mutex_);
  Entry& entry = EntryOf(*rope);
  if (positions > entry.positions) KVASIR_RETURN_IF_ERROR(Grow(entry, positions, stream));
  return RotationView{entry.table, static_cast<int32_t>(rope->inv_freq.size()),
                      rope->pairing == RopePairing::kInterleaved};
}

}  // namespace kvasir::cuda
