// kvasir bench: speeds of prefill and decode, time to first token by policy and tier, KV of
// requests that share chunks, roofs, and resident memory, all in one run on this machine. Uses a
// data folder of its own.
#include <unistd.h>

#include <algorithm>
#include <boost/json.hpp>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <thread>

#include "kernels/cpu/cpu_backend.h"
#include "kernels/cpu/roof.h"
#include "service/blocking_answer.h"
#include "service/cli/bench_batch.h"
#include "service/cli/bench_orders.h"
#include "service/cli/bench_roof.h"
#include "service/cli/commands.h"
#include "service/cli/print.h"

namespace kvasir {
namespace {

namespace json = boost::json;

constexpr int kChunks = 8;
constexpr int kChunkTokens = 250;
constexpr int kDecodeTokens = 64;

double Median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

// A folder that goes away with its owner.
class ScratchFolder {
 public:
  ScratchFolder() {
    std::string pattern = (std::filesystem::temp_directory_path() / "kvasir-bench-XXXXXX").string();
    if (mkdtemp(pattern.data()) != nullptr) path_ = pattern;
  }
  ~ScratchFolder() {
    std::error_code ignored;
    if (!path_.empty()) std::filesystem::remove_all(path_, ignored);
  }
  ScratchFolder(const ScratchFolder&) = delete;
  ScratchFolder& operator=(const ScratchFolder&) = delete;
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

// Numbers below 2^32 that look random: the same on every machine.
class Numbers {
 public:
  explicit Numbers(uint64_t seed) : state_(seed * 2 + 1) {}
  uint32_t Next() {
    state_ = state_ * 6364136223846793005u + 1442695040888963407u;
    return static_cast<uint32_t>(state_ >> 32);
  }

 private:
  uint64_t state_;
};

class Bench {
 public:
  Bench(Config config, RuntimeParts parts, const BenchArguments& arguments)
      : config_(std::move(config)), parts_(std::move(parts)), arguments_(arguments) {}

  Result<json::object> Run();

 private:
  Status Restart() {
    runtime_.reset();
    rag_.reset();
    KVASIR_ASSIGN_OR_RETURN(runtime_, Runtime::Create(config_, parts_));
    rag_ = std::make_unique<RagPipeline>(*runtime_);
    return Status::Ok();
  }
  PreparedPrompt RawPrompt(int tokens, uint64_t seed) const;
  Result<double> PrefillTps(int tokens);
  Result<double> DecodeTps(int context);
  Result<std::string> ChunkText(int index) const;
  Result<PreparedPrompt> Prepare(CacheMode mode, const std::string& policy, int turn,
                                 int chunks = kChunks);
  Result<double> Ttft(CacheMode mode, const std::string& policy, int turn);
  Status MeasureSpeeds(json::object* body);
  Status MeasureTtft(json::object* body);
  Status MeasureManyAnswers(json::object* body);
  Status MakeChunks();

  Config config_;
  RuntimeParts parts_;
  BenchArguments arguments_;
  std::unique_ptr<Runtime> runtime_;
  std::unique_ptr<RagPipeline> rag_;
  std::vector<std::string> texts_;
  int turn_ = 0;
};

// An exact prompt of ordinary tokens, without any reuse.
PreparedPrompt Bench::RawPrompt(int tokens, uint64_t seed) const {
  PreparedPrompt prompt;
  Numbers numbers(seed);
  SegmentPlan segment;
  const auto span =
      static_cast<uint32_t>(std::min(runtime_->tokenizer().VocabularySize() * 9 / 10, 20000));
  for (int i = 0; i < tokens; ++i) {
    segment.token_ids.push_back(static_cast<int32_t>(span / 10 + numbers.Next() % (span * 9 / 10)));
  }
  prompt.plan.segments.push_back(std::move(segment));
  prompt.report.account = AccountOf(prompt.plan);
  prompt.begin = std::chrono::steady_clock::now();
  return prompt;
}

Result<double> Bench::PrefillTps(int tokens) {
  std::vector<double> speeds;
  for (int i = 0; i < arguments_.repeats; ++i) {
    const PreparedPrompt prompt = RawPrompt(tokens, static_cast<uint64_t>(i));
    KVASIR_ASSIGN_OR_RETURN(const BlockingAnswer answer,
                            AnswerBlocking(*runtime_, *rag_, prompt, {}, 1, nullptr, true));
    speeds.push_back(tokens / answer.timing.prefill_ms * 1000);
  }
  return Median(speeds);
}

Result<double> Bench::DecodeTps(int context) {
  std::vector<double> speeds;
  for (int i = 0; i < arguments_.repeats; ++i) {
    const PreparedPrompt prompt = RawPrompt(std::max(context, 1), static_cast<uint64_t>(i));
    KVASIR_ASSIGN_OR_RETURN(
        const BlockingAnswer answer,
        AnswerBlocking(*runtime_, *rag_, prompt, {}, kDecodeTokens, nullptr, true));
    speeds.push_back(static_cast<double>(answer.tokens - 1) / answer.timing.decode_ms * 1000);
  }
  return Median(speeds);
}

Status Bench::MeasureSpeeds(json::object* body) {
  json::object prefill, decode;
  // The first run pages the weights in.
  KVASIR_RETURN_IF_ERROR(
      AnswerBlocking(*runtime_, *rag_, RawPrompt(64, 9), {}, 4, nullptr, true).status());
  KVASIR_ASSIGN_OR_RETURN(const double empty, DecodeTps(0));
  decode["0"] = empty;
  for (const int length : arguments_.lengths) {
    KVASIR_ASSIGN_OR_RETURN(const double fill, PrefillTps(length));
    KVASIR_ASSIGN_OR_RETURN(const double generate, DecodeTps(length));
    prefill[std::to_string(length)] = fill;
    decode[std::to_string(length)] = generate;
  }
  (*body)["prefill_tps"] = std::move(prefill);
  (*body)["decode_tps"] = std::move(decode);
  return Status::Ok();
}

// Text of plain words that renders to kChunkTokens tokens or a few more.
Result<std::string> Bench::ChunkText(int index) const {
  constexpr const char* words[] = {"table", "page",  "index", "value", "file",  "write",
                                   "lock",  "query", "row",   "cache", "store", "key"};
  Numbers numbers(static_cast<uint64_t>(index) + 77);
  std::string text;
  for (int i = 0; i < 100000; ++i) {
    if (!text.empty()) text += ' ';
    text += words[numbers.Next() % std::size(words)];
    KVASIR_ASSIGN_OR_RETURN(const auto ids, runtime_->chat_template().RenderDocument("", text));
    if (static_cast<int>(ids.size()) >= kChunkTokens) break;
  }
  return text;
}

Status Bench::MakeChunks() {
  for (int i = 0; i < kChunks; ++i) {
    KVASIR_ASSIGN_OR_RETURN(std::string text, ChunkText(i));
    texts_.push_back(std::move(text));
  }
  return Ttft(CacheMode::kFused, "concat", 0).status();  // computes and stores them
}

// The chunks in the order of `turn`, one of 16, with its own question.
Result<PreparedPrompt> Bench::Prepare(CacheMode mode, const std::string& policy, int turn,
                                      int chunks) {
  const int stride = turn / kChunks % 2 == 0 ? 3 : 5;
  RagRequest request;
  request.messages = {{"user", "Question number " + std::to_string(++turn_) +
                                   ": which of these words comes first in the passages?"}};
  for (int i = 0; i < chunks; ++i) {
    DocumentInput document;
    document.text = texts_[static_cast<size_t>((i * stride + turn) % kChunks)];
    document.has_text = true;
    request.documents.push_back(std::move(document));
  }
  request.cache.mode = mode;
  request.cache.policy = policy;
  return rag_->Prepare(request);
}

Result<double> Bench::Ttft(CacheMode mode, const std::string& policy, int turn) {
  KVASIR_ASSIGN_OR_RETURN(const PreparedPrompt prompt, Prepare(mode, policy, turn));
  KVASIR_ASSIGN_OR_RETURN(const BlockingAnswer answer,
                          AnswerBlocking(*runtime_, *rag_, prompt, {}, 1, nullptr, true));
  return answer.ttft_ms;
}

Status Bench::MeasureTtft(json::object* body) {
  KVASIR_RETURN_IF_ERROR(MakeChunks());
  std::vector<double> exact, prefix_same, prefix_new;
  json::object result;
  constexpr std::pair<const char*, const char*> policies[] = {{"concat", "concat"},
                                                              {"link16", "link(16)"},
                                                              {"query05", "query(0.05)"},
                                                              {"query15", "query(0.15)"}};
  for (const auto& [key, policy] : policies) {
    std::vector<double> disk, pool;
    for (int i = 0; i < arguments_.repeats; ++i) {
      KVASIR_RETURN_IF_ERROR(Restart());
      KVASIR_ASSIGN_OR_RETURN(const double first, Ttft(CacheMode::kFused, policy, 2 * i + 1));
      KVASIR_ASSIGN_OR_RETURN(const double second, Ttft(CacheMode::kFused, policy, 2 * i + 2));
      disk.push_back(first);
      pool.push_back(second);
    }
    result[key] = {{"disk", Median(disk)}, {"pool", Median(pool)}};
  }
  for (int i = 0; i < arguments_.repeats; ++i) {
    KVASIR_ASSIGN_OR_RETURN(const double all, Ttft(CacheMode::kExact, "", i));
    KVASIR_ASSIGN_OR_RETURN(const double other, Ttft(CacheMode::kPrefix, "", i));
    KVASIR_ASSIGN_OR_RETURN(const double same, Ttft(CacheMode::kPrefix, "", i));
    exact.push_back(all);
    prefix_new.push_back(other);
    prefix_same.push_back(same);
  }
  result["exact"] = Median(exact);
  result["prefix"] = {{"new_order", Median(prefix_new)}, {"pool", Median(prefix_same)}};
  (*body)["ttft_ms"] = std::move(result);
  return Status::Ok();
}

// Contexts of 512 tokens: their own, then two chunks that all share and a question of their own;
// then all chunks, 2,000 tokens, that all share.
Status Bench::MeasureManyAnswers(json::object* body) {
  constexpr int kContext = 512;
  KVASIR_ASSIGN_OR_RETURN((*body)["batch_decode_tps"],
                          MeasureBatches(*rag_, [this](int index) -> Result<PreparedPrompt> {
                            return RawPrompt(kContext, static_cast<uint64_t>(index));
                          }));
  const auto shared = [this](int chunks) {
    return MeasureBatches(
        *rag_, [this, chunks](int) { return Prepare(CacheMode::kFused, "concat", 0, chunks); });
  };
  KVASIR_ASSIGN_OR_RETURN((*body)["shared_batch_tps"], shared(kContext / kChunkTokens));
  KVASIR_ASSIGN_OR_RETURN((*body)["shared_2000_batch_tps"], shared(kChunks));
  return Status::Ok();
}

double ResidentMib() {
  std::ifstream file("/proc/self/statm");
  double total = 0, resident = 0;
  file >> total >> resident;
  return resident * static_cast<double>(sysconf(_SC_PAGESIZE)) / (1 << 20);
}

std::string ProcessorName() {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);) {
    if (line.starts_with("model name")) return line.substr(line.find(':') + 2);
  }
  return "unknown";
}

Result<json::object> Bench::Run() {
  json::object body;
  KVASIR_RETURN_IF_ERROR(Restart());
  KVASIR_RETURN_IF_ERROR(MeasureSpeeds(&body));
  KVASIR_RETURN_IF_ERROR(MeasureTtft(&body));
  KVASIR_RETURN_IF_ERROR(MeasureManyAnswers(&body));
  KVASIR_ASSIGN_OR_RETURN(body["shared_kv"], MeasureOrders(*runtime_, *rag_, [this](int turn) {
                            return Prepare(CacheMode::kFused, "concat", turn);
                          }));
  const double weights = static_cast<double>(parts_.model->WeightBytes()) / (1 << 20);
  body["weights_mib"] = weights;
  body["resident_mib"] = ResidentMib();
  body["resident_bound_mib"] = weights + static_cast<double>(config_.engine_pool_mib) +
                               static_cast<double>(config_.cache_memory_mib) + 150;
  return body;
}

Result<json::object> RunAll(const CliContext& context, BenchArguments arguments) {
  if (arguments.lengths.empty()) arguments.lengths = {512, 2048};
  const ScratchFolder scratch;
  if (scratch.path().empty()) return FailedPrecondition("cannot make a temporary folder");
  Config config = context.config();
  config.data_folder = scratch.path();
  double start_ms = 0;
  RuntimeParts parts;
  {
    KVASIR_ASSIGN_OR_RETURN(const auto first, Runtime::Create(config));
    start_ms = first->start_ms();
    parts = first->parts();
  }
  const int threads = config.engine_threads > 0
                          ? static_cast<int>(config.engine_threads)
                          : static_cast<int>(std::thread::hardware_concurrency());
  Bench bench(config, parts, arguments);
  KVASIR_ASSIGN_OR_RETURN(json::object body, bench.Run());
  body["model"] = std::filesystem::path(parts.model->path).filename().string();
  body["machine"] = ProcessorName();
  body["isa"] = std::string(parts.backend->name());
  body["threads"] = threads;
  body["compute"] = config.engine_compute;
  body["kv_dtype"] = config.engine_kv_dtype;
  body["start_to_ready_ms"] = start_ms;
  body["device"] = parts.backend->device();
  if (!parts.backend->device().empty()) return body;  // the roofs are the processors'
  KVASIR_ASSIGN_OR_RETURN(const Roof roof, MeasureRoof(threads));
  body["roof"] = {{"gflops_bf16", roof.gflops_bf16},
                  {"gflops_fp32", roof.gflops_fp32},
                  {"gops_int8", roof.gops_int8},
                  {"dram_gbps", roof.dram_gbps}};
  body["roof_share"] = SharesOfRoof(body, WorkOf(*parts.model, config, roof));
  return body;
}

}  // namespace

int RunBench(const CliContext& context, const BenchArguments& arguments) {
  for (const int length : arguments.lengths) {
    if (length < 1 || length > (1 << 20)) {
      PrintError("--lengths: " + std::to_string(length) + " is not between 1 and 1048576");
      return kExitUsage;
    }
  }
  const auto body = RunAll(context, arguments);
  if (!body.ok()) return Fail(body.status(), "bench");
  if (context.json) {
    std::printf("%s\n", json::serialize(*body).c_str());
  } else {
    std::printf("%s", BenchTable(*body).c_str());
  }
  return kExitOk;
}

}  // namespace kvasir
