// ThreadPool: runs the parts of one operator on a fixed set of threads.
//
// The caller's thread is one of them. Idle workers spin for a bounded time, then sleep on a futex,
// so that a core taken by another process costs its share and no more. Tasks are handed out
// dynamically; give 2-4 a thread, each >= 20 us. One ParallelFor at a time; not reentrant.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>

namespace kvasir {

class ThreadPool {
 public:
  explicit ThreadPool(int threads);  // >= 1, the caller included
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int threads() const { return threads_; }

  // Calls body(task, thread) for every task in [0, tasks), each once; returns when all are done.
  // `thread` is in [0, threads()): for per-thread scratch memory.
  void ParallelFor(int64_t tasks, const std::function<void(int64_t task, int thread)>& body);

 private:
  struct Shared;
  std::unique_ptr<Shared> shared_;
  int threads_;
};

}  // namespace kvasir
