#include "engine/block_pool.h"

#include <mutex>
#include <shared_mutex>
#include <utility>

#include "kernels/core/status.h"

namespace kvasir {

struct BlockPool::Books {
  Books(int32_t blocks, FreedHook hook) : freed(std::move(hook)), counts(size_t(blocks), 0) {
    free.reserve(size_t(blocks));
    for (int32_t block = blocks - 1; block >= 0; --block) free.push_back(block);
  }

  // Blocks whose last reference went are neither owned nor free while the hook runs.
  void Unref(std::span<const int32_t> ids) {
    const std::vector<int32_t> dead = Drop(ids);
    if (dead.empty()) return;
    {
      const std::shared_lock hold(hook_mutex);
      if (freed) {
        for (const int32_t block : dead) freed(block);
      }
    }
    const std::lock_guard lock(mutex);
    free.insert(free.end(), dead.begin(), dead.end());
  }

  std::vector<int32_t> Drop(std::span<const int32_t> ids) {
    std::vector<int32_t> dead;
    const std::lock_guard lock(mutex);
    for (const int32_t block : ids) {
      int32_t& count = counts.at(size_t(block));
      KVASIR_CHECK(count > 0);
      if (--count == 0) dead.push_back(block);
    }
    return dead;
  }

  // Held shared while the hook runs, exclusively to detach it. Never taken with `mutex` held.
  std::shared_mutex hook_mutex;
  FreedHook freed;  // guarded by hook_mutex
  mutable std::mutex mutex;
  std::vector<int32_t> counts;  // guarded by mutex
  std::vector<int32_t> free;    // guarded by mutex; the last is handed out first
};

BlockPool::BlockPool(int32_t blocks, FreedHook freed)
    : books_(std::make_shared<Books>(blocks, std::move(freed))) {}

BlockPool::~BlockPool() {
  const std::lock_guard detach(books_->hook_mutex);
  books_->freed = nullptr;
}

std::optional<std::vector<int32_t>> BlockPool::Allocate(int32_t count) {
  KVASIR_CHECK(count >= 0);
  const std::lock_guard lock(books_->mutex);
  std::vector<int32_t>& free = books_->free;
  if (size_t(count) > free.size()) return std::nullopt;
  std::vector<int32_t> ids(free.rbegin(), free.rbegin() + count);
  free.resize(free.size() - size_t(count));
  for (const int32_t block : ids) books_->counts[size_t(block)] = 1;
  return ids;
}

void BlockPool::Ref(std::span<const int32_t> ids) {
  const std::lock_guard lock(books_->mutex);
  for (const int32_t block : ids) {
    KVASIR_CHECK(books_->counts.at(size_t(block)) > 0);
    ++books_->counts[size_t(block)];
  }
}

void BlockPool::Unref(std::span<const int32_t> ids) { books_->Unref(ids); }

std::shared_ptr<const KvBlocks> BlockPool::Own(std::vector<int32_t> ids, int32_t tokens,
                                               std::shared_ptr<const KvReadiness> readiness) {
  KVASIR_CHECK(ids.size() == size_t(BlocksFor(tokens)));
  return std::make_shared<const KvBlocks>(
      std::move(ids), tokens,
      [books = books_](const std::vector<int32_t>& released) { books->Unref(released); },
      std::move(readiness));
}

std::shared_ptr<const KvBlocks> BlockPool::Share(std::vector<int32_t> ids, int32_t tokens) {
  Ref(ids);
  return Own(std::move(ids), tokens);
}

bool BlockPool::AllOwned(std::span<const int32_t> ids) const {
  const std::lock_guard lock(books_->mutex);
  for (const int32_t block : ids) {
    if (block < 0 || size_t(block) >= books_->counts.size()) return false;
    if (books_->counts[size_t(block)] == 0) return false;
  }
  return true;
}

int32_t BlockPool::RefCount(int32_t block) const {
  const std::lock_guard lock(books_->mutex);
  return books_->counts.at(size_t(block));
}

int32_t BlockPool::total() const { return int32_t(books_->counts.size()); }

int32_t BlockPool::free() const {
  const std::lock_guard lock(books_->mutex);
  return int32_t(books_->free.size());
}

}  // namespace kvasir
