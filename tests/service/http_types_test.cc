#include "service/http/http_types.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "service/cli/ask_table.h"
#include "service/cli/http_client.h"
#include "service/cli/print.h"
#include "service/http/router.h"

namespace kvasir {
namespace {

TEST(ApiError, EveryStatusHasItsHttpStatus) {
  const std::pair<Status, int> cases[] = {{InvalidArgument("x"), 400},
                                          {NotFound("x"), 404},
                                          {{StatusCode::kAlreadyExists, "x"}, 409},
                                          {FailedPrecondition("x"), 409},
                                          {ResourceExhausted("x"), 429},
                                          {Unimplemented("x"), 400},
                                          {DataLoss("x"), 500},
                                          {Cancelled("x"), 503},
                                          {Unavailable("x"), 503},
                                          {Internal("x"), 500}};
  for (const auto& [status, http] : cases) EXPECT_EQ(FromStatus(status).status, http);
}

TEST(ApiError, BodyIsNestedAndEscaped) {
  EXPECT_EQ(ErrorBody(BadField("n", "is \"wrong\"\n")),
            R"({"error":{"message":"'n' is \"wrong\"\n","type":"invalid_request_error",)"
            R"("param":"n","code":"invalid_value"}})");
  EXPECT_NE(ErrorBody(FromStatus(NotFound("gone"))).find("\"param\":null"), std::string::npos);
}

TEST(ApiError, OverloadSaysWhenToTryAgain) {
  const HttpReply reply = ErrorReply(FromStatus(ResourceExhausted("full")));
  EXPECT_EQ(reply.status, 429);
  EXPECT_EQ(reply.headers[0].first, "retry-after");
  EXPECT_EQ(reply.headers[1].first, "retry-after-ms");
  const HttpReply hopeless = ErrorReply(BadField("n", "is wrong"));
  EXPECT_EQ(hopeless.headers[0], (std::pair<std::string, std::string>("x-should-retry", "false")));
}

TEST(ParseTarget, DecodesPathAndQuery) {
  HttpRequest request;
  ASSERT_TRUE(ParseTarget("/v1/documents/a%20b?limit=5&after=x%2By+z&flag", &request));
  EXPECT_EQ(request.path, "/v1/documents/a b");
  EXPECT_EQ(request.query["limit"], "5");
  EXPECT_EQ(request.query["after"], "x+y z");
  EXPECT_EQ(request.query.count("flag"), 1u);
  for (const char* bad : {"", "x", "/%", "/%4", "/%zz", "/%ff", "/%00", "/a?b=%"}) {
    HttpRequest other;
    EXPECT_FALSE(ParseTarget(bad, &other)) << bad;
  }
}

TEST(IsUtf8, CasesByHand) {
  for (const char* good :
       {"", "abc", "\xc3\xa4", "\xe2\x82\xac", "\xf0\x9f\x98\x80", "\xf4\x8f\xbf\xbf"}) {
    EXPECT_TRUE(IsUtf8(good));
  }
  for (const char* bad : {"\x80", "\xc3", "\xc0\x80", "\xe0\x9f\xbf", "\xed\xa0\x80",
                          "\xf0\x8f\xbf\xbf", "\xf4\x90\x80\x80", "\xf5\x80\x80\x80", "\xc3("}) {
    EXPECT_FALSE(IsUtf8(bad));
  }
}

TEST(Authorization, OnlyAWholeKeyOpens) {
  EXPECT_TRUE(IsAuthorized("", {}));
  EXPECT_TRUE(IsAuthorized("Bearer beta", {"alpha", "beta"}));
  for (const char* wrong : {"", "beta", "Bearer ", "Bearer bet", "Bearer betaa", "Basic beta"}) {
    EXPECT_FALSE(IsAuthorized(wrong, {"alpha", "beta"})) << wrong;
  }
  EXPECT_EQ(ApiKeyOf("Bearer beta", {"alpha", "beta"}), "beta");
  EXPECT_EQ(ApiKeyOf("Bearer bet", {"alpha", "beta"}), "");
  EXPECT_EQ(ApiKeyOf("Bearer beta", {}), "") << "nobody has checked it";
  EXPECT_TRUE(ConstantTimeEqual("", ""));
  EXPECT_FALSE(ConstantTimeEqual("a", ""));
  EXPECT_FALSE(ConstantTimeEqual("", "a"));
  EXPECT_FALSE(ConstantTimeEqual("aa", "a"));
}

TEST(Router, FindsRoutesAndMethods) {
  EXPECT_EQ(MatchRoute("POST", "/v1/chat/completions").route, Route::kChat);
  EXPECT_EQ(MatchRoute("HEAD", "/health").route, Route::kHealth);
  EXPECT_TRUE(MatchRoute("GET", "/readyz").open);
  EXPECT_FALSE(MatchRoute("GET", "/metrics").open);
  const RouteMatch document = MatchRoute("DELETE", "/v1/documents/a/b");
  EXPECT_EQ(document.route, Route::kDocumentDelete);
  EXPECT_EQ(document.parameter, "a/b");
  EXPECT_EQ(MatchRoute("GET", "/nope").route, Route::kNotFound);
  EXPECT_EQ(MatchRoute("GET", "/v1/models/").route, Route::kNotFound);
  const RouteMatch wrong = MatchRoute("PUT", "/v1/documents");
  EXPECT_EQ(wrong.route, Route::kMethodNotAllowed);
  EXPECT_EQ(wrong.allow, "POST, GET");
}

TEST(ParseServer, AcceptsHostAndPortOnly) {
  EXPECT_EQ(ParseServer("http://localhost:80/", "k")->host, "localhost");
  EXPECT_EQ(ParseServer("10.0.0.1:9", "")->port, "9");
  EXPECT_EQ(ParseServer("http://host", "")->port, "80");
  for (const char* bad : {"", "http://", "https://x:1", "x:y", ":80"}) {
    EXPECT_FALSE(ParseServer(bad, "").ok()) << bad;
  }
}

TEST(Print, TablesWrapAtWords) {
  EXPECT_EQ(WrapText("one two three", 7), (std::vector<std::string>{"one two", "three"}));
  EXPECT_EQ(WrapText("abcdefgh", 3), (std::vector<std::string>{"abc", "def", "gh"}));
  EXPECT_EQ(WrapText("", 3), (std::vector<std::string>{""}));
  EXPECT_EQ(WrapText("\xc3\xa4\xc3\xb6\xc3\xbc", 2),
            (std::vector<std::string>{"\xc3\xa4\xc3\xb6", "\xc3\xbc"}));
  EXPECT_EQ(FormatTable({{"a", 3}, {"n", 2, true}}, {{"x y z", "7"}}),
            "a   |  n\n----+---\nx y |  7\nz   |\n");
}

AskAnswer Answered(const std::string& mode, const std::string& policy, double ttft_ms) {
  AskAnswer answer;
  answer.question = "Which five storage classes can a value stored in SQLite have?";
  answer.answer = std::string(300, 'x') + " and more words than fit in one line of the cell";
  answer.mode = mode, answer.policy = policy;
  answer.account = {123456, 0, 99999, 1234, 22223};
  answer.ttft.total_ms = ttft_ms;
  answer.documents.push_back({"d", "t", "folder/a_rather_long_name.html", "hit_memory", 9, 0.5});
  return answer;
}

TEST(Print, TheTableOfAnswersFitsAndEndsWithMeans) {
  const std::string table =
      FormatAnswers({{Answered("exact", "exact", 3000), Answered("fused", "link(16)", 250)},
                     {Answered("exact", "exact", 1000), Answered("fused", "link(16)", 150)}});
  size_t widest = 0, sources = 0;
  for (size_t begin = 0; begin < table.size();) {
    const size_t end = table.find('\n', begin);
    widest = std::max(widest, end - begin);
    begin = end + 1;
  }
  for (size_t at = 0; (at = table.find("a_rather", at)) != std::string::npos; ++at) ++sources;
  EXPECT_LE(widest, 150u);
  EXPECT_EQ(sources, 2u);  // once a question
  EXPECT_TRUE(table.ends_with(
      "mean time to first token: exact 2000.0 ms, fused 200.0 ms (10.0 times faster)\n"))
      << table;
  EXPECT_EQ(FormatAnswers({}), "");
}

TEST(Print, ProgressHasRateAndEta) {
  IngestProgress progress;
  progress.documents_total = 4;
  EXPECT_EQ(ProgressLine(progress, false), "0/4 documents, 0 tokens, 0 tokens/s, ETA --:--");
  progress.counting = true;
  EXPECT_EQ(ProgressLine(progress, true), "0/4 documents read and counted");
  progress.counting = false;
  progress.documents_done = 1;
  progress.tokens_computed = 500, progress.tokens_to_compute = 2000, progress.seconds = 10;
  // 500 tokens in 10 s; 1500 are left.
  EXPECT_EQ(ProgressLine(progress, false),
            "1/4 documents, 500/2000 tokens, 50 tokens/s, ETA 00:30");
  EXPECT_EQ(ProgressLine(progress, true).substr(0, 27), "[######..................] ");
  progress.tokens_to_compute = 500 + 50 * 3661;
  EXPECT_TRUE(ProgressLine(progress, false).ends_with("ETA 1:01:01"));
}

TEST(Print, ProgressOffATerminalIsALineEachTenSeconds) {
  std::vector<std::string> lines;
  ProgressBar::Clock::time_point now{};
  ProgressBar bar(
      false, [&](const std::string& text) { lines.push_back(text); }, now);
  IngestProgress progress;
  progress.documents_total = 300;
  for (int tenth = 0; tenth < 250; ++tenth, now += std::chrono::milliseconds(100)) {
    ++progress.documents_done;
    bar.Show(progress, now);
  }
  EXPECT_EQ(lines.size(), 2u);  // at 10 and 20 s
  progress.documents_done = 300;
  bar.Show(progress, now);
  bar.Finish();
  bar.Finish();
  ASSERT_EQ(lines.size(), 3u);
  EXPECT_TRUE(lines[2].starts_with("300/300 documents"));
}

}  // namespace
}  // namespace kvasir
