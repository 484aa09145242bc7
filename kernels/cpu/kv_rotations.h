// Rotations: cos and sin of one RopeTable at positions 0..n-1, in the order in which rows are
// turned; RotationCache: keeps them, so that no operator computes an angle twice.
//
// Rotations are immutable and shared; RotationCache is thread-safe.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

#include "kernels/core/rope.h"
#include "kernels/cpu/kv_ops.h"

namespace kvasir {

class Rotations {
 public:
  // The rotation by `position`, 0 <= position < positions(). Valid as long as this object.
  Rotation At(int64_t position) const;
  int64_t positions() const { return static_cast<int64_t>(pages_.size()) * kPagePositions; }

 private:
  friend class RotationCache;
  static constexpr int64_t kPagePositions = 256;
  using Page = std::vector<float>;  // [kPagePositions][cos, sin][dims]

  bool interleaved_ = false;
  int32_t dims_ = 0;
  std::vector<std::shared_ptr<const Page>> pages_;
};

class RotationCache {
 public:
  // At least positions 0..positions-1 of `rope`, a null `rope` = no rotation.
  std::shared_ptr<const Rotations> Get(const RopeTable* rope, int64_t positions);

 private:
  struct Entry {
    RopeTable rope;
    std::shared_ptr<const Rotations> rotations;
  };
  Entry& EntryOf(const RopeTable& rope);

  std::mutex mutex_;
  std::vector<Entry> entries_;  // a model has one or two tables
};

}  // namespace kvasir
