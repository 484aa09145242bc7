// KvReadiness: how many layers of a handle's blocks are filled while a loader fills them, in order
// from layer 0. KvFill: the loader's side of it.
//
// Thread-safe. Ready layers only grow; a failed load stays failed and grows no more.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>

#include "kernels/core/status.h"

namespace kvasir {

class KvBlocks;
struct KvLayerPlanes;

class KvReadiness {
 public:
  explicit KvReadiness(int32_t layers) : layers_(layers) {}

  // ---- readers
  bool Has(int32_t layers) const { return ready_.load(std::memory_order_acquire) >= layers; }
  bool complete() const { return Has(layers_); }
  bool failed() const { return failed_.load(std::memory_order_acquire); }
  // Waits until so many layers are there, the load has failed or the time is up; true = they are.
  bool WaitFor(int32_t layers, std::chrono::milliseconds most) const;

  // ---- the loader
  void Publish(int32_t layers);
  void Fail();

 private:
  const int32_t layers_;
  std::atomic<int32_t> ready_{0};
  std::atomic<bool> failed_{false};
  mutable std::mutex mutex_;
  mutable std::condition_variable changed_;
};

// A chunk's blocks while they are filled, one layer after the other. One thread at a time. What is
// not complete when this dies has failed.
class KvFill {
 public:
  virtual ~KvFill() = default;
  // May be handed out at once: readers wait for the layers that they need.
  virtual const std::shared_ptr<const KvBlocks>& blocks() const = 0;
  // The next layer. kInvalidArgument: planes that do not fit the blocks or the model.
  // kResourceExhausted: the device has no memory for it now; it is still the next one.
  virtual Status Load(const KvLayerPlanes& planes) = 0;
};

}  // namespace kvasir
