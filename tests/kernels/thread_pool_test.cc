#include "kernels/core/thread_pool.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <random>
#include <thread>
#include <vector>

namespace kvasir {
namespace {

TEST(ThreadPool, RunsEveryTaskOnce) {
  ThreadPool pool(3);
  std::vector<std::atomic<int>> runs(7);
  pool.ParallelFor(7, [&](int64_t task, int) { ++runs[static_cast<size_t>(task)]; });
  for (const auto& count : runs) EXPECT_EQ(count, 1);
}

TEST(ThreadPool, NothingToDo) {
  ThreadPool pool(2);
  pool.ParallelFor(0, [](int64_t, int) { FAIL(); });
}

TEST(ThreadPool, OneThreadRunsInOrderOnTheCaller) {
  ThreadPool pool(1);
  std::vector<int64_t> order;
  pool.ParallelFor(4, [&](int64_t task, int thread) {
    EXPECT_EQ(thread, 0);
    order.push_back(task);
  });
  EXPECT_EQ(order, (std::vector<int64_t>{0, 1, 2, 3}));
}

// Random jobs back to back: sums must come out right and scratch indexed by thread unshared. Some
// pauses outlast the spin, so that both the spinning and the sleeping hand-off are met.
TEST(ThreadPool, ManyJobsOfRandomSize) {
  for (int threads : {2, 4}) {
    ThreadPool pool(threads);
    std::mt19937 random(threads);
    for (int job = 0; job < 3000; ++job) {
      const int64_t tasks = random() % 20;
      std::vector<int64_t> sums(static_cast<size_t>(threads), 0);
      pool.ParallelFor(
          tasks, [&](int64_t task, int thread) { sums[static_cast<size_t>(thread)] += task + 1; });
      int64_t sum = 0;
      for (int64_t part : sums) sum += part;
      ASSERT_EQ(sum, tasks * (tasks + 1) / 2);
      if (job % 100 == 0) std::this_thread::sleep_for(std::chrono::microseconds(300));
    }
  }
}

// A worker held up in one task must not stop the others from taking the rest.
TEST(ThreadPool, SlowTaskDoesNotHoldTheOthers) {
  ThreadPool pool(2);
  std::atomic<int> finished_before{0};
  std::atomic<int> finished{0};
  pool.ParallelFor(20, [&](int64_t task, int) {
    if (task == 0) {
      const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(5);
      while (finished < 19 && std::chrono::steady_clock::now() < end) std::this_thread::yield();
      finished_before = finished.load();
    }
    ++finished;
  });
  EXPECT_EQ(finished_before, 19);
}

TEST(ThreadPoolDeathTest, RejectsReentrance) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_DEATH(
      {
        ThreadPool pool(1);
        pool.ParallelFor(1, [&](int64_t, int) { pool.ParallelFor(1, [](int64_t, int) {}); });
      },
      "check failed");
}

}  // namespace
}  // namespace kvasir
