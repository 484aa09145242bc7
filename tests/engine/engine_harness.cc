#include "tests/engine/engine_harness.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <limits>
#include <numeric>
#include <random>
#include <thread>
#include <utility>

#include "kernels/core/reference_backend.h"
#include "kernels/cpu/cpu_backend.h"
#if defined(KVASIR_CUDA_EMULATION)
#include "kernels/cuda/cuda_backend.h"
#endif

namespace kvasir::test {
namespace {

BackendChoice CpuChoice(Isa isa) {
  return {"Cpu" + std::string(IsaName(isa)), [isa](int threads) {
            auto backend = CreateCpuBackend({.threads = threads, .isa = isa});
            EXPECT_TRUE(backend.ok()) << backend.status().ToString();
            return std::shared_ptr<Backend>(std::move(backend).value());
          }};
}

// Collects the events of several requests. Outlives them: the waiting thread owns it.
class Collector {
 public:
  explicit Collector(size_t requests) : answers_(requests), left_(requests) {}

  void Event(size_t index, const TokenEvent& event) {
    const std::lock_guard lock(mutex_);
    Answer& answer = answers_[index];
    EXPECT_EQ(answer.end.finish, FinishReason::kNone) << "an event after the last one";
    if (event.finish != FinishReason::kNone) {
      answer.end = event;
      if (--left_ == 0) done_.notify_all();
      return;
    }
    answer.tokens.push_back(event.token);
    answer.events.push_back(event);
  }
  void Logits(size_t index, const std::vector<float>& logits) {
    const std::lock_guard lock(mutex_);
    answers_[index].logits.push_back(logits);
  }
  void Refused(size_t index, const Status& status) {
    TokenEvent event;
    event.finish = FinishReason::kError;
    event.status = status;
    Event(index, event);
  }
  std::vector<Answer> Wait() {
    std::unique_lock lock(mutex_);
    done_.wait(lock, [this] { return left_ == 0; });
    return std::move(answers_);
  }

 private:
  std::mutex mutex_;
  std::condition_variable done_;
  std::vector<Answer> answers_;
  size_t left_;
};

std::vector<double> LogSoftmax(const std::vector<float>& x) {
  const double top = *std::max_element(x.begin(), x.end());
  double total = 0;
  for (const float value : x) total += std::exp(value - top);
  std::vector<double> out;
  for (const float value : x) out.push_back(value - top - std::log(total));
  return out;
}

}  // namespace

#if defined(KVASIR_CUDA_EMULATION)

std::vector<BackendChoice> AllBackends() {
  return {{"CudaEmulated", [](int) {
             auto backend = CreateCudaBackend({.compute = CudaCompute::kF32});
             EXPECT_TRUE(backend.ok()) << backend.status().ToString();
             return std::shared_ptr<Backend>(std::move(backend).value());
           }}};
}

#else

std::vector<BackendChoice> AllBackends() {
  std::vector<BackendChoice> choices = {
      {"Reference", [](int) { return std::shared_ptr<Backend>(CreateReferenceBackend()); }}};
  for (const Isa isa : SupportedIsas()) choices.push_back(CpuChoice(isa));
  return choices;
}

#endif

BackendChoice BestCpu() { return CpuChoice(SupportedIsas().back()); }

Loaded LoadTiny(const BackendChoice& choice, const TinyModelOptions& options, int threads) {
  Loaded loaded{choice.create(threads), nullptr};
  const std::string path = WriteTinyModel(options);
  auto model = LoadGgufModel(path, *loaded.backend);
  std::filesystem::remove(path);
  EXPECT_TRUE(model.ok()) << model.status().ToString();
  loaded.model = std::move(model).value();
  return loaded;
}

std::string ModelPath(const std::string& file) {
  const auto variable = [](const char* name) {
    const char* value = std::getenv(name);
    return std::string(value ? value : "");
  };
  if (const auto dir = variable("KVASIR_MODEL_DIR"); !dir.empty()) return dir + "/" + file;
  std::string cache = variable("XDG_CACHE_HOME");
  if (cache.empty()) cache = variable("HOME") + "/.cache";
  return cache + "/kvasir/models/" + file;
}

EngineOptions ExactOptions(size_t pool_bytes) {
  EngineOptions options;
  options.pool_bytes = pool_bytes;
  options.kv_dtype = DType::kF32;
  options.poison_blocks = true;
  return options;
}

std::unique_ptr<Engine> MakeEngine(const Loaded& loaded, const EngineOptions& options) {
  auto engine = Engine::Create(loaded.model, loaded.backend, options);
  EXPECT_TRUE(engine.ok()) << engine.status().ToString();
  return std::move(engine).value();
}

const Loaded& Tiny() {
  // With tied embeddings a random model only repeats its last token.
  static const Loaded* loaded = new Loaded(LoadTiny(BestCpu(), {.tied = false}));
  return *loaded;
}

std::unique_ptr<Engine> TinyEngine(int32_t blocks, EngineOptions options) {
  options.pool_bytes = kTinyBlockBytes * static_cast<size_t>(blocks);
  return MakeEngine(Tiny(), options);
}

void WaitUntil(const std::function<bool()>& condition) {
  for (int i = 0; i < 20000 && !condition(); ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  ASSERT_TRUE(condition());
}

void Gate::Pass() {
  std::unique_lock lock(mutex);
  reached = true;
  changed.notify_all();
  changed.wait(lock, [this] { return open; });
}

void Gate::WaitReached() {
  std::unique_lock lock(mutex);
  changed.wait(lock, [this] { return reached; });
}

void Gate::Open() {
  const std::lock_guard lock(mutex);
  open = true;
  changed.notify_all();
}

std::vector<Answer> RunAll(Engine& engine, std::vector<Request> requests, bool want_logits) {
  auto collector = std::make_shared<Collector>(requests.size());
  for (size_t i = 0; i < requests.size(); ++i) {
    requests[i].sink = [collector, i](const TokenEvent& event) { collector->Event(i, event); };
    if (want_logits) {
      requests[i].on_logits = [collector, i,
                               own = requests[i].on_logits](const std::vector<float>& logits) {
        collector->Logits(i, logits);
        if (own) own(logits);
      };
    }
    const auto id = engine.Submit(std::move(requests[i]));
    if (!id.ok()) collector->Refused(i, id.status());
  }
  return collector->Wait();
}

Answer RunOne(Engine& engine, Request request, bool want_logits) {
  std::vector<Request> requests;
  requests.push_back(std::move(request));
  return std::move(RunAll(engine, std::move(requests), want_logits).front());
}

Ids RandomTokens(int32_t count, uint64_t seed, int32_t vocab) {
  std::mt19937_64 random(seed);
  Ids ids;
  for (int32_t i = 0; i < count; ++i) {
    ids.push_back(3 + static_cast<int32_t>(random() % static_cast<uint64_t>(vocab - 3)));
  }
  return ids;
}

Ids Join(const std::vector<Ids>& parts) {
  Ids all;
  for (const Ids& part : parts) all.insert(all.end(), part.begin(), part.end());
  return all;
}

SegmentPlan Fresh(Ids tokens) { return {std::move(tokens), nullptr, ReuseKind::kNone, {}}; }

SegmentPlan Reused(const Ids& tokens, std::shared_ptr<const KvBlocks> blocks, Ids recompute,
                   ReuseKind kind) {
  return {tokens, std::move(blocks), kind, std::move(recompute)};
}

Ids AllRows(int32_t count) {
  Ids rows(static_cast<size_t>(count));
  std::iota(rows.begin(), rows.end(), 0);
  return rows;
}

Request Ask(std::vector<SegmentPlan> segments, int32_t max_tokens) {
  Request request;
  request.prompt.segments = std::move(segments);
  request.max_tokens = max_tokens;
  return request;
}

std::shared_ptr<KvCapture> CaptureChunk(Engine& engine, const Ids& anchor, const Ids& chunk) {
  std::vector<SegmentPlan> segments;
  if (!anchor.empty()) segments.push_back(Fresh(anchor));
  segments.push_back(Fresh(chunk));
  Request request = Ask(std::move(segments), 0);
  auto capture = std::make_shared<KvCapture>();
  request.capture = capture;
  const Answer answer = RunOne(engine, std::move(request), false);
  EXPECT_TRUE(answer.end.status.ok()) << answer.end.status.ToString();
  EXPECT_EQ(capture->tokens, static_cast<int32_t>(chunk.size()));
  return capture;
}

std::vector<KvLayerPlanes> PlanesOf(const KvCapture& capture) {
  std::vector<KvLayerPlanes> planes;
  for (int32_t layer = 0; layer < capture.layers; ++layer) {
    const size_t at = static_cast<size_t>(layer) * capture.LayerStride();
    planes.push_back({DType::kF32, capture.tokens, capture.k.data() + at, nullptr,
                      capture.v.data() + at, nullptr});
  }
  return planes;
}

std::shared_ptr<const KvBlocks> LoadChunk(Engine& engine, const KvCapture& capture) {
  auto blocks = engine.LoadBlocks(PlanesOf(capture));
  EXPECT_TRUE(blocks.ok()) << blocks.status().ToString();
  return std::move(blocks).value();
}

float MaxDifference(const std::vector<float>& a, const std::vector<float>& b) {
  if (a.size() != b.size()) return std::numeric_limits<float>::infinity();
  float most = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    const float difference = std::fabs(a[i] - b[i]);
    if (std::isnan(difference)) return std::numeric_limits<float>::infinity();
    most = std::max(most, difference);
  }
  return most;
}

double KlDivergence(const std::vector<float>& a, const std::vector<float>& b) {
  const std::vector<double> p = LogSoftmax(a), q = LogSoftmax(b);
  double sum = 0;
  for (size_t i = 0; i < p.size(); ++i) sum += std::exp(p[i]) * (p[i] - q[i]);
  return sum;
}

bool SameBits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() &&
         (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0);
}

}  // namespace kvasir::test
