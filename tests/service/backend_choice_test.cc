// engine.backend: what every command computes on, where there is no library, no driver, an old
// card, a card without memory, and a card (the emulated one, loaded as a library).
#include "service/backend_choice.h"

#include <dlfcn.h>
#include <gtest/gtest.h>

#include <boost/json.hpp>
#include <cstdlib>
#include <string>
#include <utility>
#include <vector>

#include "service/cli/app.h"
#include "service/log.h"
#include "tests/service/pipeline_fixture.h"

namespace kvasir {
namespace {

namespace json = boost::json;

struct Outcome {
  int exit = 0;
  std::string out, error;
};

class BackendChoice : public testing::Test {
 protected:
  BackendChoice() {
    folder_ = testing::TempDir() + "/kvasir-backend-" + std::to_string(getpid()) + "-" +
              testing::UnitTest::GetInstance()->current_test_info()->name();
    std::filesystem::remove_all(folder_);
    model_ = test::WriteTinyModel({});
    setenv("KVASIR_CUDA_LIBRARY", "/nowhere/libkvasir_kernels_cuda.so", 1);
  }
  ~BackendChoice() override {
    unsetenv("KVASIR_CUDA_LIBRARY");
    StartLog("off");
    std::filesystem::remove_all(folder_);
    std::filesystem::remove(model_);
  }

  Outcome Run(const std::vector<std::string>& arguments) const {
    std::vector<std::string> all = {"kvasir",     "--model", model_,       "--data", folder_,
                                    "--pool-mib", "1",       "--kv-dtype", "f32"};
    all.insert(all.end(), arguments.begin(), arguments.end());
    std::vector<const char*> argv;
    for (const std::string& argument : all) argv.push_back(argument.c_str());
    testing::internal::CaptureStdout();
    testing::internal::CaptureStderr();
    Outcome outcome;
    outcome.exit = RunCommandLine(static_cast<int>(argv.size()), argv.data());
    outcome.out = testing::internal::GetCapturedStdout();
    outcome.error = testing::internal::GetCapturedStderr();
    return outcome;
  }
  // What `kvasir stats` computes on; no command is shorter.
  std::string BackendOf(const std::string& choice) const {
    const Outcome outcome = Run({"stats", "--json", "--backend", choice});
    EXPECT_EQ(outcome.exit, 0) << outcome.error;
    return outcome.exit == 0 ? std::string(json::parse(outcome.out).at("backend").as_string()) : "";
  }
  void ExpectRefused(const std::string& thing) const {
    const Outcome outcome = Run({"stats", "--backend", "cuda"});
    EXPECT_EQ(outcome.exit, 1);
    EXPECT_NE(outcome.error.find(thing), std::string::npos) << outcome.error;
    EXPECT_NE(outcome.error.find("--backend cpu"), std::string::npos) << outcome.error;
  }
  // What a server logs at start.
  std::string LogOf(const std::string& level) const {
    Config config;
    config.model_path = model_;
    config.data_folder = folder_;
    config.engine_pool_mib = 1;
    testing::internal::CaptureStderr();
    StartLog(level);
    const auto runtime = Runtime::Create(config);
    EXPECT_TRUE(runtime.ok()) << runtime.status().ToString();
    StartLog("off");
    return testing::internal::GetCapturedStderr();
  }

  std::string folder_, model_;
};

TEST_F(BackendChoice, WithoutALibraryAutoComputesOnTheCpuAndSaysSoToThoseWhoLook) {
  EXPECT_TRUE(BackendOf("auto").starts_with("cpu-"));
  EXPECT_TRUE(BackendOf("cpu").starts_with("cpu-"));
  EXPECT_EQ(LogOf("info").find("CPU"), std::string::npos);
  EXPECT_NE(LogOf("debug").find("computing on the CPU: no CUDA backend: /nowhere/"),
            std::string::npos);
}

TEST_F(BackendChoice, WithoutALibraryCudaIsRefused) { ExpectRefused("/nowhere/"); }

TEST_F(BackendChoice, DoctorMindsOnlyACardThatWasAskedFor) {
  const auto finding = [&](const std::string& choice) {
    const Outcome outcome = Run({"doctor", "--json", "--port", "0", "--backend", choice});
    const json::value body = json::parse(outcome.out);
    for (const json::value& found : body.at("findings").as_array()) {
      if (found.at("what").as_string() == "backend") return found;
    }
    return json::value();
  };
  EXPECT_TRUE(finding("auto").at("ok").as_bool());
  EXPECT_FALSE(finding("cuda").at("ok").as_bool());
  EXPECT_TRUE(finding("cpu").is_null());
}

TEST_F(BackendChoice, OtherNamesAreRefused) {
  const Outcome outcome = Run({"stats", "--backend", "tpu"});
  EXPECT_EQ(outcome.exit, 2);
  EXPECT_NE(outcome.error.find("auto, cpu, cuda"), std::string::npos) << outcome.error;
}

#if defined(KVASIR_EMULATED_CUDA_LIBRARY)

class EmulatedCard : public BackendChoice {
 protected:
  EmulatedCard() {
    setenv("KVASIR_CUDA_LIBRARY", KVASIR_EMULATED_CUDA_LIBRARY, 1);
    library_ = dlopen(KVASIR_EMULATED_CUDA_LIBRARY, RTLD_NOW | RTLD_LOCAL);
    KVASIR_CHECK(library_ != nullptr);
  }
  ~EmulatedCard() override {
    Miss(Status::Ok());
    Lose(Status::Ok());
    LimitMemory(SIZE_MAX);
  }
  void Miss(const Status& why) { Tell("kvasir_emulation_miss", why); }
  void Lose(const Status& why) { Tell("kvasir_emulation_lose", why); }
  void LimitMemory(size_t bytes) {
    reinterpret_cast<void (*)(size_t)>(dlsym(library_, "kvasir_emulation_limit"))(bytes);
  }

 private:
  void Tell(const char* name, const Status& why) {
    reinterpret_cast<void (*)(const Status*)>(dlsym(library_, name))(&why);
  }
  void* library_;
};

TEST_F(EmulatedCard, AutoTakesItAndSaysSo) {
  EXPECT_EQ(BackendOf("auto"), "cuda-bf16");
  EXPECT_EQ(BackendOf("cuda"), "cuda-bf16");
  EXPECT_TRUE(BackendOf("cpu").starts_with("cpu-"));
  const Outcome stats = Run({"stats", "--json"});
  EXPECT_NE(stats.out.find("emulated, compute capability 9.0"), std::string::npos) << stats.out;
  const Outcome doctor = Run({"doctor", "--port", "0"});
  EXPECT_NE(doctor.out.find("cuda-bf16 (emulated"), std::string::npos) << doctor.out;
}

TEST_F(EmulatedCard, NoDriverIsQuietInAutoAndRefusedInCuda) {
  Miss(NotFound("no CUDA device: no NVIDIA driver is installed"));
  EXPECT_TRUE(BackendOf("auto").starts_with("cpu-"));
  EXPECT_EQ(LogOf("info"), "");
  ExpectRefused("no NVIDIA driver is installed");
}

TEST_F(EmulatedCard, AnOldCardIsWarnedOfInAutoAndRefusedInCuda) {
  Miss(
      Unavailable("the CUDA device cannot be used: Tesla T4 has compute capability 7.5, 8.0 is "
                  "the least"));
  EXPECT_TRUE(BackendOf("auto").starts_with("cpu-"));
  EXPECT_NE(LogOf("info").find("warning computing on the CPU: the CUDA device cannot be used: "
                               "Tesla T4"),
            std::string::npos);
  ExpectRefused("compute capability 7.5");
}

TEST_F(EmulatedCard, NoMemoryForTheModelOrThePoolFallsBackWithAWarning) {
  for (const size_t bytes : {size_t{32} << 10, size_t{800} << 10}) {
    SCOPED_TRACE(bytes);
    LimitMemory(bytes);
    EXPECT_TRUE(BackendOf("auto").starts_with("cpu-"));
    const std::string log = LogOf("warning");
    EXPECT_NE(log.find("warning computing on the CPU: "), std::string::npos) << log;
    EXPECT_NE(log.find("memory"), std::string::npos) << log;
    ExpectRefused("memory");
  }
}

// A whole server but for its socket.
TEST_F(EmulatedCard, ServesAndTurnsNotReadyOnceTheCardIsLost) {
  Config config;
  config.model_path = model_;
  config.data_folder = folder_;
  config.engine_pool_mib = 1;
  config.engine_backend = "cuda";
  config.engine_max_context = 512;
  config.collection_primer_tokens = 16;
  auto runtime = Runtime::Create(config);
  ASSERT_TRUE(runtime.ok()) << runtime.status().ToString();
  ServiceContext service(**runtime);
  const std::string body =
      R"({"model":"default","max_tokens":3,"messages":[{"role":"user","content":"why?"}],)"
      R"("documents":[{"text":"the cat sat on the mat"}],)"
      R"("chunk_cache":{"mode":"fused","policy":"concat"}})";
  for (int i = 0; i < 2; ++i) {
    HttpReply reply;
    RunGeneration(service, body, &reply);
    EXPECT_EQ(reply.status, 200) << reply.body;
  }
  EXPECT_GT((*runtime)->cache().counters().hits_pool, 0u);
  EXPECT_EQ(Call(service, "GET", "/readyz").status, 200);
  const uint64_t inserted = (*runtime)->cache().counters().inserted;

  Lose(Internal("CUDA: the card: unspecified launch failure (cudaErrorLaunchFailure)"));
  HttpReply reply;
  auto request = ParseChatRequest(body, {});
  ASSERT_TRUE(request.ok());
  auto bell = std::make_shared<Bell>();
  auto run = Generation::Start(service, std::move(*request), [bell] { bell->Ring(); });
  if (run.ok()) {
    while (!(*run)->finished()) {
      bell->Wait();
      (*run)->Drain();
    }
    reply = (*run)->Reply();
  } else {
    reply.status = run.error().status;
    reply.body = run.error().message;
  }
  EXPECT_EQ(reply.status, 503);
  EXPECT_NE(reply.body.find("cudaErrorLaunchFailure"), std::string::npos) << reply.body;
  EXPECT_EQ(Call(service, "GET", "/readyz").status, 503);
  EXPECT_EQ(Call(service, "GET", "/health").status, 503);
  EXPECT_EQ((*runtime)->cache().counters().inserted, inserted);
}

#endif

}  // namespace
}  // namespace kvasir
