// StepTables: the integers of a step on the card: ids, positions, slots, attention's tables. They
// are gathered in pinned memory and copied as one, so that a step has one upload and waits for
// none.
//
// Every table has a room, a power of two that only grows, so that it stays where it is from step to
// step, and what was recorded of a step stays right, until layout() changes. The step's thread
// alone.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

#include "kernels/cuda/pinned_memory.h"

namespace kvasir::cuda {

enum class StepTable : uint8_t {
  kTokens,
  kPositions,
  kLocalPositions,
  kSlots,
  kLogitRows,
  kSegments,
  kScales,
  kPieces,
  kTiles,
  kSmallUnits,
  kLargeUnits,
  kMerges,
  kBlockTable,
};
inline constexpr size_t kStepTableCount = 13;

class StepTables {
 public:
  explicit StepTables(Stream stream) : stream_(stream) {}
  ~StepTables();
  StepTables(const StepTables&) = delete;
  StepTables& operator=(const StepTables&) = delete;

  using Contents = std::array<std::span<const std::byte>, kStepTableCount>;
  Status Upload(const Contents& contents);

  // How often tables were uploaded: while it stays, they are those of its last upload.
  uint64_t uploads() const { return uploads_; }
  // Changes when addresses do.
  uint64_t layout() const { return layout_; }
  template <typename T>
  const T* At(StepTable table) const {
    return reinterpret_cast<const T*>(device_ + RoomOf(table).begin);
  }
  // The table's address if it holds these values, else null.
  const int32_t* Find(StepTable table, std::span<const int32_t> values) const;

 private:
  struct Room {
    size_t begin = 0, bytes = 0, used = 0;
  };
  const Room& RoomOf(StepTable table) const { return rooms_[static_cast<size_t>(table)]; }
  Status MakeRoom(const Contents& contents);

  const Stream stream_;
  std::array<Room, kStepTableCount> rooms_;
  PinnedMemory source_;
  EventOwner copied_;  // source_ may be written again
  char* device_ = nullptr;
  size_t bytes_ = 0;
  uint64_t uploads_ = 0, layout_ = 0;
};

}  // namespace kvasir::cuda
