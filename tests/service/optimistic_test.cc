// Mode optimistic end to end: the answer is that of exact, whatever its draft was, and what a
// stream says provisionally is taken back where it was wrong.
#include <gtest/gtest.h>

#include <boost/json.hpp>

#include "service/http/sse.h"
#include "service/provisional_text.h"
#include "tests/service/pipeline_fixture.h"

namespace kvasir {
namespace {

namespace json = boost::json;

std::string Str(const json::value& value) {
  return {value.as_string().data(), value.as_string().size()};
}

class Optimistic : public PipelineTest {
 protected:
  test::TinyModelOptions ModelOptions() const override {
    test::TinyModelOptions options;
    options.tied = false;  // with tied embeddings a random model only repeats its last token
    return options;
  }
  // Three documents of about 400 characters, which the tiny tokenizer makes many tokens of.
  static std::vector<std::string> Texts(int seed) {
    std::vector<std::string> texts;
    for (int i = 0; i < 3; ++i) {
      std::string text;
      for (int line = 0; line < 20; ++line) {
        text.append("line ").append(std::to_string(line * seed)).append(" of ");
        text.append(std::to_string(i)).append(". ");
      }
      texts.push_back(text);
    }
    return texts;
  }
  static std::string Body(int seed, const std::string& more) {
    json::array documents;
    for (const std::string& text : Texts(seed)) documents.push_back(json::value(text));
    std::string body = R"({"messages":[{"role":"user","content":"why?"}],"documents":)";
    body.append(json::serialize(documents)).append(",").append(more).append("}");
    return body;
  }
  json::object Whole(int seed, const std::string& more) {
    HttpReply reply;
    RunGeneration(*service_, Body(seed, more), &reply);
    EXPECT_EQ(reply.status, 200) << reply.body;
    return json::parse(reply.body).as_object();
  }
  static std::string TextOf(const json::object& reply, size_t choice = 0) {
    return Str(reply.at("choices").at(choice).at("message").at("content"));
  }
  struct Stream {
    std::string content, provisional;
    int corrections = 0;
    int64_t stands = -1;        // characters
    size_t content_before = 0;  // bytes of content before the correction
    bool late = false;          // something provisional came behind content
    json::object last_cache;
  };
  // As a client reads it.
  static Stream Read(const std::string& bytes) {
    Stream stream;
    EXPECT_TRUE(bytes.ends_with("data: [DONE]\n\n"));
    for (const std::string& event : SseParser().Push(bytes)) {
      if (event == "[DONE]") continue;
      const json::object chunk = json::parse(event).as_object();
      if (!chunk.at("choices").as_array().empty()) {
        const json::object& delta = chunk.at("choices").at(0).at("delta").as_object();
        if (delta.contains("content")) {
          stream.content.append(Str(delta.at("content")));
        }
      }
      if (!chunk.contains("chunk_cache")) continue;
      stream.last_cache = chunk.at("chunk_cache").as_object();
      if (const json::value* text = stream.last_cache.if_contains("provisional")) {
        stream.late = stream.late || !stream.content.empty();
        stream.provisional.append(Str(text->at("content")));
      }
      if (const json::value* correction = stream.last_cache.if_contains("correction")) {
        ++stream.corrections;
        stream.stands = correction->at("characters").to_number<int64_t>();
        stream.content_before = stream.content.size();
      }
    }
    return stream;
  }
  void ExpectNothingRuns() {
    for (int i = 0; i < 2000; ++i) {
      const EngineStats stats = runtime_->engine().stats();
      if (stats.running == 0 && stats.waiting == 0) return;
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
    ADD_FAILURE() << "something still runs";
  }
};

constexpr char kExact[] = R"("max_tokens":40,"chunk_cache":{"mode":"exact"})";
constexpr char kOptimistic[] = R"("max_tokens":40,"chunk_cache":{"mode":"optimistic"})";
constexpr char kProvisional[] =
    R"("max_tokens":40,"stream":true,"chunk_cache":{"mode":"optimistic","provisional":true})";

TEST_F(Optimistic, AnswersAreThoseOfExact) {
  int64_t drafted = 0;
  for (int seed = 1; seed <= 3; ++seed) {
    const json::object exact = Whole(seed, kExact);
    for (int turn = 0; turn < 2; ++turn) {  // chunks made for it, and found
      const json::object reply = Whole(seed, kOptimistic);
      EXPECT_EQ(TextOf(reply), TextOf(exact));
      EXPECT_EQ(reply.at("usage").at("completion_tokens"),
                exact.at("usage").at("completion_tokens"));
      const json::object& cache = reply.at("chunk_cache").as_object();
      const json::object& draft = cache.at("draft").as_object();
      EXPECT_EQ(cache.at("mode"), "optimistic");
      EXPECT_EQ(cache.at("policy"), "exact");
      EXPECT_EQ(cache.at("requested_tokens"), cache.at("computed_tokens"));
      EXPECT_EQ(cache.at("charged_fraction").to_number<double>(), 1);
      EXPECT_EQ(cache.at("hits").to_number<int>(), turn == 0 ? 0 : 3);
      EXPECT_EQ(draft.at("policy"), "concat");
      if (turn == 0) continue;
      EXPECT_TRUE(draft.at("problem").is_null()) << draft;
      EXPECT_GT(draft.at("reused_tokens").to_number<int64_t>(), 0);
      EXPECT_LE(draft.at("stood_tokens").to_number<int64_t>(),
                draft.at("drafted_tokens").to_number<int64_t>());
      EXPECT_LE(draft.at("first_provisional_ms").to_number<double>(),
                draft.at("first_verified_ms").to_number<double>());
      drafted += draft.at("drafted_tokens").to_number<int64_t>();
    }
  }
  EXPECT_GT(drafted, 10);
  ExpectNothingRuns();
  const StatisticsTotals totals = runtime_->statistics().Snapshot(0).session;
  EXPECT_EQ(totals.fused, 0) << "what drafts read saved nothing";
  EXPECT_EQ(totals.computed, totals.requested);
}

TEST_F(Optimistic, SampledAnswersAreThoseOfExact) {
  const std::string sampling = R"("temperature":1.2,"seed":7,"n":2,)";
  const json::object exact = Whole(4, sampling + kExact);
  Whole(4, sampling + kOptimistic);
  const json::object reply = Whole(4, sampling + kOptimistic);
  for (const size_t choice : {size_t{0}, size_t{1}}) {
    EXPECT_EQ(TextOf(reply, choice), TextOf(exact, choice));
  }
  EXPECT_NE(TextOf(reply, 0), TextOf(reply, 1));
}

TEST_F(Optimistic, StreamsHoldVerifiedTextOnlyUnlessAskedFor) {
  const std::string exact = TextOf(Whole(2, kExact));
  Whole(2, kOptimistic);
  const std::string body = Body(2, std::string(R"("stream":true,)") + kOptimistic);
  const std::string bytes = RunGeneration(*service_, body);
  EXPECT_EQ(bytes.find("\"provisional\":"), std::string::npos);
  EXPECT_EQ(bytes.find("\"correction\":"), std::string::npos);
  const Stream stream = Read(bytes);
  EXPECT_EQ(stream.content, exact);
  EXPECT_TRUE(stream.last_cache.contains("draft"));
}

// What a client that shows provisional text has in the end is the exact answer.
TEST_F(Optimistic, ProvisionalTextIsConfirmedOrCorrected) {
  int provisional = 0, corrections = 0;
  for (int seed = 1; seed <= 6; ++seed) {
    const std::string exact = TextOf(Whole(seed, kExact));
    Whole(seed, kOptimistic);
    const Stream stream = Read(RunGeneration(*service_, Body(seed, kProvisional)));
    EXPECT_EQ(stream.content, exact);
    EXPECT_FALSE(stream.late);
    provisional += stream.provisional.empty() ? 0 : 1;
    corrections += stream.corrections;
    ASSERT_LE(stream.corrections, 1);
    if (stream.corrections == 0) {
      EXPECT_TRUE(exact.starts_with(stream.provisional)) << stream.provisional << "\n" << exact;
      continue;
    }
    EXPECT_FALSE(exact.starts_with(stream.provisional));
    // The tiny model says bytes of all kinds: count characters as a client does.
    size_t bytes = 0;
    for (int64_t left = stream.stands; bytes < stream.provisional.size(); ++bytes) {
      const bool begins = (static_cast<uint8_t>(stream.provisional[bytes]) & 0xC0U) != 0x80U;
      if (begins && left-- == 0) break;
    }
    EXPECT_EQ(stream.provisional.substr(0, bytes), exact.substr(0, bytes));
    EXPECT_LE(stream.content_before, bytes) << "it came before what contradicts it";
  }
  EXPECT_EQ(provisional, 6);
  EXPECT_GT(corrections, 0) << "this test would see nothing";
  const std::string metrics = Call(*service_, "GET", "/metrics").body;
  for (const char* name :
       {"kvasir_optimistic_answers_total{draft=\"corrected\"}",
        "kvasir_optimistic_answers_total{draft=\"stood\"}",
        "kvasir_optimistic_answers_total{draft=\"none\"} ", "kvasir_optimistic_draft_tokens_total ",
        "kvasir_optimistic_draft_tokens_stood_total ",
        "kvasir_optimistic_time_to_first_draft_seconds_count ",
        "kvasir_drafts_accepted_total{drafter=\"draft_run\"}"}) {
    EXPECT_NE(metrics.find(name), std::string::npos) << name;
  }
}

TEST_F(Optimistic, StopStringsEndBothTexts) {
  const std::string exact = TextOf(Whole(3, kExact));
  ASSERT_GE(exact.size(), 8u);
  size_t at = exact.size() / 2;  // a piece of the answer that begins and ends with characters
  while (at + 1 < exact.size() && (static_cast<uint8_t>(exact[at]) >= 0x80U)) ++at;
  const std::string stop = exact.substr(at, 1);
  const std::string more = std::string(R"("stop":)") + json::serialize(json::value(stop)) + ",";
  const std::string cut = TextOf(Whole(3, more + kExact));
  Whole(3, kOptimistic);
  const Stream stream = Read(RunGeneration(*service_, Body(3, more + kProvisional)));
  EXPECT_EQ(stream.content, cut);
  EXPECT_EQ(stream.provisional.find(stop), std::string::npos);
  ExpectNothingRuns();
}

TEST_F(Optimistic, WithoutDocumentsItIsExact) {
  HttpReply reply;
  RunGeneration(*service_,
                R"json({"messages":[{"role":"user","content":"hi"}],"max_tokens":4,
                        "chunk_cache":{"mode":"optimistic","policy":"link(4)"}})json",
                &reply);
  const json::object cache = json::parse(reply.body).at("chunk_cache").as_object();
  EXPECT_EQ(cache.at("policy"), "exact");
  EXPECT_EQ(cache.at("draft").at("problem"), "there are no documents");
  EXPECT_EQ(cache.at("computed_tokens"), cache.at("requested_tokens"));
  const std::string metrics = Call(*service_, "GET", "/metrics").body;
  EXPECT_NE(metrics.find("kvasir_optimistic_answers_total{draft=\"none\"} 1"), std::string::npos);
}

TEST_F(Optimistic, ADraftThatIsNoLessWorkIsNotMade) {
  const json::object exact = Whole(5, kExact);
  const json::object reply = Whole(
      5, R"json("max_tokens":40,"chunk_cache":{"mode":"optimistic","policy":"link(1000)"})json");
  EXPECT_EQ(TextOf(reply), TextOf(exact));
  const json::object& draft = reply.at("chunk_cache").at("draft").as_object();
  EXPECT_NE(draft.at("problem").as_string().find("half"), json::string::npos);
  EXPECT_EQ(draft.at("drafted_tokens"), 0);
}

TEST_F(Optimistic, SpeculationOffMeansExact) {
  Stop();
  config_.engine_speculation = "off";
  Start();
  const json::object exact = Whole(5, kExact);
  const json::object reply = Whole(5, kOptimistic);
  EXPECT_EQ(TextOf(reply), TextOf(exact));
  const json::value& problem = reply.at("chunk_cache").at("draft").at("problem");
  EXPECT_NE(problem.as_string().find("speculation is off"), json::string::npos);
}

TEST_F(Optimistic, BothRunsEndWhenTheClientGoes) {
  Whole(6, kOptimistic);
  ExpectNothingRuns();
  const int32_t free = runtime_->engine().stats().blocks_free;
  auto bell = std::make_shared<Bell>();
  std::string body = Body(6, kProvisional);
  body.replace(body.find("\"max_tokens\":40"), 15, "\"max_tokens\":900");
  auto request = ParseChatRequest(body, {});
  ASSERT_TRUE(request.ok()) << request.error().message;
  auto run = Generation::Start(*service_, std::move(*request), [bell] { bell->Ring(); });
  ASSERT_TRUE(run.ok());
  bell->Wait();
  (*run)->Drain();
  (*run)->Cancel();
  ExpectNothingRuns();
  EXPECT_EQ(runtime_->engine().stats().blocks_free, free);
}

TEST_F(Optimistic, BlockingAnswersAreDraftedToo) {
  RagRequest request = Question(Texts(7), CacheMode::kExact);
  const auto ask = [&] {
    auto prompt = service_->rag.Prepare(request);
    EXPECT_TRUE(prompt.ok()) << prompt.status().ToString();
    auto text = AnswerBlocking(*runtime_, service_->rag, *prompt, {}, 30);
    EXPECT_TRUE(text.ok()) << text.status().ToString();
    return text.ok() ? text->text : "";
  };
  const std::string exact = ask();
  request.cache.mode = CacheMode::kOptimistic;
  EXPECT_EQ(ask(), exact);
  const uint64_t before = runtime_->engine().stats().requests_finished;
  EXPECT_EQ(ask(), exact);
  ExpectNothingRuns();
  EXPECT_EQ(runtime_->engine().stats().requests_finished, before + 2);
}

// ---- provisional text alone

class Provisional : public PipelineTest {
 protected:
  std::optional<int64_t> Verify(const std::string& sent, const std::vector<std::string>& verified) {
    ProvisionalText text(runtime_->tokenizer(), {});
    const Result<std::vector<int32_t>> ids = runtime_->tokenizer().Encode(sent);
    EXPECT_TRUE(ids.ok());
    std::string shown;
    for (const int32_t id : *ids) shown += text.Push(id);
    EXPECT_EQ(shown, sent);
    std::optional<int64_t> stands;
    for (size_t i = 0; i < verified.size(); ++i) {
      const auto now = text.Verify(verified[i], i + 1 == verified.size());
      EXPECT_FALSE(now && stands) << "corrected twice";
      if (now) stands = now;
    }
    EXPECT_EQ(text.Verify("quite another", true), std::nullopt) << "settled";
    return stands;
  }
};

TEST_F(Provisional, OnlyContradictionsAreCorrected) {
  EXPECT_EQ(Verify("cats nap", {"c", "cats", "cats nap", "cats nap all day"}), std::nullopt);
  EXPECT_EQ(Verify("cats nap", {"cats", "cats r", "cats run"}), 5);
  EXPECT_EQ(Verify("cats nap", {"dogs"}), 0);
  EXPECT_EQ(Verify("cats nap", {"cats", "cats"}), 4) << "the answer is shorter";
  EXPECT_EQ(Verify("", {"cats"}), std::nullopt);
}

TEST_F(Provisional, CharactersAreCountedNotBytes) {
  EXPECT_EQ(Verify("\u00e4\u00f6 x", {"\u00e4\u00f6 y"}), 3);
  EXPECT_EQ(Verify("\u00e4\u00f6", {"\u00e4\u00fc"}), 1) << "they differ inside a character";
}

}  // namespace
}  // namespace kvasir
