#include "service/stop_matcher.h"

#include <gtest/gtest.h>

#include <random>

#include "service/http/sse.h"

namespace kvasir {
namespace {

TEST(StopMatcher, FindsAStopAcrossPieces) {
  StopMatcher matcher({"###", "\nUser:"});
  EXPECT_EQ(matcher.Push("hello\nUs"), "hello");
  EXPECT_EQ(matcher.Push("ual"), "\nUsual");
  EXPECT_EQ(matcher.Push("#"), "");
  EXPECT_EQ(matcher.Push("#"), "");
  EXPECT_FALSE(matcher.matched());
  EXPECT_EQ(matcher.Push("# more"), "");
  EXPECT_TRUE(matcher.matched());
  EXPECT_EQ(matcher.Push("ignored"), "");
  EXPECT_EQ(matcher.Finish(), "");
}

TEST(StopMatcher, GivesBackWhatItHeld) {
  StopMatcher matcher({"END"});
  EXPECT_EQ(matcher.Push("the EN"), "the ");
  EXPECT_EQ(matcher.Finish(), "EN");
  EXPECT_FALSE(matcher.matched());
}

TEST(StopMatcher, WithoutStopsIsTransparent) {
  StopMatcher matcher({});
  EXPECT_EQ(matcher.Push("abc"), "abc");
  EXPECT_EQ(matcher.Finish(), "");
}

// However the text is cut into pieces, the shown text is what stands before the first stop.
TEST(StopMatcher, EqualsAPlainSearch) {
  std::mt19937 random(11);
  auto word = [&random](size_t most) {
    std::string text(random() % most + 1, 'a');
    for (char& c : text) c = static_cast<char>('a' + random() % 2);
    return text;
  };
  for (int round = 0; round < 2000; ++round) {
    const std::vector<std::string> stops = {word(4), word(6)};
    const std::string text = word(40);
    StopMatcher matcher(stops);
    std::string shown;
    for (size_t begin = 0; begin < text.size();) {
      const size_t length = std::min(text.size() - begin, size_t{random() % 4 + 1});
      shown += matcher.Push(text.substr(begin, length));
      begin += length;
    }
    shown += matcher.Finish();
    // A matcher sees a stop when its last byte arrives, so the stop that *ends* first cuts; both
    // may be complete in one piece, then the one that begins first.
    const size_t first = std::min(text.find(stops[0]), text.find(stops[1]));
    ASSERT_EQ(matcher.matched(), first != std::string::npos) << text;
    if (!matcher.matched()) {
      ASSERT_EQ(shown, text);
      continue;
    }
    ASSERT_TRUE(text.starts_with(shown));
    const std::string rest = text.substr(shown.size());
    ASSERT_TRUE(rest.starts_with(stops[0]) || rest.starts_with(stops[1])) << text << " " << shown;
  }
}

TEST(Sse, FramesAndParsesAtAnyBorder) {
  EXPECT_EQ(SseEvent("{}"), "data: {}\n\n");
  const std::string stream = SseEvent("{\"a\":1}") + std::string(kSseKeepAlive) +
                             SseEvent("{\"b\":2}") + std::string(kSseDone);
  for (size_t cut = 0; cut <= stream.size(); ++cut) {
    SseParser parser;
    std::vector<std::string> events = parser.Push(stream.substr(0, cut));
    for (const std::string& event : parser.Push(stream.substr(cut))) events.push_back(event);
    EXPECT_EQ(events, (std::vector<std::string>{"{\"a\":1}", "{\"b\":2}", "[DONE]"}));
  }
}

TEST(Sse, AnUnfinishedEventStaysBack) {
  SseParser parser;
  EXPECT_TRUE(parser.Push("data: {\"a\"").empty());
  EXPECT_TRUE(parser.Push(":1}\n").empty());
  EXPECT_EQ(parser.Push("\n").size(), 1u);
}

}  // namespace
}  // namespace kvasir
