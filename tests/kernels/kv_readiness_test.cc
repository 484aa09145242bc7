#include "kernels/core/kv_readiness.h"

#include <gtest/gtest.h>

#include <thread>

#include "kernels/core/kv_layout.h"

namespace kvasir {
namespace {

using std::chrono::milliseconds;

TEST(KvReadiness, GrowsToCompleteAndNeverBack) {
  KvReadiness readiness(3);
  EXPECT_TRUE(readiness.Has(0));
  EXPECT_FALSE(readiness.Has(1));
  readiness.Publish(2);
  EXPECT_TRUE(readiness.Has(2));
  EXPECT_FALSE(readiness.complete());
  readiness.Publish(1);
  EXPECT_TRUE(readiness.Has(2));
  readiness.Publish(3);
  EXPECT_TRUE(readiness.complete());
  readiness.Fail();
  EXPECT_FALSE(readiness.failed()) << "too late";
}

TEST(KvReadiness, AFailedLoadStaysAsItIs) {
  KvReadiness readiness(3);
  readiness.Publish(1);
  readiness.Fail();
  readiness.Publish(3);
  EXPECT_TRUE(readiness.failed());
  EXPECT_TRUE(readiness.WaitFor(1, milliseconds(10000))) << "what is there is there";
  EXPECT_FALSE(readiness.WaitFor(2, milliseconds(10000))) << "at once";
}

TEST(KvReadiness, WaitsNoLongerThanItIsTold) {
  KvReadiness readiness(1);
  EXPECT_FALSE(readiness.WaitFor(1, milliseconds(1)));
  EXPECT_FALSE(readiness.failed());
}

TEST(KvReadiness, WakesAllWhoWait) {
  for (int round = 0; round < 50; ++round) {
    KvReadiness readiness(4);
    std::vector<std::thread> threads;
    std::atomic<int> right{0};
    for (int32_t layers = 1; layers <= 4; ++layers) {
      threads.emplace_back([&, layers] {
        const bool there = readiness.WaitFor(layers, milliseconds(20000));
        if (there == (layers <= 3)) ++right;
      });
    }
    for (int32_t layers = 1; layers <= 3; ++layers) readiness.Publish(layers);
    readiness.Fail();
    for (std::thread& thread : threads) thread.join();
    EXPECT_EQ(right, 4);
  }
}

TEST(KvBlocks, WithoutReadinessAreComplete) {
  const KvBlocks blocks({1}, 5, nullptr);
  EXPECT_TRUE(blocks.complete());
  EXPECT_TRUE(blocks.Has(1000));
}

}  // namespace
}  // namespace kvasir
