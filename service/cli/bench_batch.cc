#include "service/cli/bench_batch.h"

#include <algorithm>
#include <chrono>
#include <latch>
#include <mutex>
#include <string>
#include <vector>

namespace kvasir {
namespace {

namespace json = boost::json;
using Clock = std::chrono::steady_clock;

constexpr int32_t kAnswerTokens = 96;

// Counts tokens while all answers run. Outlives its requests: Run waits for their ends.
class Meter {
 public:
  explicit Meter(int answers)
      : left_(answers), seen_(static_cast<size_t>(answers)), waiting_(answers) {}

  void Event(size_t answer, const TokenEvent& event) {
    {
      const std::lock_guard lock(mutex_);
      const Clock::time_point now = Clock::now();
      if (event.finish != FinishReason::kNone) {
        if (end_ == Clock::time_point{}) end_ = last_token_;
      } else {
        if (!seen_[answer]) {
          seen_[answer] = true;
          if (--waiting_ == 0) begin_ = now;
        } else if (waiting_ == 0 && end_ == Clock::time_point{} && now > begin_) {
          ++tokens_;
        }
        last_token_ = now;
      }
    }
    if (event.finish != FinishReason::kNone) left_.count_down();
  }
  void Refused() { left_.count_down(); }
  // Tokens a second.
  double Wait() {
    left_.wait();
    const std::lock_guard lock(mutex_);
    const double seconds = std::chrono::duration<double>(end_ - begin_).count();
    return seconds > 0 ? static_cast<double>(tokens_) / seconds : 0;
  }

 private:
  std::latch left_;
  std::mutex mutex_;
  std::vector<bool> seen_;  // who had a first token
  int waiting_;             // how many had none
  int64_t tokens_ = 0;
  Clock::time_point begin_, end_, last_token_;
};

Result<double> Run(RagPipeline& rag, const std::vector<PreparedPrompt>& prompts) {
  Meter meter(static_cast<int>(prompts.size()));
  Status failed;
  for (size_t i = 0; i < prompts.size(); ++i) {
    const auto sink = [&meter, i](const TokenEvent& event) { meter.Event(i, event); };
    const auto id = rag.Submit(prompts[i], {}, kAnswerTokens, sink, /*ignore_eos=*/true);
    if (id.ok()) continue;
    failed = id.status();
    meter.Refused();
  }
  const double rate = meter.Wait();
  if (!failed.ok()) return failed;
  return rate;
}

}  // namespace

Result<json::object> MeasureBatches(
    RagPipeline& rag, const std::function<Result<PreparedPrompt>(int index)>& prepare) {
  json::object rates;
  for (const int batch : kBatches) {
    double best = 0;
    for (int turn = 0; turn < 2; ++turn) {
      std::vector<PreparedPrompt> prompts;
      for (int i = 0; i < batch; ++i) {
        KVASIR_ASSIGN_OR_RETURN(PreparedPrompt prompt, prepare(i));
        prompts.push_back(std::move(prompt));
      }
      KVASIR_ASSIGN_OR_RETURN(const double rate, Run(rag, prompts));
      best = std::max(best, rate);
    }
    rates[std::to_string(batch)] = best;
  }
  return rates;
}

}  // namespace kvasir
