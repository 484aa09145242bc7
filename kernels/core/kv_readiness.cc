#include "kernels/core/kv_readiness.h"

namespace kvasir {

bool KvReadiness::WaitFor(int32_t layers, std::chrono::milliseconds most) const {
  if (Has(layers)) return true;
  std::unique_lock lock(mutex_);
  changed_.wait_for(lock, most, [&] { return Has(layers) || failed(); });
  return Has(layers);
}

// The mutex is taken so that nobody who has just looked goes to sleep on it.
void KvReadiness::Publish(int32_t layers) {
  {
    const std::lock_guard lock(mutex_);
    if (failed() || Has(layers)) return;
    ready_.store(layers, std::memory_order_release);
  }
  changed_.notify_all();
}

void KvReadiness::Fail() {
  {
    const std::lock_guard lock(mutex_);
    if (complete()) return;
    failed_.store(true, std::memory_order_release);
  }
  changed_.notify_all();
}

}  // namespace kvasir
