// What engine and gate tests share: backends, models, engines, and requests that are run to the
// end.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "engine/engine.h"
#include "tests/engine/tiny_model.h"

namespace kvasir::test {

using Ids = std::vector<int32_t>;

struct BackendChoice {
  std::string name;  // a test's parameter name: letters and digits
  std::function<std::shared_ptr<Backend>(int threads)> create;
};
// The reference and one CPU backend for every instruction set of this machine; where the CUDA
// emulation is linked in, the emulated card instead.
std::vector<BackendChoice> AllBackends();
BackendChoice BestCpu();

// A model packed for a backend.
struct Loaded {
  std::shared_ptr<Backend> backend;
  std::shared_ptr<const Model> model;
};
Loaded LoadTiny(const BackendChoice& choice, const TinyModelOptions& options, int threads = 1);
// Where the models lie: KVASIR_MODEL_DIR, $XDG_CACHE_HOME/kvasir/models or ~/.cache/kvasir/models.
std::string ModelPath(const std::string& file);

// An engine with an fp32 pool that is poisoned with NaN wherever nothing has been written.
EngineOptions ExactOptions(size_t pool_bytes = size_t{8} << 20);
std::unique_ptr<Engine> MakeEngine(const Loaded& loaded, const EngineOptions& options);

// ---- one tiny llama, shared by a process, and engines over it
const Loaded& Tiny();
// One block of it: 3 layers x 2 (K, V) x 2 heads x 16 dims x 16 tokens x 4 bytes.
inline constexpr size_t kTinyBlockBytes = size_t{3} * 2 * 2 * 16 * 16 * 4;
std::unique_ptr<Engine> TinyEngine(int32_t blocks = 256, EngineOptions options = ExactOptions());

// Fails the test if it takes more than 20 s.
void WaitUntil(const std::function<bool()>& condition);

// Holds the engine's thread inside a callback.
struct Gate {
  std::mutex mutex;
  std::condition_variable changed;
  bool reached = false, open = false;
  void Pass();
  void WaitReached();
  void Open();
};

// Everything a request said.
struct Answer {
  Ids tokens;
  std::vector<TokenEvent> events;          // with a token
  std::vector<std::vector<float>> logits;  // last prompt row and every step
  TokenEvent end;
};
// Submits all and waits for all; order as given. A request's own on_logits is called too.
std::vector<Answer> RunAll(Engine& engine, std::vector<Request> requests, bool want_logits = true);
Answer RunOne(Engine& engine, Request request, bool want_logits = true);

// ---- prompts
Ids RandomTokens(int32_t count, uint64_t seed, int32_t vocab = kTinyVocabulary);
Ids Join(const std::vector<Ids>& parts);
SegmentPlan Fresh(Ids tokens);
SegmentPlan Reused(const Ids& tokens, std::shared_ptr<const KvBlocks> blocks, Ids recompute = {},
                   ReuseKind kind = ReuseKind::kFused);
Ids AllRows(int32_t count);
Request Ask(std::vector<SegmentPlan> segments, int32_t max_tokens = 1);

// ---- chunk KV
// K and V of `chunk` behind `anchor` (may be empty), as ingestion computes them.
std::shared_ptr<KvCapture> CaptureChunk(Engine& engine, const Ids& anchor, const Ids& chunk);
std::vector<KvLayerPlanes> PlanesOf(const KvCapture& capture);
std::shared_ptr<const KvBlocks> LoadChunk(Engine& engine, const KvCapture& capture);

float MaxDifference(const std::vector<float>& a, const std::vector<float>& b);
// KL(softmax(a) || softmax(b)) in nats.
double KlDivergence(const std::vector<float>& a, const std::vector<float>& b);
bool SameBits(const std::vector<float>& a, const std::vector<float>& b);

}  // namespace kvasir::test
