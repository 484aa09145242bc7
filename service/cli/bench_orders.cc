#include "service/cli/bench_orders.h"

#include <algorithm>
#include <atomic>
#include <latch>
#include <vector>

#include "service/kv_residency.h"

namespace kvasir {
namespace {

namespace json = boost::json;

constexpr int kRequests = 16;
constexpr int32_t kAnswerTokens = 16;

int64_t UsedBlocks(const Engine& engine) {
  const EngineStats stats = engine.stats();
  return stats.blocks_total - stats.blocks_free;
}

// Outlives its requests: RunAtOnce waits for their ends.
struct Gauge {
  explicit Gauge(size_t requests) : left(static_cast<std::ptrdiff_t>(requests)) {}
  std::atomic<int64_t> peak{0};
  std::latch left;
};

// Most blocks in use while the prompts are answered together.
Result<int64_t> RunAtOnce(const Runtime& runtime, RagPipeline& rag,
                          const std::vector<PreparedPrompt>& prompts) {
  Gauge gauge(prompts.size());
  Status failed;
  for (const PreparedPrompt& prompt : prompts) {
    const auto sink = [&gauge, &runtime](const TokenEvent& event) {
      gauge.peak = std::max<int64_t>(gauge.peak, UsedBlocks(runtime.engine()));
      if (event.finish != FinishReason::kNone) gauge.left.count_down();
    };
    const auto id = rag.Submit(prompt, {}, kAnswerTokens, sink, /*ignore_eos=*/true);
    if (id.ok()) continue;
    failed = id.status();
    gauge.left.count_down();
  }
  gauge.left.wait();
  if (!failed.ok()) return failed;
  return gauge.peak.load();
}

struct Residency {
  KvResidency kv;
  int64_t idle_blocks = 0;  // in use while the prompts are held and nothing runs
  int64_t peak_blocks = 0;  // in use at most while they ran
};

Result<Residency> Measure(const Runtime& runtime, RagPipeline& rag, int requests,
                          const std::function<Result<PreparedPrompt>(int turn)>& prepare) {
  std::vector<PreparedPrompt> prompts;
  std::vector<PromptPlan> plans;
  for (int turn = 0; turn < requests; ++turn) {
    KVASIR_ASSIGN_OR_RETURN(PreparedPrompt prompt, prepare(turn));
    plans.push_back(prompt.plan);
    prompts.push_back(std::move(prompt));
  }
  Residency residency{ResidencyOf(plans), UsedBlocks(runtime.engine()), 0};
  KVASIR_ASSIGN_OR_RETURN(residency.peak_blocks, RunAtOnce(runtime, rag, prompts));
  return residency;
}

}  // namespace

Result<json::object> MeasureOrders(Runtime& runtime, RagPipeline& rag,
                                   const std::function<Result<PreparedPrompt>(int turn)>& prepare) {
  runtime.DropUpperTiers(/*memory_too=*/false);
  KVASIR_ASSIGN_OR_RETURN(const Residency one, Measure(runtime, rag, 1, prepare));
  KVASIR_ASSIGN_OR_RETURN(const Residency all, Measure(runtime, rag, kRequests, prepare));
  const EngineOptions& options = runtime.engine().options();
  const auto bytes =
      static_cast<int64_t>(runtime.model().config.Layout(options.kv_dtype).BytesPerBlock());
  return json::object{
      {"requests", kRequests},
      {"chunks", all.kv.handles},
      {"chunk_kv_bytes", {{"1", one.idle_blocks * bytes}, {"16", all.idle_blocks * bytes}}},
      {"private_kv_bytes", all.kv.copied_blocks * bytes},
      {"own_kv_bytes",
       {{"1", (one.peak_blocks - one.idle_blocks) * bytes},
        {"16", (all.peak_blocks - all.idle_blocks) * bytes}}},
      {"ratio", static_cast<double>(all.idle_blocks) / static_cast<double>(one.idle_blocks)}};
}

}  // namespace kvasir
