// Time to the first token of a question behind a long context: the context computed (exact), or its
// KV loaded from pinned memory, INT8, chunk by chunk and layer by layer while the step runs
// (fused).
#include <chrono>
#include <thread>
#include <vector>

#include "tests/gpu/bench/card.h"
#include "tests/gpu/bench/engine_run.h"
#include "tests/gpu/bench/kv_planes.h"
#include "tests/gpu/bench/random_model.h"

namespace kvasir::bench {
namespace {

double Now() {
  const auto now = std::chrono::steady_clock::now().time_since_epoch();
  return std::chrono::duration<double>(now).count();
}

struct Sizes {
  int32_t chunk = 512, question = 32, recompute_every = 20;
};

// Contexts of whole chunks, over one model.
class FirstToken {
 public:
  FirstToken(const Sizes& sizes, Engine& engine, std::vector<KvPlanes> chunks)
      : sizes_(sizes), engine_(engine), chunks_(std::move(chunks)) {}

  Result<double> Exact(int32_t context, uint64_t seed) {
    const int32_t vocab = engine_.model().config.vocab;
    std::vector<Request> requests;
    requests.push_back(Ask(RandomTokens(context + sizes_.question, seed, vocab), 1));
    KVASIR_ASSIGN_OR_RETURN(const std::vector<Spoken> all,
                            RunRequests(engine_, std::move(requests)));
    return double{all.front().seconds.front()};
  }

  // recompute: every so many rows of the context are computed again; 0 = none.
  Result<double> Fused(int32_t context, int32_t recompute, uint64_t seed) {
    const double begin = Now();
    std::vector<std::unique_ptr<KvFill>> fills;
    for (int32_t at = 0; at < context; at += sizes_.chunk) {
      KVASIR_ASSIGN_OR_RETURN(std::unique_ptr<KvFill> fill, engine_.BeginLoad(sizes_.chunk));
      fills.push_back(std::move(fill));
    }
    Status loaded;
    std::thread loader([&] { loaded = Load(fills); });
    const double before = Now() - begin;
    const Result<std::vector<Spoken>> all =
        RunRequests(engine_, {Question(fills, recompute, seed)});
    loader.join();
    KVASIR_RETURN_IF_ERROR(loaded);
    KVASIR_RETURN_IF_ERROR(all.status());
    return before + all->front().seconds.front();
  }

 private:
  Status Load(const std::vector<std::unique_ptr<KvFill>>& fills) const {
    for (int32_t layer = 0; layer < engine_.model().config.layers; ++layer) {
      for (size_t i = 0; i < fills.size(); ++i) {
        const KvPlanes& planes = chunks_[i % chunks_.size()];
        KVASIR_RETURN_IF_ERROR(fills[i]->Load(planes.Layer(layer, sizes_.chunk)));
      }
    }
    return Status::Ok();
  }

  Request Question(const std::vector<std::unique_ptr<KvFill>>& fills, int32_t recompute,
                   uint64_t seed) const {
    const int32_t vocab = engine_.model().config.vocab;
    Request request = Ask(RandomTokens(sizes_.question, seed, vocab), 1);
    std::vector<SegmentPlan>& segments = request.prompt.segments;
    const SegmentPlan question = segments.front();
    segments.clear();
    for (const auto& fill : fills) {
      SegmentPlan chunk = {
          RandomTokens(sizes_.chunk, ++seed, vocab), fill->blocks(), ReuseKind::kFused, {}};
      for (int32_t row = 0; recompute > 0 && row < sizes_.chunk; row += recompute) {
        chunk.recompute.push_back(row);
      }
      segments.push_back(std::move(chunk));
    }
    segments.push_back(question);
    return request;
  }

  const Sizes sizes_;
  Engine& engine_;
  const std::vector<KvPlanes> chunks_;
};

// The best of three: the first chooses algorithms and takes memory.
template <typename Run>
Result<double> BestOf(const Run& run) {
  double best = 1e30;
  for (uint64_t seed = 1; seed <= 3; ++seed) {
    KVASIR_ASSIGN_OR_RETURN(const double seconds, run(1000 * seed));
    best = std::min(best, seconds);
  }
  return best;
}

Status Compare(Bench& bench, const Sizes& sizes, FirstToken& first, int32_t context, bool last) {
  const std::string name = "context " + std::to_string(context) + ", ";
  KVASIR_ASSIGN_OR_RETURN(const double exact,
                          BestOf([&](uint64_t seed) { return first.Exact(context, seed); }));
  bench.report.Add(name + "exact", 1e3 * exact, "ms");
  for (const int32_t recompute : {0, sizes.recompute_every}) {
    KVASIR_ASSIGN_OR_RETURN(const double fused, BestOf([&](uint64_t seed) {
                              return first.Fused(context, recompute, seed);
                            }));
    const std::string how =
        recompute == 0 ? "fused" : "fused, 1 row in " + std::to_string(recompute) + " again";
    bench.report.Add(name + how, 1e3 * fused, "ms");
    bench.report.Add(name + how + ", of exact", fused / exact, "");
    if (last && recompute == 0) {
      bench.report.Expect(
          {"fused time to first token of exact, " + name + "INT8", "", fused / exact, 0.1, true});
    }
  }
  return Status::Ok();
}

}  // namespace

Status RunFirstToken(Bench& bench) {
  const ModelShape shape = bench.smoke ? TinyShape() : LlamaShape();
  const Sizes sizes = bench.smoke ? Sizes{16, 4, 8} : Sizes{};
  const std::vector<int32_t> contexts =
      bench.smoke ? std::vector<int32_t>{32} : std::vector<int32_t>{2048, 8192, 32768};
  KVASIR_ASSIGN_OR_RETURN(const std::shared_ptr<Backend> backend, OpenCard(CudaCompute::kBf16));
  KVASIR_ASSIGN_OR_RETURN(const std::shared_ptr<const Model> model,
                          MakeRandomModel(shape, DType::kBF16, *backend));
  const int32_t tokens = contexts.back() + sizes.question + 1;
  const EngineOptions options =
      OptionsFor(model->config, 3, tokens, bench.smoke ? 64 : 8192);  // loaded, private, exact
  KVASIR_ASSIGN_OR_RETURN(const std::unique_ptr<Engine> engine,
                          Engine::Create(model, backend, options));
  std::vector<KvPlanes> chunks;
  for (int32_t at = 0; at < contexts.back(); at += sizes.chunk) {
    KVASIR_ASSIGN_OR_RETURN(KvPlanes planes,
                            KvPlanes::Pinned(model->config.Layout(DType::kBF16), sizes.chunk,
                                             static_cast<uint64_t>(31 + at)));
    chunks.push_back(std::move(planes));
  }
  FirstToken first(sizes, *engine, std::move(chunks));
  for (const int32_t context : contexts) {
    KVASIR_RETURN_IF_ERROR(Compare(bench, sizes, first, context, context == contexts.back()));
  }
  return backend->status();
}

}  // namespace kvasir::bench
