#include "service/log.h"

#include <gtest/gtest.h>

#include <string>

namespace kvasir {
namespace {

TEST(Log, ControlCharactersCannotForgeALine) {
  EXPECT_EQ(EscapeForLog("/v1/x\r\nfake 200"), "/v1/x\\x0d\\x0afake 200");
  EXPECT_EQ(EscapeForLog(std::string("a\0b\x7f", 4)), "a\\x00b\\x7f");
  EXPECT_EQ(EscapeForLog("Grüße"), "Grüße");
}

TEST(Log, LongTextIsCut) {
  const std::string cut = EscapeForLog(std::string(5000, 'a'));
  EXPECT_EQ(cut, std::string(256, 'a') + "...");
}

TEST(Log, LevelsChooseWhatIsWritten) {
  testing::internal::CaptureStderr();
  StartLog("warning");
  LogRequest({"req_1", "GET", "/health", 200, 1.0});
  LogRequest({"req_2", "GET", "/v1/stats", 500, 2.5});
  StartLog("off");
  LogWarning("unseen");
  const std::string text = testing::internal::GetCapturedStderr();
  EXPECT_EQ(text.find("req_1"), std::string::npos);
  EXPECT_NE(text.find("warning req_2 GET /v1/stats 500 2.5 ms"), std::string::npos) << text;
  EXPECT_EQ(text.find("unseen"), std::string::npos);
}

}  // namespace
}  // namespace kvasir
