#include "engine/tokenizer/utf8.h"

#include <gtest/gtest.h>

#include <random>

#include "engine/tokenizer/tokenizer.h"

namespace kvasir {
namespace {

std::string Encoded(char32_t c) {
  std::string text;
  AppendUtf8(c, &text);
  return text;
}

TEST(Utf8, EveryCodePointSurvives) {
  for (char32_t c = 0; c < 0x110000; ++c) {
    if (c >= 0xD800 && c < 0xE000) continue;
    const std::string text = Encoded(c);
    size_t offset = 0;
    ASSERT_EQ(FindInvalidUtf8(text), text.size()) << static_cast<uint32_t>(c);
    ASSERT_EQ(NextCodePoint(text, &offset), c);
    ASSERT_EQ(offset, text.size());
  }
}

TEST(Utf8, NamesTheFirstIllFormedByte) {
  EXPECT_EQ(FindInvalidUtf8("abcdefgh\x80"), 8u);
  EXPECT_EQ(FindInvalidUtf8("\xC0\xAF"), 0u);           // overlong
  EXPECT_EQ(FindInvalidUtf8("a\xE0\x9F\xBF"), 1u);      // overlong
  EXPECT_EQ(FindInvalidUtf8("a\xED\xA0\x80"), 1u);      // surrogate
  EXPECT_EQ(FindInvalidUtf8("a\xF4\x90\x80\x80"), 1u);  // above U+10FFFF
  EXPECT_EQ(FindInvalidUtf8("a\xF0\x9F\x98"), 1u);      // cut off
  EXPECT_EQ(FindInvalidUtf8("\xC3\xA9\xFF"), 2u);
  EXPECT_EQ(CheckUtf8("ab\xFF", "the title").message(), "the title is not valid UTF-8 at byte 2");
}

TEST(Utf8, TrimsAsPythonDoes) {
  EXPECT_EQ(TrimSpace(" \t\n\u00a0\u3000 a b \x1c\u2028"), "a b");
  EXPECT_EQ(TrimSpace(" \n"), "");
  EXPECT_EQ(TrimSpace("\u200b a"), "\u200b a");
}

TEST(Utf8Assembler, AnySplitGivesTheTextBack) {
  std::mt19937 random(3);
  for (int round = 0; round < 200; ++round) {
    std::string text;
    for (int i = 0; i < 20; ++i) text += Encoded(random() % 0xD800 + (random() % 2 ? 0 : 0x10000));
    Utf8Assembler assembler;
    std::string out;
    for (size_t at = 0; at < text.size();) {
      const size_t bytes = 1 + random() % 5;
      const std::string part = assembler.Push(std::string_view(text).substr(at, bytes));
      EXPECT_EQ(FindInvalidUtf8(part), part.size());
      out += part;
      at += bytes;
    }
    EXPECT_EQ(out + assembler.Finish(), text);
  }
}

TEST(Utf8Assembler, BrokenBytesBecomeReplacementCharacters) {
  Utf8Assembler assembler;
  EXPECT_EQ(assembler.Push("a\xF0\x9F"), "a");
  EXPECT_EQ(assembler.Push("b"),
            "\uFFFD"
            "b");
  EXPECT_EQ(assembler.Push("\xFF\x80"), "\uFFFD\uFFFD");
  EXPECT_EQ(assembler.Push("\xE2\x82"), "");
  EXPECT_EQ(assembler.Finish(), "\uFFFD");
  EXPECT_EQ(assembler.Finish(), "");
}

}  // namespace
}  // namespace kvasir
