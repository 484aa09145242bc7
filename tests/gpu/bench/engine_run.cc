#include "tests/gpu/bench/engine_run.h"

#include <chrono>
#include <condition_variable>
#include <mutex>
#include <random>
#include <utility>

namespace kvasir::bench {
namespace {

using Clock = std::chrono::steady_clock;

// Sinks of all requests; lives until the last of them has ended.
class Listener {
 public:
  explicit Listener(size_t requests) : all_(requests), left_(requests) {}

  void Hear(size_t index, const TokenEvent& event) {
    const std::lock_guard lock(mutex_);
    Spoken& spoken = all_[index];
    if (event.token >= 0) {
      spoken.tokens.push_back(event.token);
      spoken.seconds.push_back(std::chrono::duration<double>(Clock::now() - begin_).count());
      if (event.top.size() > 1) {
        spoken.leads.push_back(event.top[0].logprob - event.top[1].logprob);
      }
    }
    if (event.finish == FinishReason::kNone) return;
    spoken.status = event.status;
    Ended();
  }
  void Refuse(size_t index, Status why) {
    const std::lock_guard lock(mutex_);
    all_[index].status = std::move(why);
    Ended();
  }
  void HearLogits(size_t index, const std::vector<float>& logits) {
    const std::lock_guard lock(mutex_);
    if (all_[index].logits.empty()) all_[index].logits = logits;
  }
  std::vector<Spoken> Wait() {
    std::unique_lock lock(mutex_);
    done_.wait(lock, [this] { return left_ == 0; });
    return std::move(all_);
  }

 private:
  void Ended() {
    if (--left_ == 0) done_.notify_all();
  }
  std::mutex mutex_;
  std::condition_variable done_;
  std::vector<Spoken> all_;
  size_t left_;
  const Clock::time_point begin_ = Clock::now();
};

}  // namespace

Result<std::vector<Spoken>> RunRequests(Engine& engine, std::vector<Request> requests,
                                        bool logits) {
  const auto listener = std::make_shared<Listener>(requests.size());
  for (size_t i = 0; i < requests.size(); ++i) {
    requests[i].sink = [listener, i](const TokenEvent& event) { listener->Hear(i, event); };
    if (logits) {
      requests[i].on_logits = [listener, i](const std::vector<float>& values) {
        listener->HearLogits(i, values);
      };
    }
    const Result<RequestId> id = engine.Submit(std::move(requests[i]));
    if (!id.ok()) listener->Refuse(i, id.status());
  }
  std::vector<Spoken> all = listener->Wait();
  for (const Spoken& spoken : all) KVASIR_RETURN_IF_ERROR(spoken.status);
  return all;
}

std::vector<int32_t> RandomTokens(int32_t count, uint64_t seed, int32_t vocab) {
  std::mt19937_64 random(seed);
  std::vector<int32_t> ids;
  for (int32_t i = 0; i < count; ++i) {
    ids.push_back(static_cast<int32_t>(random() % static_cast<uint64_t>(vocab)));
  }
  return ids;
}

Request Ask(std::vector<int32_t> prompt, int32_t max_tokens) {
  Request request;
  request.prompt.segments.push_back({std::move(prompt), nullptr, ReuseKind::kNone, {}});
  request.max_tokens = max_tokens;
  request.ignore_eos = true;
  request.speculate = false;
  return request;
}

EngineOptions OptionsFor(const ModelConfig& config, int32_t sequences, int32_t tokens,
                         int32_t step_rows) {
  EngineOptions options;
  const auto blocks = static_cast<size_t>(sequences) * static_cast<size_t>(BlocksFor(tokens) + 2);
  options.pool_bytes = (blocks + 16) * config.Layout(DType::kBF16).BytesPerBlock();
  options.step_rows = step_rows;
  options.max_sequences = sequences;
  options.draft_tokens = 0;
  options.poison_blocks = false;
  return options;
}

}  // namespace kvasir::bench
