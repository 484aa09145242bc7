#include "cache/worker_pool.h"

#include <algorithm>
#include <atomic>
#include <memory>

namespace kvasir {
namespace {

// One ForEach: whoever has time takes the next index.
struct Round {
  std::function<void(size_t)> body;
  size_t count = 0;
  std::atomic<size_t> next{0};
  std::mutex mutex;
  std::condition_variable finished;
  size_t done = 0;

  void Work() {
    for (size_t i = next++; i < count; i = next++) {
      body(i);
      const std::lock_guard<std::mutex> lock(mutex);
      if (++done == count) finished.notify_all();
    }
  }
  void Wait() {
    std::unique_lock<std::mutex> lock(mutex);
    finished.wait(lock, [this] { return done == count; });
  }
};

}  // namespace

WorkerPool::WorkerPool(int threads) {
  for (int i = 0; i < threads; ++i) threads_.emplace_back([this] { Run(); });
}

WorkerPool::~WorkerPool() {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    stopping_ = true;
  }
  wake_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

void WorkerPool::Post(std::function<void()> job) {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    jobs_.push_back(std::move(job));
  }
  wake_.notify_one();
}

void WorkerPool::Run() {
  for (;;) {
    std::function<void()> job;
    {
      std::unique_lock<std::mutex> lock(mutex_);
      wake_.wait(lock, [this] { return stopping_ || !jobs_.empty(); });
      if (jobs_.empty()) return;
      job = std::move(jobs_.front());
      jobs_.pop_front();
    }
    job();
  }
}

void WorkerPool::ForEach(size_t count, const std::function<void(size_t)>& body) {
  const size_t helpers = count == 0 ? 0 : std::min(count - 1, threads_.size());
  // A helper that starts late finds no index left: the round outlives this call, body is not used.
  auto round = std::make_shared<Round>();
  round->body = body;
  round->count = count;
  for (size_t i = 0; i < helpers; ++i) Post([round] { round->Work(); });
  round->Work();
  round->Wait();
}

}  // namespace kvasir
