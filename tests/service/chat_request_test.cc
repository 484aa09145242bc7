#include "service/http/chat_request.h"

#include <gtest/gtest.h>

#include <random>

namespace kvasir {
namespace {

constexpr char kMessages[] = R"("messages":[{"role":"user","content":"hi"}])";

std::string Body(const std::string& more) {
  return std::string("{") + kMessages + (more.empty() ? "" : "," + more) + "}";
}

TEST(ChatRequest, ReadsEveryField) {
  auto request = ParseChatRequest(
      R"json({"model":"m","messages":[{"role":"developer","content":"be brief"},
          {"role":"user","content":[{"type":"text","text":"a"},{"type":"text","text":"b"}]}],
          "max_completion_tokens":7,"temperature":0.5,"top_p":0.9,"seed":-3,"n":2,
          "stop":["x","yy"],"presence_penalty":1,"frequency_penalty":-1,"logit_bias":{"5":-100},
          "logprobs":true,"top_logprobs":3,"stream":true,"stream_options":{"include_usage":true},
          "documents":["plain",{"id":"kb1"},{"id":"k2","text":"t","title":"T"},{"text":"u"},
                       {"id":"x","data":{"snippet":"s","title":"ST"}}],
          "top_k":4,"user":"u","metadata":{},"store":false,"tools":[],"tool_choice":"none",
          "response_format":{"type":"text"},"cache_salt":"tenant",
          "chunk_cache":{"mode":"fused","policy":"link(8)","on_missing":"error","store":false,
                         "explain":true}})json",
      {});
  ASSERT_TRUE(request.ok()) << request.error().message;
  EXPECT_EQ(request->rag.messages[0].role, "system");
  EXPECT_EQ(request->rag.messages[1].content, "ab");
  EXPECT_EQ(request->max_tokens, 7);
  EXPECT_FLOAT_EQ(request->sampling.temperature, 0.5F);
  EXPECT_TRUE(request->seed_given);
  EXPECT_EQ(request->n, 2);
  EXPECT_EQ(request->stop, (std::vector<std::string>{"x", "yy"}));
  EXPECT_EQ(request->sampling.logit_bias.at(0).first, 5);
  EXPECT_EQ(request->sampling.logprobs, 3);
  EXPECT_TRUE(request->stream && request->include_usage && request->logprobs);
  const auto& documents = request->rag.documents;
  ASSERT_EQ(documents.size(), 5u);
  EXPECT_EQ(documents[0].text, "plain");
  EXPECT_FALSE(documents[1].has_text);
  EXPECT_EQ(documents[2].title, "T");
  EXPECT_EQ(documents[4].text, "s");
  EXPECT_EQ(documents[4].title, "ST");
  EXPECT_EQ(request->rag.cache.mode, CacheMode::kFused);
  EXPECT_EQ(request->rag.cache.policy, "link(8)");
  EXPECT_FALSE(request->rag.cache.compute_missing);
  EXPECT_FALSE(request->rag.cache.store);
  EXPECT_TRUE(request->rag.cache.explain);
  EXPECT_EQ(request->rag.cache_salt, "tenant");
}

TEST(ChatRequest, ProvisionalTextNeedsAStreamAndModeOptimistic) {
  auto request = ParseChatRequest(
      Body(R"("stream":true,"chunk_cache":{"mode":"optimistic","provisional":true})"), {});
  ASSERT_TRUE(request.ok()) << request.error().message;
  EXPECT_EQ(request->rag.cache.mode, CacheMode::kOptimistic);
  EXPECT_TRUE(request->rag.cache.provisional);
  EXPECT_TRUE(ParseChatRequest(Body(R"("chunk_cache":{"mode":"optimistic"})"), {}).ok());
  request = ParseChatRequest(Body(R"("chunk_cache":{"mode":"optimistic","provisional":true})"), {});
  ASSERT_FALSE(request.ok());
  EXPECT_EQ(request.error().status, 400);
  EXPECT_EQ(request.error().param, "chunk_cache.provisional");
  EXPECT_NE(request.error().message.find("'stream'"), std::string::npos);
  for (const char* cache : {R"({"provisional":true})", R"({"mode":"fused","provisional":true})"}) {
    request = ParseChatRequest(Body(std::string(R"("stream":true,"chunk_cache":)") + cache), {});
    ASSERT_FALSE(request.ok());
    EXPECT_EQ(request.error().param, "chunk_cache.provisional");
    EXPECT_NE(request.error().message.find("'optimistic'"), std::string::npos);
  }
}

TEST(ChatRequest, ReadsFilters) {
  auto request = ParseChatRequest(
      Body(R"("collection":"c","filters":{"document_id":"d","year":"1999","":"x"})"), {});
  ASSERT_TRUE(request.ok()) << request.error().message;
  EXPECT_EQ(request->rag.filter.document_ids, std::vector<std::string>{"d"});
  EXPECT_EQ(request->rag.filter.metadata, (Metadata{{"year", "1999"}, {"", "x"}}));
}

struct BadCase {
  const char *body, *param, *code;
};

TEST(ChatRequest, MistakesNameTheField) {
  const BadCase cases[] = {
      {"", "", "invalid_json"},
      {"[]", "", "invalid_json"},
      {"{", "", "invalid_json"},
      {"{}", "messages", "missing_required_parameter"},
      {R"({"messages":[]})", "messages", "invalid_value"},
      {R"({"messages":"x"})", "messages", "invalid_type"},
      {R"({"messages":[{"role":"tool","content":"x"}]})", "messages[0].role", "invalid_value"},
      {R"({"messages":[{"role":"user"}]})", "messages[0].content", "invalid_value"},
      {R"({"messages":[{"role":"user","content":[{"type":"image_url"}]}]})", "messages[0].content",
       "invalid_value"},
  };
  for (const BadCase& c : cases) {
    auto request = ParseChatRequest(c.body, {});
    ASSERT_FALSE(request.ok()) << c.body;
    EXPECT_EQ(request.error().status, 400) << c.body;
    EXPECT_EQ(request.error().param, c.param) << c.body;
    EXPECT_EQ(request.error().code, c.code) << c.body;
  }
}

TEST(ChatRequest, BadValuesNameTheField) {
  const BadCase cases[] = {
      {R"("n":0)", "n", "invalid_value"},
      {R"("n":17)", "n", "invalid_value"},
      {R"("n":1.5)", "n", "invalid_type"},
      {R"("max_tokens":-1)", "max_tokens", "invalid_value"},
      {R"("max_tokens":99999999999999999999)", "max_tokens", "invalid_type"},
      {R"("temperature":9)", "temperature", "invalid_value"},
      {R"("temperature":"hot")", "temperature", "invalid_type"},
      {R"("top_p":0)", "top_p", "invalid_value"},
      {R"("presence_penalty":2.5)", "presence_penalty", "invalid_value"},
      {R"("logit_bias":{"x":1})", "logit_bias", "invalid_value"},
      {R"("logit_bias":{"1":101})", "logit_bias", "invalid_value"},
      {R"("stop":[""])", "stop", "invalid_value"},
      {R"("stop":7)", "stop", "invalid_type"},
      {R"("stream":"yes")", "stream", "invalid_type"},
      {R"("stream_options":{"include_usage":true})", "stream_options", "invalid_value"},
      {R"("stream":true,"stream_options":{"usage":true})", "stream_options.usage",
       "unsupported_parameter"},
      {R"("top_logprobs":2)", "top_logprobs", "invalid_value"},
      {R"("top_logprobs":21,"logprobs":true)", "top_logprobs", "invalid_value"},
      {R"("tools":[{"type":"function"}])", "tools", "unsupported_parameter"},
      {R"("response_format":{"type":"json_object"})", "response_format", "unsupported_parameter"},
      {R"("cache_salt":"")", "cache_salt", "invalid_value"},
      {R"("cache_salt":7)", "cache_salt", "invalid_type"},
      {R"("filters":{"a":"b"})", "filters", "invalid_value"},
      {R"("collection":"c","documents":["x"],"filters":{"a":"b"})", "filters", "invalid_value"},
      {R"("collection":"c","filters":[])", "filters", "invalid_type"},
      {R"("collection":"c","filters":{"year":1999})", "filters", "invalid_type"},
      {R"("collection":"c","filters":{"year":{"$gt":"1"}})", "filters", "invalid_type"},
      {R"("temprature":1)", "temprature", "unsupported_parameter"},
      {R"("documents":"x")", "documents", "invalid_type"},
      {R"("documents":[{}])", "documents[0]", "invalid_value"},
      {R"("documents":["a",{"id":5}])", "documents[1]", "invalid_value"},
      {R"("documents":[{"id":"a","data":{}}])", "documents[0]", "invalid_value"},
      {R"("collection":"c","top_k":0)", "top_k", "invalid_value"},
      {R"("chunk_cache":"fused")", "chunk_cache", "invalid_type"},
      {R"("chunk_cache":{"mode":"sideways"})", "chunk_cache.mode", "invalid_value"},
      {R"("chunk_cache":{"policy":"magic"})", "chunk_cache.policy", "invalid_value"},
      {R"("chunk_cache":{"on_missing":"ignore"})", "chunk_cache.on_missing", "invalid_value"},
      {R"("chunk_cache":{"modus":"fused"})", "chunk_cache.modus", "unsupported_parameter"},
  };
  for (const BadCase& c : cases) {
    auto request = ParseChatRequest(Body(c.body), {});
    ASSERT_FALSE(request.ok()) << c.body;
    EXPECT_EQ(request.error().status, 400) << c.body;
    EXPECT_EQ(request.error().param, c.param) << c.body;
    EXPECT_EQ(request.error().code, c.code) << c.body;
    EXPECT_FALSE(request.error().message.empty());
  }
}

TEST(ChatRequest, HarmlessFieldsAndNullsAreAccepted) {
  for (const char* more : {R"("user":"me")", R"("metadata":{"a":"b"})", R"("store":true)",
                           R"("stop":null)", R"("tools":null)", R"("response_format":null)",
                           R"("max_tokens":null)", R"("temperature":null)", ""}) {
    EXPECT_TRUE(ParseChatRequest(Body(more), {}).ok()) << more;
  }
}

TEST(ChatRequest, TooManyDocumentsAndTooDeepAreRefused) {
  RequestLimits limits;
  limits.documents = 2;
  EXPECT_FALSE(ParseChatRequest(Body(R"("documents":["a","b","c"])"), limits).ok());
  EXPECT_TRUE(ParseChatRequest(Body(R"("documents":["a","b"])"), limits).ok());
  EXPECT_FALSE(ParseChatRequest(Body("\"cache_salt\":\"" + std::string(257, 's') + '"'), {}).ok());
  EXPECT_TRUE(ParseChatRequest(Body("\"cache_salt\":\"" + std::string(256, 's') + '"'), {}).ok());
  std::string filters = "\"collection\":\"c\",\"filters\":{\"0\":\"\"";
  for (int i = 1; i < 65; ++i) filters += ",\"" + std::to_string(i) + "\":\"\"";
  EXPECT_EQ(ParseChatRequest(Body(filters + "}"), {}).error().param, "filters");
  const std::string deep = Body("\"metadata\":" + std::string(5000, '[') + std::string(5000, ']'));
  EXPECT_EQ(ParseChatRequest(deep, limits).error().code, "invalid_json");
}

TEST(ChatRequest, InvalidUtf8IsRefused) {
  for (const char* bytes : {"\xff", "\xed\xa0\x80", "\xc0\xaf", "\xf4\x90\x80\x80"}) {
    const std::string body =
        std::string(R"({"messages":[{"role":"user","content":")") + bytes + "\"}]}";
    EXPECT_EQ(ParseChatRequest(body, {}).error().code, "invalid_json");
  }
}

TEST(CompletionRequest, ReadsTextAndTokenIds) {
  auto text = ParseCompletionRequest(R"({"prompt":"once","max_tokens":3,"echo":true})", {});
  ASSERT_TRUE(text.ok());
  EXPECT_EQ(text->rag.raw_text, "once");
  EXPECT_TRUE(text->echo && text->rag.raw && !text->chat);
  auto ids = ParseCompletionRequest(R"({"prompt":[1,2,3],"logprobs":2})", {});
  ASSERT_TRUE(ids.ok());
  EXPECT_EQ(ids->rag.raw_prompt, (std::vector<int32_t>{1, 2, 3}));
  EXPECT_EQ(ids->sampling.logprobs, 2);
  for (const char* bad :
       {R"({})", R"({"prompt":[]})", R"({"prompt":[-1]})", R"({"prompt":7})",
        R"({"prompt":"a","documents":["d"]})", R"({"prompt":"a","suffix":"b"})"}) {
    EXPECT_FALSE(ParseCompletionRequest(bad, {}).ok()) << bad;
  }
}

// Random damage to a valid body gives a request or a typed error, never a crash.
TEST(ChatRequest, SurvivesRandomDamage) {
  const std::string good = Body(
      R"("documents":["plain",{"id":"a","data":{"text":"b"}}],"logit_bias":{"1":2},"stop":["x"])");
  std::mt19937 random(3);
  for (int i = 0; i < 5000; ++i) {
    std::string body = good;
    for (int j = 0; j < 3; ++j) body[random() % body.size()] = static_cast<char>(random());
    auto request = ParseChatRequest(body, {});
    if (!request.ok()) {
      ASSERT_EQ(request.error().status, 400);
    }
  }
}

}  // namespace
}  // namespace kvasir
