#include "cache/load_policy.h"

#include <gtest/gtest.h>

#include <thread>
#include <vector>

namespace kvasir {
namespace {

// Disk 100 MB/s, pool 1 GB/s, prefill 1,000 tokens/s.
LoadRates Rates() { return {100e6, 1e9, 1000}; }

TEST(LoadPolicy, ForecastByHand) {
  // 1 MB and 100 tokens: 10 ms of disk, 1 ms into the pool, 100 ms of computing.
  const auto disk = ForecastLoad(Rates(), true, 1000000, 100);
  ASSERT_TRUE(disk.has_value());
  EXPECT_DOUBLE_EQ(disk->load_seconds, 0.011);
  EXPECT_DOUBLE_EQ(disk->compute_seconds, 0.1);
  EXPECT_DOUBLE_EQ(ForecastLoad(Rates(), false, 1000000, 100)->load_seconds, 0.001);
}

TEST(LoadPolicy, UnknownRatesAreNoForecast) {
  LoadRates rates = Rates();
  rates.disk_bytes_per_second = 0;
  EXPECT_FALSE(ForecastLoad(rates, true, 1, 1).has_value());
  EXPECT_TRUE(ForecastLoad(rates, false, 1, 1).has_value());
  rates.prefill_tokens_per_second = 0;
  EXPECT_FALSE(ForecastLoad(rates, false, 1, 1).has_value());
}

// A policy that has seen loads at `disk` and 1e9 bytes/s and prefill at 1,000 tokens/s.
void Teach(LoadPolicy* policy, double disk) {
  uint64_t rows = 0;
  for (int i = 0; i < 40; ++i) {
    policy->RecordDisk(8000000, 8000000 / disk);
    policy->RecordPool(8000000, 0.008);
    rows += 1000;
    policy->SamplePrefill(rows, static_cast<double>(rows) / 1000);
  }
}

TEST(LoadPolicy, RatesAreMeansOfWhatWasSeen) {
  LoadPolicy policy;
  EXPECT_EQ(policy.rates().disk_bytes_per_second, 0);
  policy.RecordDisk(1000, 1);
  policy.RecordDisk(1000, 1);
  policy.RecordDisk(1000, 1);
  EXPECT_EQ(policy.rates().disk_bytes_per_second, 0) << "too few to tell";
  policy.RecordDisk(5000, 1);  // 8,000 bytes in 4 seconds; 1,000 of 64e6 hardly fade
  EXPECT_NEAR(policy.rates().disk_bytes_per_second, 2000, 1);
  policy.RecordDisk(0, 1);
  policy.RecordDisk(1000, 0);  // no samples
  EXPECT_NEAR(policy.rates().disk_bytes_per_second, 2000, 1);
}

// After n half-lives of new samples the old ones weigh 2^-n.
TEST(LoadPolicy, OldSamplesFade) {
  LoadPolicy policy;
  for (int i = 0; i < 4; ++i) policy.RecordPool(64000000, 1);
  EXPECT_NEAR(policy.rates().pool_bytes_per_second, 64e6, 1);
  policy.RecordPool(64000000, 4);
  // Sums before: 64e6 x 15/8 in 15/8 s; they are halved, then 64e6 in 4 s come on top.
  EXPECT_NEAR(policy.rates().pool_bytes_per_second, 64e6 * (15. / 16 + 1) / (15. / 16 + 4), 1);
}

TEST(LoadPolicy, PrefillIsSampledFromTotals) {
  LoadPolicy policy;
  policy.SamplePrefill(100, 1);
  policy.SamplePrefill(100, 1);   // nothing new
  policy.SamplePrefill(50, 0.5);  // a stale one
  policy.SamplePrefill(200, 2);
  policy.SamplePrefill(300, 3);
  EXPECT_EQ(policy.rates().prefill_tokens_per_second, 0);
  policy.SamplePrefill(400, 4);
  EXPECT_NEAR(policy.rates().prefill_tokens_per_second, 100, 1e-9);
}

TEST(LoadPolicy, DiskBoundIsADiskMuchSlowerThanThePool) {
  LoadPolicy unknown, slow, fast;
  EXPECT_FALSE(unknown.DiskBound());
  Teach(&slow, 4e8);
  EXPECT_TRUE(slow.DiskBound());
  Teach(&fast, 6e8);
  EXPECT_FALSE(fast.DiskBound());
}

TEST(LoadPolicy, LoadsWhileItDoesNotKnow) {
  LoadPolicy policy;
  for (int i = 0; i < 100; ++i) EXPECT_FALSE(policy.ShouldCompute(true, 1u << 30, 1));
}

TEST(LoadPolicy, ComputesWhatASlowDiskHoldsAndProbesIt) {
  LoadPolicy policy;
  Teach(&policy, 1e6);  // 1 MB/s: a chunk of 3 MB takes 3 s, its 256 tokens 0.256 s
  int computed = 0;
  for (int i = 0; i < 160; ++i) computed += policy.ShouldCompute(true, 3000000, 256) ? 1 : 0;
  EXPECT_EQ(computed, 150) << "one in sixteen is loaded to see";
  for (int i = 0; i < 100; ++i) EXPECT_FALSE(policy.ShouldCompute(false, 3000000, 256));
}

TEST(LoadPolicy, ProbesBringAFastDiskBack) {
  LoadPolicy policy;
  Teach(&policy, 1e6);
  ASSERT_TRUE(policy.ShouldCompute(true, 3000000, 256));
  int decisions = 0;
  while (decisions < 10000) {
    ++decisions;
    if (policy.ShouldCompute(true, 3000000, 256)) continue;
    policy.RecordDisk(3000000, 0.003);  // 1 GB/s by now
    if (policy.rates().disk_bytes_per_second > 50e6) break;
  }
  EXPECT_LT(decisions, 10000);
  int computed = 0;
  for (int i = 0; i < 32; ++i) computed += policy.ShouldCompute(true, 3000000, 256) ? 1 : 0;
  EXPECT_EQ(computed, 0);
}

// Near the break-even a tier stays on its side: 1,000 tokens take 1 s, load times are of the disk
// at 1 MB/s and 1 ms into the pool.
TEST(LoadPolicy, ChangesSidesOnlyByAMargin) {
  LoadPolicy policy;
  Teach(&policy, 1e6);
  EXPECT_FALSE(policy.ShouldCompute(true, 1200000, 1000)) << "20 % worse: stays with loading";
  EXPECT_TRUE(policy.ShouldCompute(true, 1300000, 1000));
  EXPECT_TRUE(policy.ShouldCompute(true, 900000, 1000)) << "10 % better: stays with computing";
  EXPECT_FALSE(policy.ShouldCompute(true, 700000, 1000));
  EXPECT_FALSE(policy.ShouldCompute(true, 1200000, 1000));
}

TEST(LoadPolicy, ManyThreads) {
  LoadPolicy policy;
  std::vector<std::thread> threads;
  for (uint64_t t = 0; t < 4; ++t) {
    threads.emplace_back([&policy, t] {
      for (uint64_t i = 1; i <= 1000; ++i) {
        policy.RecordDisk(1000, 1e-3);
        policy.RecordPool(1000, 1e-4);
        policy.SamplePrefill(i * 10, static_cast<double>(i) / 100);
        policy.ShouldCompute(t % 2 == 0, 1000, 1);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  const LoadRates rates = policy.rates();
  EXPECT_NEAR(rates.disk_bytes_per_second, 1e6, 1);
  EXPECT_NEAR(rates.pool_bytes_per_second, 1e7, 10);
  EXPECT_NEAR(rates.prefill_tokens_per_second, 1000, 1e-6);
}

}  // namespace
}  // namespace kvasir
