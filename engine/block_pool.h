// BlockPool: who owns which block of a KvPool. Reference counts only; the KV itself lies in the
// backend's memory.
//
// A block is free (count 0) or has one reference per owner: a running sequence, a KvBlocks handle.
// A block with one owner may be written by it; a shared one is copied first (copy-on-write).
// Thread-safe. Handles made by Own may outlive the pool: they keep its books alive.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "kernels/core/kv_layout.h"

namespace kvasir {

class BlockPool {
 public:
  // Called with each block that loses its last reference, before it can be allocated again, from
  // the thread that drops it: debug builds poison the block's KV. May be empty.
  using FreedHook = std::function<void(int32_t block)>;

  explicit BlockPool(int32_t blocks, FreedHook freed = {});
  // Detaches the hook: handles that live longer only count.
  ~BlockPool();
  BlockPool(const BlockPool&) = delete;
  BlockPool& operator=(const BlockPool&) = delete;

  // `count` blocks with one reference each, or nullopt (and none taken) if fewer are free.
  std::optional<std::vector<int32_t>> Allocate(int32_t count);
  void Ref(std::span<const int32_t> ids);
  void Unref(std::span<const int32_t> ids);

  // A handle that takes over one reference on each of `ids`; `readiness` null: filled already.
  std::shared_ptr<const KvBlocks> Own(std::vector<int32_t> ids, int32_t tokens,
                                      std::shared_ptr<const KvReadiness> readiness = nullptr);
  // A handle with a new reference on each of `ids`, which must have owners.
  std::shared_ptr<const KvBlocks> Share(std::vector<int32_t> ids, int32_t tokens);

  // All `ids` exist and have an owner.
  bool AllOwned(std::span<const int32_t> ids) const;
  int32_t RefCount(int32_t block) const;
  int32_t total() const;
  int32_t free() const;

 private:
  struct Books;
  std::shared_ptr<Books> books_;
};

}  // namespace kvasir
