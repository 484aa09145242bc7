// Whole models through the engine: prompts and answers, on seeded random weights.
#include <algorithm>
#include <vector>

#include "kernels/core/dtype.h"
#include "tests/gpu/bench/card.h"
#include "tests/gpu/bench/engine_run.h"
#include "tests/gpu/bench/random_model.h"

namespace kvasir::bench {
namespace {

struct Loaded {
  std::shared_ptr<Backend> backend;
  std::shared_ptr<const Model> model;
  std::string name;
};

// Tokens between the moment that all answers have begun and the one that the first ends, and how
// long that took: every step of it decodes the whole batch.
struct Window {
  double tokens = 0, seconds = 0;
};
Window WindowOf(const std::vector<Spoken>& all) {
  double begin = 0, end = 1e30;
  for (const Spoken& spoken : all) {
    begin = std::max(begin, spoken.seconds.front());
    end = std::min(end, spoken.seconds.back());
  }
  Window window;
  window.seconds = end - begin;
  for (const Spoken& spoken : all) {
    window.tokens +=
        static_cast<double>(std::count_if(spoken.seconds.begin(), spoken.seconds.end(),
                                          [&](double at) { return at > begin && at <= end; }));
  }
  return window;
}

struct Load {
  int32_t batch = 1, context = 2048;
};

// Share of the copy bandwidth that a step's reads take: weights once, every sequence's KV.
double ReadShare(const Bench& bench, const Loaded& loaded, const Load& load, double step_seconds) {
  const double kv = KvBytesPerToken(loaded.model->config) * load.context * load.batch;
  return (ProductBytes(*loaded.model) + kv) / step_seconds / bench.ceilings.copy;
}

struct DecodeRate {
  double tokens = 0;  // a second, of the whole batch
  double share = 0;   // of the copy bandwidth
};

Result<DecodeRate> Decode(Bench& bench, const Loaded& loaded, const Load& load) {
  const ModelConfig& config = loaded.model->config;
  const int32_t step_rows = bench.smoke ? 32 : 8192;
  // Early answers go on while later prompts are computed.
  const int32_t steps = load.batch * load.context / step_rows + (bench.smoke ? 6 : 96);
  const EngineOptions options =
      OptionsFor(config, load.batch, load.context + steps + 1, step_rows + load.batch);
  KVASIR_ASSIGN_OR_RETURN(const std::unique_ptr<Engine> engine,
                          Engine::Create(loaded.model, loaded.backend, options));
  std::vector<Request> requests;
  for (int32_t i = 0; i < load.batch; ++i) {
    const auto seed = static_cast<uint64_t>(100 + i);
    requests.push_back(Ask(RandomTokens(load.context, seed, config.vocab), steps));
  }
  KVASIR_ASSIGN_OR_RETURN(const std::vector<Spoken> all, RunRequests(*engine, std::move(requests)));
  KVASIR_RETURN_IF_ERROR(loaded.backend->status());
  const Window window = WindowOf(all);
  const std::string name = loaded.name + ", decode, batch " + std::to_string(load.batch) +
                           ", context " + std::to_string(load.context);
  const double rate = bench.report.AddRate(name, window.tokens, window.seconds, "tokens/s");
  const double share = ReadShare(bench, loaded, load, load.batch / rate);
  bench.report.Add(name + ", reads of copy bandwidth", 100 * share, "%");
  return DecodeRate{rate, share};
}

Status Prefill(Bench& bench, const Loaded& loaded, int32_t tokens, bool expected) {
  const ModelConfig& config = loaded.model->config;
  KVASIR_ASSIGN_OR_RETURN(
      const std::unique_ptr<Engine> engine,
      Engine::Create(loaded.model, loaded.backend, OptionsFor(config, 1, tokens + 1, 8192)));
  double seconds = 1e30;
  for (int run = 0; run < (bench.smoke ? 1 : 3); ++run) {  // the first chooses algorithms
    std::vector<Request> requests;
    requests.push_back(Ask(RandomTokens(tokens, 41 + static_cast<uint64_t>(run), config.vocab), 1));
    KVASIR_ASSIGN_OR_RETURN(const std::vector<Spoken> all,
                            RunRequests(*engine, std::move(requests)));
    seconds = std::min(seconds, all.front().seconds.front());
  }
  KVASIR_RETURN_IF_ERROR(loaded.backend->status());
  const std::string name = loaded.name + ", prefill of " + std::to_string(tokens);
  bench.report.AddRate(name, tokens, seconds, "tokens/s");
  const double rate =
      bench.report.AddRate(name, PrefillWork(*loaded.model, tokens), seconds, "TFLOP/s");
  if (!expected) return Status::Ok();
  bench.report.Expect({name + " of the bf16 product", "%", 100 * rate / bench.ceilings.matmul, 55});
  return Status::Ok();
}

Result<Loaded> Make(const ModelShape& shape, DType weights, bool overlapped) {
  Loaded loaded;
  loaded.name = shape.name + " " + TypeName(weights);
  if (!overlapped) loaded.name += ", kernels one by one";
  KVASIR_ASSIGN_OR_RETURN(loaded.backend, OpenCard(CudaCompute::kBf16, overlapped));
  KVASIR_ASSIGN_OR_RETURN(loaded.model, MakeRandomModel(shape, weights, *loaded.backend));
  return loaded;
}

// What a model that is bound by launches gains from kernels that overlap.
Status MeasureOneByOne(Bench& bench, const ModelShape& shape, DType weights) {
  KVASIR_ASSIGN_OR_RETURN(const Loaded loaded, Make(shape, weights, false));
  const Load load = bench.smoke ? Load{1, 16} : Load{1, 512};
  return Decode(bench, loaded, load).status();
}

Status Measure(Bench& bench, const ModelShape& shape, DType weights) {
  KVASIR_ASSIGN_OR_RETURN(const Loaded loaded, Make(shape, weights, true));
  const bool large = !bench.smoke && shape.vocab > 100000, bf16 = weights == DType::kBF16;
  const int32_t prompt = bench.smoke ? 24 : 8192;
  KVASIR_RETURN_IF_ERROR(Prefill(bench, loaded, prompt, bf16 && (large || bench.smoke)));
  const std::vector<Load> loads =
      bench.smoke ? std::vector<Load>{{1, 16}, {3, 16}}
                  : std::vector<Load>{{1, 512}, {8, 2048}, {32, 2048}, {128, 512}};
  for (const Load& load : loads) {
    KVASIR_ASSIGN_OR_RETURN(const DecodeRate rate, Decode(bench, loaded, load));
    const std::string name = loaded.name + ", decode, batch " + std::to_string(load.batch);
    if (large && bf16 && load.batch == 1) {
      bench.report.Expect({name + ", of the copy bandwidth", "%", 100 * rate.share, 80});
    } else if (large && bf16 && load.batch == 32) {
      bench.report.Expect(
          {name + ", 2k context, of the copy bandwidth", "%", 100 * rate.share, 65});
    } else if (!large && load.batch == 1) {
      bench.report.Expect({name, "tokens/s", rate.tokens, 1800});
    }
  }
  return large ? Status::Ok() : MeasureOneByOne(bench, shape, weights);
}

}  // namespace

Status RunGeneration(Bench& bench) {
  std::vector<ModelShape> shapes = {SmolShape(), LlamaShape()};
  if (bench.smoke) shapes = {TinyShape()};
  for (const ModelShape& shape : shapes) {
    for (const DType weights : {DType::kBF16, DType::kQ4_0}) {
      KVASIR_RETURN_IF_ERROR(Measure(bench, shape, weights));
    }
  }
  return Status::Ok();
}

}  // namespace kvasir::bench
