// LoadPolicy: whether a stored chunk is worth loading, or is sooner computed in its place in the
// prompt. On two CPU cores loading wins by far; a slow disk, or a GPU, may turn that round.
//
//   load     bytes / bandwidth of the disk (disk tier alone) + bytes / bandwidth into the pool
//   compute  tokens / prefill rate
// Rates are running averages: decayed sums of amounts over decayed sums of seconds, so that large
// samples count for more and old ones fade. While a rate that counts is unknown, chunks are loaded.
// A tier changes sides only when the other side is better by a quarter, and one chunk in
// kProbeEvery is loaded all the same, so that its bandwidth stays known.
// Thread-safe; no clocks: callers measure.
#pragma once

#include <cstdint>
#include <mutex>
#include <optional>

namespace kvasir {

// What was measured; 0 = not known yet.
struct LoadRates {
  double disk_bytes_per_second = 0;      // record bytes read from disk and verified
  double pool_bytes_per_second = 0;      // record bytes decoded into the pool
  double prefill_tokens_per_second = 0;  // rows through all layers
};

struct LoadForecast {
  double load_seconds = 0, compute_seconds = 0;
};

// nullopt while a rate that counts is unknown.
std::optional<LoadForecast> ForecastLoad(const LoadRates& rates, bool from_disk, uint64_t bytes,
                                         int64_t tokens);

class LoadPolicy {
 public:
  static constexpr double kMargin = 1.25;  // how much better the other side must be
  static constexpr int kProbeEvery = 16;   // declined chunks a probe
  static constexpr int kLeastSamples = 4;  // before a rate counts as known
  static constexpr double kDiskBound = 2;  // how much slower than the pool the disk must be

  void RecordDisk(uint64_t bytes, double seconds);
  void RecordPool(uint64_t bytes, double seconds);
  // The engine's totals so far; what came since the last call is the sample.
  void SamplePrefill(uint64_t total_rows, double total_seconds);

  LoadRates rates() const;
  // Whether loads mostly wait for the disk, so that computing beside them costs nothing. Loads from
  // the page cache are bound by the same cores that compute: overlapped, both are slower (measured
  // on 2 cores: 8 chunks of 256 tokens took 50 ms instead of 15).
  bool DiskBound() const;
  // A chunk of `bytes` and `tokens` that lies on disk or in memory. Counts as a decision: it moves
  // the tier to the other side, and takes its turn among the probes.
  bool ShouldCompute(bool on_disk, uint64_t bytes, int64_t tokens);

 private:
  // A rate by decayed sums; `half_life` in the unit of the amounts.
  class Average {
   public:
    explicit Average(double half_life) : half_life_(half_life) {}
    void Add(double amount, double seconds);
    double Rate() const { return samples_ < kLeastSamples ? 0 : amount_ / seconds_; }

   private:
    double half_life_, amount_ = 0, seconds_ = 0;
    int samples_ = 0;
  };
  struct Side {
    bool computing = false;
    int declined = 0;  // since the last probe
  };

  mutable std::mutex mutex_;  // guards what follows
  Average disk_{64e6}, pool_{64e6}, prefill_{8192};
  uint64_t seen_rows_ = 0;
  double seen_seconds_ = 0;
  Side sides_[2];  // memory, disk
};

}  // namespace kvasir
