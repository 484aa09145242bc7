// RotationTables: cos and sin of RopeTables by position in device memory, computed once on the host
// in double and kept. Made for as many positions as are expected, and anew for twice as many where
// that was too few.
//
// Thread-safe. Views stay valid as long as this object: what a table outgrew is kept.
#pragma once

#include <cstdint>
#include <mutex>
#include <vector>

#include "kernels/core/rope.h"
#include "kernels/cuda/device.h"

namespace kvasir::cuda {

struct RotationView {
  const void* table = nullptr;  // pairs (cos, sin) of fp32, [positions][half]
  int32_t half = 0;             // 0 = nothing turns
  bool interleaved = false;
};

class RotationTables {
 public:
  RotationTables() = default;
  ~RotationTables();
  RotationTables(const RotationTables&) = delete;
  RotationTables& operator=(const RotationTables&) = delete;

  // Tables made from now on have at least so many positions.
  void Expect(int64_t positions);
  // Gives every table so many positions.
  Status Cover(int64_t positions, Stream stream);
  // While it stays, views stay complete: no table has grown.
  uint64_t version();
  // Positions 0..positions-1 of `rope`; null = nothing turns.
  Result<RotationView> Get(const RopeTable* rope, int64_t positions, Stream stream);

 private:
  struct Entry {
    RopeTable rope;
    int64_t positions = 0;
    void* table = nullptr;
  };
  Entry& EntryOf(const RopeTable& rope);
  Status Grow(Entry& entry, int64_t positions, Stream stream);

  std::mutex mutex_;
  int64_t expected_ = 1024;
  std::vector<Entry> entries_;  // a model has one or two
  std::vector<void*> outgrown_;
  uint64_t version_ = 0;
};

}  // namespace kvasir::cuda
