// What tests of the pipelines stand on: a runtime over a tiny random model and an embedder that
// counts letters, in a data folder of its own that can be closed and opened again.
#pragma once

#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <condition_variable>
#include <filesystem>
#include <fstream>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "kernels/cpu/cpu_backend.h"
#include "service/blocking_answer.h"
#include "service/http/api.h"
#include "service/http/generation.h"
#include "service/service_context.h"
#include "tests/engine/tiny_model.h"

namespace kvasir {

// Vectors of letter counts: deterministic, and near for texts that share letters.
class LetterEmbedder : public Embedder {
 public:
  Result<std::vector<float>> Embed(std::span<const std::string> texts) override {
    std::vector<float> all;
    for (const std::string& text : texts) {
      std::vector<float> vector(26, 0.01F);
      for (const char c : text) {
        if (c >= 'a' && c <= 'z') vector[static_cast<size_t>(c - 'a')] += 1;
      }
      float norm = 0;
      for (const float x : vector) norm += x * x;
      for (const float x : vector) all.push_back(x / std::sqrt(norm));
    }
    return all;
  }
  int32_t dimension() const override { return 26; }
  const std::string& identity() const override { return identity_; }
  size_t weight_bytes() const override { return 0; }

 private:
  std::string identity_ = "letters";
};

inline HttpReply Call(ServiceContext& service, const std::string& method, const std::string& target,
                      const std::string& body = "", const std::string& type = "application/json") {
  HttpRequest request;
  request.method = method;
  EXPECT_TRUE(ParseTarget(target, &request));
  request.body = body;
  request.content_type = type;
  return HandleRequest(service, MatchRoute(method, request.path), request);
}

class PipelineTest : public testing::Test {
 protected:
  virtual test::TinyModelOptions ModelOptions() const { return {}; }
  // What stands before the CPU backend.
  virtual std::shared_ptr<Backend> Wrap(std::shared_ptr<Backend> backend) { return backend; }
  void SetUp() override {
    folder_ = testing::TempDir() + "/kvasir-pipeline-" + std::to_string(getpid()) + "-" +
              testing::UnitTest::GetInstance()->current_test_info()->name();
    std::filesystem::remove_all(folder_);
    config_.data_folder = folder_ + "/data";
    config_.engine_pool_mib = 16;
    config_.engine_kv_dtype = "f32";
    config_.cache_memory_mib = 4;
    config_.chunk_tokens = 96;
    config_.collection_system = "Answer.";
    CpuOptions options;
    options.threads = 1;
    auto backend = CreateCpuBackend(options);
    ASSERT_TRUE(backend.ok()) << backend.status().ToString();
    parts_.backend = Wrap(std::move(*backend));
    auto model = LoadGgufModel(test::WriteTinyModel(ModelOptions()), *parts_.backend);
    ASSERT_TRUE(model.ok()) << model.status().ToString();
    parts_.model = *model;
    parts_.embedder = std::make_shared<LetterEmbedder>();
    Start();
  }
  void TearDown() override {
    Stop();
    std::filesystem::remove_all(folder_);
  }
  void Start() {
    auto runtime = Runtime::Create(config_, parts_);
    ASSERT_TRUE(runtime.ok()) << runtime.status().ToString();
    runtime_ = std::move(*runtime);
    service_ = std::make_unique<ServiceContext>(*runtime_);
  }
  void Stop() {
    service_.reset();
    runtime_.reset();
  }
  void Restart() {
    Stop();
    Start();
  }
  std::string WriteFile(const std::string& name, const std::string& text) {
    const std::string path = folder_ + "/" + name;
    std::ofstream(path) << text;
    return path;
  }
  static RagRequest Question(const std::vector<std::string>& texts, CacheMode mode,
                             const std::string& policy = "") {
    RagRequest request;
    request.messages = {{"user", "why?"}};
    for (const std::string& text : texts) request.documents.push_back({"", "", text, true});
    request.cache.mode = mode;
    request.cache.policy = policy;
    return request;
  }
  // Prepares, answers eight tokens, checks the sum of the account.
  CacheReport Ask(const RagRequest& request, std::string* answer = nullptr) {
    auto prompt = service_->rag.Prepare(request);
    EXPECT_TRUE(prompt.ok()) << prompt.status().ToString();
    if (!prompt.ok()) return {};
    auto text = AnswerBlocking(*runtime_, service_->rag, *prompt, {}, 8, nullptr, true);
    EXPECT_TRUE(text.ok()) << text.status().ToString();
    if (text.ok() && answer != nullptr) *answer = text->text;
    const PromptAccount& account = prompt->report.account;
    EXPECT_EQ(account.requested,
              account.prefix + account.fused + account.recomputed + account.computed);
    EXPECT_GE(std::min({account.prefix, account.fused, account.recomputed, account.computed}), 0);
    return prompt->report;
  }
  static std::vector<std::string> StatusesOf(const CacheReport& report) {
    std::vector<std::string> statuses;
    for (const DocumentReport& document : report.documents) statuses.push_back(document.status);
    return statuses;
  }

  std::string folder_;
  Config config_;
  RuntimeParts parts_;
  std::unique_ptr<Runtime> runtime_;
  std::unique_ptr<ServiceContext> service_;
};

// Counts wake-ups; shared with the engine's thread, which may ring once more after the end.
struct Bell {
  std::mutex mutex;
  std::condition_variable changed;
  int rings = 0;
  void Ring() {
    std::lock_guard lock(mutex);
    ++rings;
    changed.notify_one();
  }
  void Wait() {
    std::unique_lock lock(mutex);
    changed.wait(lock, [this] { return rings > 0; });
    rings = 0;
  }
};

// Runs a generation to its end, as the session does.
inline std::string RunGeneration(ServiceContext& service, const std::string& body,
                                 HttpReply* whole = nullptr) {
  auto bell = std::make_shared<Bell>();
  auto request = ParseChatRequest(body, {});
  EXPECT_TRUE(request.ok()) << request.error().message;
  auto run = Generation::Start(service, std::move(*request), [bell] { bell->Ring(); });
  EXPECT_TRUE(run.ok()) << run.error().message;
  std::string bytes = (*run)->Drain();
  while (!(*run)->finished()) {
    bell->Wait();
    bytes += (*run)->Drain();
  }
  if (whole != nullptr) *whole = (*run)->Reply();
  return bytes;
}

using Statuses = std::vector<std::string>;

}  // namespace kvasir
