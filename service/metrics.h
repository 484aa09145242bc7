// Metrics: counters and histograms of this process, in Prometheus' text format. Thread-safe.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <map>
#include <mutex>
#include <string>
#include <utility>

namespace kvasir {

class Runtime;
struct AuditStats;
struct DraftRunReport;

// A histogram of seconds with fixed bounds. Guarded by its owner.
class SecondsHistogram {
 public:
  static constexpr std::array<double, 13> kBounds = {0.001, 0.005, 0.01, 0.02, 0.04, 0.08, 0.16,
                                                     0.32,  0.64,  1.28, 2.56, 10,   60};
  void Add(double seconds);
  void Print(const std::string& name, std::string* out) const;

 private:
  std::array<uint64_t, kBounds.size() + 1> counts_{};
  double sum_ = 0;
  uint64_t total_ = 0;
};

class Metrics {
 public:
  void CountReply(const std::string& route, int status);
  void CountAnswer(double ttft_seconds, double total_seconds);
  void CountCancelled() { ++cancelled_; }
  // `answers` of mode optimistic that were drafted so.
  void CountOptimistic(const DraftRunReport& report, int answers = 1);

  // # HELP, # TYPE and samples, with the engine's and the cache's own counters.
  std::string Print(const Runtime& runtime, const AuditStats& audits) const;

 private:
  void PrintOptimistic(std::string* out) const;  // mutex_ held

  mutable std::mutex mutex_;
  std::map<std::pair<std::string, int>, uint64_t> replies_;  // guarded by mutex_
  SecondsHistogram ttft_, latency_, first_draft_;            // guarded by mutex_
  // Answers of mode optimistic whose draft stood, was corrected, or was none; and tokens.
  uint64_t stood_ = 0, corrected_ = 0, undrafted_ = 0;  // guarded by mutex_
  uint64_t draft_tokens_ = 0, draft_tokens_stood_ = 0;  // guarded by mutex_
  std::atomic<uint64_t> cancelled_{0};
};

}  // namespace kvasir
