#include "kernels/core/thread_pool.h"

#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <limits>
#include <thread>
#include <vector>

#include "kernels/core/status.h"

namespace kvasir {
namespace {

using Body = std::function<void(int64_t, int)>;

// About ten futex hand-offs: longer than the gap between two operators of a step, short enough
// that an idle engine or a shared core loses next to nothing.
constexpr std::chrono::microseconds kSpin{50};
constexpr int kPausesPerClock = 32;

void Pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#else
  std::this_thread::yield();
#endif
}

// A 32-bit word that threads wait on: bounded spin, then futex.
class WaitWord {
 public:
  uint32_t Load() const { return word_.load(std::memory_order_acquire); }

  void Set(uint32_t value) { word_.store(value, std::memory_order_seq_cst); }
  uint32_t Increment() { return word_.fetch_add(1, std::memory_order_seq_cst) + 1; }

  // A waiter registers before the kernel compares the word; the sequentially consistent order of
  // {store word, read sleepers} and {add sleeper, compare word} makes a lost wake-up impossible.
  void Wake() {
    if (sleepers_.load(std::memory_order_seq_cst) > 0) Futex(FUTEX_WAKE_PRIVATE, kEveryone);
  }

  // Returns when done(word) holds.
  template <typename Done>
  void Wait(const Done& done) {
    if (SpinUntil(done)) return;
    for (uint32_t seen = Load(); !done(seen); seen = Load()) {
      sleepers_.fetch_add(1, std::memory_order_seq_cst);
      Futex(FUTEX_WAIT_PRIVATE, seen);
      sleepers_.fetch_sub(1, std::memory_order_relaxed);
    }
  }

 private:
  static constexpr uint32_t kEveryone = std::numeric_limits<int32_t>::max();

  template <typename Done>
  bool SpinUntil(const Done& done) {
    const auto end = std::chrono::steady_clock::now() + kSpin;
    do {
      for (int i = 0; i < kPausesPerClock; ++i) {
        if (done(Load())) return true;
        Pause();
      }
    } while (std::chrono::steady_clock::now() < end);
    return false;
  }

  void Futex(int operation, uint32_t value) {
    static_assert(sizeof word_ == sizeof(uint32_t));
    syscall(SYS_futex, &word_, operation, value, nullptr, nullptr, 0);
  }

  std::atomic<uint32_t> word_{0};
  std::atomic<int32_t> sleepers_{0};
};

}  // namespace

// A job is a number (its epoch) and a count of tasks not yet claimed, in one 64-bit word: a claim
// succeeds for the job that it read only, so a worker that wakes late finds nothing to claim and
// nobody has to wait for it. `body` and `tasks` are read after a claim alone; the job cannot end
// before that task does.
struct ThreadPool::Shared {
  alignas(64) std::atomic<uint64_t> job{0};  // epoch << 32 | unclaimed tasks
  alignas(64) WaitWord epoch;                // what idle workers watch
  alignas(64) WaitWord done;                 // finished tasks of the job
  const Body* body = nullptr;
  uint32_t tasks = 0;
  std::atomic<bool> stop{false};
  std::atomic<bool> busy{false};
  std::vector<std::thread> workers;

  bool Claim(uint32_t* unclaimed) {
    uint64_t seen = job.load(std::memory_order_acquire);
    while ((seen & 0xffffffffu) != 0) {
      if (job.compare_exchange_weak(seen, seen - 1, std::memory_order_acq_rel)) {
        *unclaimed = static_cast<uint32_t>(seen);
        return true;
      }
    }
    return false;
  }

  void RunTasks(int thread) {
    uint32_t unclaimed;
    while (Claim(&unclaimed)) {
      const uint32_t total = tasks;
      (*body)(total - unclaimed, thread);
      if (done.Increment() == total) done.Wake();
    }
  }

  void WorkerLoop(int thread) {
    uint32_t seen = 0;
    for (;;) {
      epoch.Wait([&](uint32_t now) { return now != seen; });
      seen = epoch.Load();
      if (stop.load(std::memory_order_acquire)) return;
      RunTasks(thread);
    }
  }

  void Start(uint32_t count, const Body& job_body) {
    body = &job_body;
    tasks = count;
    done.Set(0);
    const uint32_t next = epoch.Load() + 1;
    job.store(uint64_t{next} << 32 | count, std::memory_order_release);
    epoch.Set(next);
    epoch.Wake();
  }
};

ThreadPool::ThreadPool(int threads) : shared_(std::make_unique<Shared>()), threads_(threads) {
  KVASIR_CHECK(threads >= 1);
  for (int thread = 1; thread < threads; ++thread) {
    shared_->workers.emplace_back([shared = shared_.get(), thread] { shared->WorkerLoop(thread); });
  }
}

ThreadPool::~ThreadPool() {
  shared_->stop.store(true, std::memory_order_release);
  shared_->epoch.Increment();
  shared_->epoch.Wake();
  for (std::thread& worker : shared_->workers) worker.join();
}

void ThreadPool::ParallelFor(int64_t tasks, const Body& body) {
  if (tasks <= 0) return;
  KVASIR_CHECK(tasks <= std::numeric_limits<uint32_t>::max());
  KVASIR_CHECK(!shared_->busy.exchange(true));
  if (threads_ == 1 || tasks == 1) {
    for (int64_t task = 0; task < tasks; ++task) body(task, 0);
  } else {
    const auto count = static_cast<uint32_t>(tasks);
    shared_->Start(count, body);
    shared_->RunTasks(0);
    shared_->done.Wait([count](uint32_t finished) { return finished == count; });
  }
  shared_->busy.store(false);
}

}  // namespace kvasir
