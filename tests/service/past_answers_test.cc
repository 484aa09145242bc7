// Answers are kept and drafted from, end to end: whose, which, for how long.
#include <gtest/gtest.h>

#include <future>

#include "service/name_space.h"
#include "tests/service/pipeline_fixture.h"

namespace kvasir {
namespace {

class PastAnswers : public PipelineTest {
 protected:
  test::TinyModelOptions ModelOptions() const override {
    test::TinyModelOptions options;
    options.tied = false;  // with tied embeddings a random model only repeats its last token
    return options;
  }
  std::string Answer(const RagRequest& request, int32_t tokens = 40) {
    auto prompt = service_->rag.Prepare(request);
    EXPECT_TRUE(prompt.ok()) << prompt.status().ToString();
    if (!prompt.ok()) return "";
    auto text = AnswerBlocking(*runtime_, service_->rag, *prompt, {}, tokens, nullptr, false);
    EXPECT_TRUE(text.ok()) << text.status().ToString();
    if (runtime_->answers() != nullptr) runtime_->answers()->Flush();
    return text.ok() ? text->text : "";
  }
  int64_t Kept() { return runtime_->answers()->stats().answers; }
  int64_t KeptOf(const RagRequest& request) {
    const auto shelf = runtime_->answers()->Open(runtime_->AnswerScopeOf(
        request.collection.empty() ? kDefaultCollection : request.collection, request.cache_salt,
        request.tenant));
    return static_cast<int64_t>(shelf->index()->answers());
  }
  DraftCounts Drafts() {
    return runtime_->engine().stats().drafts[static_cast<size_t>(DraftSource::kAnswers)];
  }
  void Ingest(const std::string& id, const std::string& collection, const std::string& text) {
    const std::string body =
        R"({"id":")" + id + R"(","collection":")" + collection + R"(","text":")" + text + R"("})";
    ASSERT_EQ(Call(*service_, "POST", "/v1/documents", body).status, 200);
  }
};

TEST_F(PastAnswers, AreDraftsOfLaterOnesAlsoAfterARestart) {
  const RagRequest question = Question({"cats nap"}, CacheMode::kExact);
  const std::string first = Answer(question);
  EXPECT_EQ(Kept(), 1);
  EXPECT_EQ(Drafts().drafted, 0);
  // How many drafts pay depends on the clock; at least every 16th guess is tried.
  for (int i = 0; i < 4; ++i) EXPECT_EQ(Answer(question), first);
  EXPECT_EQ(Kept(), 1);
  EXPECT_GT(Drafts().accepted, 0);
  Restart();
  for (int i = 0; i < 4; ++i) EXPECT_EQ(Answer(question), first);
  EXPECT_GT(Drafts().accepted, 0);
  const std::string metrics = Call(*service_, "GET", "/metrics").body;
  for (const char* name : {"kvasir_drafts_accepted_total{drafter=\"answers\"}",
                           "kvasir_drafts_rejected_total{drafter=\"prompt_lookup\"}",
                           "kvasir_drafts_accepted_total{drafter=\"draft_model\"} 0",
                           "kvasir_drafters_dropped_total 0", "kvasir_past_answers 1"}) {
    EXPECT_NE(metrics.find(name), std::string::npos) << name;
  }
  const std::string stats = Call(*service_, "GET", "/v1/stats").body;
  EXPECT_NE(stats.find(R"("past_answers":{"on":true,"answers":1)"), std::string::npos) << stats;
}

TEST_F(PastAnswers, AreKeptApart) {
  RagRequest mine = Question({"cats nap"}, CacheMode::kAuto), salted = mine, other = mine;
  mine.tenant = TenantOf("alpha");
  other.tenant = TenantOf("beta");
  salted.tenant = mine.tenant;
  salted.cache_salt = "salt";
  const std::string first = Answer(mine);
  EXPECT_EQ(KeptOf(mine), 1);
  for (const RagRequest& request : {salted, other}) {
    EXPECT_EQ(KeptOf(request), 0);
    EXPECT_EQ(Answer(request), first);
    EXPECT_EQ(KeptOf(request), 1);
  }
  EXPECT_EQ(Drafts().drafted, 0);
}

TEST_F(PastAnswers, AreOnlyWhatMayBeKept) {
  Answer(Question({"cats nap"}, CacheMode::kOff));
  RagRequest unkept = Question({"cats nap"}, CacheMode::kExact);
  unkept.cache.store = false;
  Answer(unkept);
  Ask(Question({"cats nap"}, CacheMode::kExact));  // a benchmark
  Answer(Question({"cats nap"}, CacheMode::kExact), 2);
  const auto prompt = service_->rag.Prepare(Question({"cats nap"}, CacheMode::kExact));
  ASSERT_TRUE(prompt.ok());
  std::promise<void> begun, cancelled, ended;
  int tokens = 0;
  const auto id = service_->rag.Submit(*prompt, {}, 2000, [&](const TokenEvent& event) {
    if (event.finish != FinishReason::kNone) return ended.set_value();
    if (++tokens != 5) return;
    begun.set_value();
    cancelled.get_future().wait();
  });
  ASSERT_TRUE(id.ok());
  begun.get_future().wait();
  runtime_->engine().Cancel(*id);
  cancelled.set_value();
  ended.get_future().wait();
  runtime_->answers()->Flush();
  EXPECT_EQ(Kept(), 0);
}

TEST_F(PastAnswers, GoWithTheDocumentsThatTheyMayQuote) {
  Ingest("a", "docs", "cats nap all day");
  Ingest("b", "docs", "dogs run by the sea");
  Ingest("c", "other", "birds sing at dawn");
  RagRequest docs, other, mixed;
  docs.messages = other.messages = mixed.messages = {{"user", "why?"}};
  docs.collection = mixed.collection = "docs";
  other.collection = "other";
  mixed.documents = {{"c", "", "", false}};
  Answer(mixed);
  EXPECT_EQ(Kept(), 0) << "nobody would find it when document c goes";
  const auto ask = [&] {
    Answer(docs);
    docs.cache_salt = docs.cache_salt.empty() ? "salt" : "";
    Answer(docs);
    Answer(other);
    EXPECT_EQ(Kept(), 3);
  };
  ask();
  Ingest("d", "docs", "a new text takes nothing away");
  EXPECT_EQ(Kept(), 3);
  Ingest("a", "docs", "cats nap all day");
  EXPECT_EQ(Kept(), 3) << "unchanged";
  Ingest("a", "docs", "cats never nap");
  EXPECT_EQ(Kept(), 1);
  ask();
  const auto prepared = service_->rag.Prepare(docs);
  ASSERT_TRUE(prepared.ok());
  EXPECT_EQ(Call(*service_, "DELETE", "/v1/documents/b").status, 200);
  EXPECT_EQ(Kept(), 1);
  // It has seen document b.
  ASSERT_TRUE(AnswerBlocking(*runtime_, service_->rag, *prepared, {}, 20, nullptr, false).ok());
  runtime_->answers()->Flush();
  EXPECT_EQ(Kept(), 1);
  Restart();
  EXPECT_EQ(KeptOf(other), 1);
  EXPECT_EQ(Kept(), 1);
}

TEST_F(PastAnswers, OffKeepsNoneAndErasesWhatWasKept) {
  const RagRequest question = Question({"cats nap"}, CacheMode::kExact);
  const std::string answer = Answer(question);
  EXPECT_EQ(Kept(), 1);
  Stop();
  config_.engine_speculation = "off";
  Start();
  EXPECT_EQ(runtime_->answers(), nullptr);
  Stop();
  config_.engine_speculation = "auto";
  Start();
  EXPECT_EQ(KeptOf(question), 1);
  Stop();
  config_.engine_answer_index = "off";
  Start();
  EXPECT_EQ(runtime_->answers(), nullptr);
  EXPECT_EQ(Answer(question), answer);
  Stop();
  config_.engine_answer_index = "on";
  Start();
  EXPECT_EQ(KeptOf(question), 0);
}

// ---- the draft model

TEST_F(PastAnswers, ADraftModelChangesNoAnswer) {
  const RagRequest question = Question({"cats nap"}, CacheMode::kExact);
  const std::string answer = Answer(question);
  Stop();
  test::TinyModelOptions options = ModelOptions();
  options.layers = 1;
  auto draft = LoadGgufModel(test::WriteTinyModel(options), *parts_.backend);
  ASSERT_TRUE(draft.ok());
  parts_.draft_model = *draft;
  Start();
  EXPECT_EQ(Answer(question), answer);
}

TEST_F(PastAnswers, ADraftModelOfAnotherVocabularyIsRefusedAtTheStart) {
  Stop();
  auto draft = LoadGgufModel(test::WriteTinyModel(ModelOptions()), *parts_.backend);
  ASSERT_TRUE(draft.ok());
  std::const_pointer_cast<Model>(*draft)->vocabulary.tokens[7] = "seven";
  parts_.draft_model = *draft;
  const auto runtime = Runtime::Create(config_, parts_);
  ASSERT_FALSE(runtime.ok());
  for (const std::string& part : {(*draft)->path, parts_.model->path, std::string("'seven'")}) {
    EXPECT_NE(runtime.status().message().find(part), std::string::npos)
        << runtime.status().message();
  }
  parts_.draft_model = nullptr;
  Config config = config_;
  config.engine_draft_model = "no-such-file.gguf";
  config.model_path = test::WriteTinyModel(ModelOptions());
  const auto missing = Runtime::Create(config);
  ASSERT_FALSE(missing.ok());
  EXPECT_NE(missing.status().message().find("no-such-file.gguf"), std::string::npos);
}

}  // namespace
}  // namespace kvasir
