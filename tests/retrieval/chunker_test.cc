#include "retrieval/chunker.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>

#include "engine/tokenizer/utf8.h"
#include "retrieval/sentences.h"
#include "test_support.h"

namespace kvasir {
namespace {

// A token a word, and one for every 8 bytes of a longer word; 3 around a chunk.
struct WordCounter {
  int64_t bytes = 0;  // counted so far

  static int32_t Words(std::string_view text) {
    int32_t tokens = 0;
    for (size_t i = 0; i < text.size();) {
      const size_t end = std::min(text.find_first_of(" \n", i), text.size());
      tokens += static_cast<int32_t>((end - i + 7) / 8);
      i = end + 1;
    }
    return tokens;
  }
  ChunkTokenCounter Function() {
    return [this](std::string_view title, std::string_view text) -> Result<int32_t> {
      bytes += static_cast<int64_t>(title.size() + text.size());
      return 3 + Words(title) + Words(text);
    };
  }
};

TextBlock Block(BlockKind kind, std::string text, int32_t level = 0) {
  return {kind, level, std::move(text)};
}
TextBlock Heading(int32_t level, std::string text) {
  return Block(BlockKind::kHeading, std::move(text), level);
}
TextBlock Paragraph(std::string text) { return Block(BlockKind::kParagraph, std::move(text)); }

// `sentences` sentences of `words` words each: "First wa wb. Second ..." with running numbers.
std::string Prose(int sentences, int words, int* number) {
  std::string text;
  for (int s = 0; s < sentences; ++s) {
    if (s > 0) text += " ";
    text += testing::Numbered("S", (*number)++);
    for (int w = 1; w < words; ++w) text += testing::Numbered(" w", w);
    text += ".";
  }
  return text;
}

std::vector<ChunkText> Chunks(const ParsedDocument& document, int32_t target,
                              int32_t merge_below = 20) {
  WordCounter counter;
  ChunkerOptions options;
  options.target_tokens = target;
  options.merge_below_tokens = merge_below;
  auto chunks = ChunkDocument(document, options, counter.Function());
  EXPECT_TRUE(chunks.ok()) << chunks.status().ToString();
  for (const ChunkText& chunk : *chunks) {
    EXPECT_LE(3 + WordCounter::Words(chunk.title) + WordCounter::Words(chunk.text), target)
        << chunk.text;
    EXPECT_FALSE(chunk.text.empty());
    EXPECT_EQ(FindInvalidUtf8(chunk.text), chunk.text.size());
  }
  return chunks.ok() ? *chunks : std::vector<ChunkText>();
}

std::string WithoutSpace(std::string text) {
  std::erase_if(text, [](char c) { return c == ' ' || c == '\n'; });
  return text;
}

TEST(Chunker, HandCase) {
  int n = 0;
  const std::string intro = Prose(3, 10, &n), deep = Prose(3, 10, &n), last = Prose(4, 8, &n);
  const ParsedDocument document{
      "Doc",
      {Heading(1, "Doc"), Paragraph(intro), Heading(2, "Part"), Heading(3, "Deep"), Paragraph(deep),
       Heading(2, "End"), Paragraph(last)}};
  EXPECT_EQ(
      Chunks(document, 48),
      (std::vector<ChunkText>{{"Doc", intro}, {"Doc > Part > Deep", deep}, {"Doc > End", last}}))
      << "a chunk a section; the first heading is the title; no empty section";
}

TEST(Chunker, SmallSiblingsShareAChunk) {
  const std::vector<TextBlock> a = {Heading(1, "A"), Heading(2, "x"), Paragraph("one two.")};
  std::vector<TextBlock> blocks = a;
  blocks.insert(blocks.end(), {Heading(2, "y"), Paragraph("three four.")});
  using Texts = std::vector<ChunkText>;
  EXPECT_EQ(Chunks({"D", blocks}, 64), (Texts{{"D > A", "x\n\none two.\n\ny\n\nthree four."}}))
      << "the shared heading is the title";
  blocks = a;
  blocks.insert(blocks.end(), {Heading(1, "B"), Paragraph("five six.")});
  EXPECT_EQ(Chunks({"D", blocks}, 64), (Texts{{"D > A > x", "one two."}, {"D > B", "five six."}}))
      << "x and B are no siblings";
}

TEST(Chunker, HeadingWithNothingBelowIsKept) {
  using Texts = std::vector<ChunkText>;
  EXPECT_EQ(Chunks({"D", {Paragraph("text."), Heading(2, "Only a heading")}}, 64),
            (Texts{{"D", "text.\n\nOnly a heading"}}));
  EXPECT_EQ(Chunks({"D", {Heading(2, "Empty"), Heading(2, "Full"), Paragraph("text.")}}, 64),
            (Texts{{"D > Full", "Empty\n\ntext."}}));
  EXPECT_EQ(Chunks({"D", {Heading(1, "D")}}, 64).size(), 0u) << "the title stands in the title";
  EXPECT_EQ(Chunks({"D", {Heading(1, "A"), Heading(1, "B")}}, 64), (Texts{{"D", "A\n\nB"}}));
}

TEST(Chunker, PartsAtParagraphsThenSentencesAndEvenly) {
  int n = 0;
  std::vector<TextBlock> blocks;
  for (int i = 0; i < 4; ++i) blocks.push_back(Paragraph(Prose(3, 10, &n)));
  const auto chunks = Chunks({"T", blocks}, 100);
  ASSERT_EQ(chunks.size(), 2u) << "120 words in chunks of at most 96";
  EXPECT_EQ(chunks[0].text, blocks[0].text + "\n\n" + blocks[1].text);
  const auto one = Chunks({"T", {Paragraph(Prose(10, 10, &n))}}, 64);
  ASSERT_EQ(one.size(), 2u);
  for (const ChunkText& chunk : one) EXPECT_EQ(chunk.text.back(), '.');
}

TEST(Chunker, ListsAndCodePartAtLines) {
  std::string list, code;
  for (int i = 0; i < 40; ++i) {
    list += (i ? "\n- item " : "- item ") + std::to_string(i) + " has words";
    code += (i ? "\n    call(" : "    call(") + std::to_string(i) + ");";
  }
  for (const ChunkText& chunk : Chunks({"T", {Block(BlockKind::kList, list)}}, 64)) {
    EXPECT_TRUE(chunk.text.starts_with("- item ")) << chunk.text;
    EXPECT_TRUE(chunk.text.ends_with("words")) << chunk.text;
  }
  for (const ChunkText& chunk : Chunks({"T", {Block(BlockKind::kCode, code)}}, 64)) {
    EXPECT_TRUE(chunk.text.starts_with("    call(")) << "indentation stays: " << chunk.text;
  }
}

TEST(Chunker, LongSentencesPartAtWordsAndLongWordsAtCharacters) {
  std::string words;
  for (int i = 0; i < 300; ++i) words += (i ? " word" : "word") + std::to_string(i);
  std::string joined;
  for (const ChunkText& chunk : Chunks({"T", {Paragraph(words)}}, 50)) {
    joined += (joined.empty() ? "" : " ") + chunk.text;
  }
  EXPECT_EQ(joined, words) << "parted at spaces only";
  std::string wide;
  for (int i = 0; i < 3000; ++i) wide += "\u00E9\u4E2D";
  std::string again;
  for (const ChunkText& chunk : Chunks({"T", {Paragraph(wide)}}, 50)) again += chunk.text;
  EXPECT_EQ(again, wide) << "parted between characters";
}

TEST(Chunker, LongTitleIsCutShort) {
  std::string title;
  for (int i = 0; i < 5000; ++i) title += testing::Numbered("title", i) + " ";
  const auto chunks = Chunks({title, {Paragraph("text.")}}, 60);
  ASSERT_EQ(chunks.size(), 1u);
  EXPECT_TRUE(title.starts_with(chunks[0].title));
  EXPECT_LE(WordCounter::Words(chunks[0].title), 20);
}

// Random documents: nothing is lost, repeated or reordered, limits hold (in Chunks), equal runs are
// equal, and chunks are well filled.
TEST(Chunker, RandomDocuments) {
  std::mt19937 random(9);
  for (int round = 0; round < 60; ++round) {
    ParsedDocument document{"The title", {}};
    std::string all;
    int n = 0;
    for (int i = 0; i < 40; ++i) {
      const int kind = static_cast<int>(random() % 8);
      if (kind == 0) {
        document.blocks.push_back(
            Heading(1 + static_cast<int32_t>(random() % 4), testing::Numbered("Head", n++)));
        continue;
      }
      std::string text =
          Prose(1 + static_cast<int>(random() % 6), 1 + static_cast<int>(random() % 90), &n);
      all += WithoutSpace(text);
      document.blocks.push_back(Paragraph(std::move(text)));
    }
    const auto chunks = Chunks(document, 128, 40);
    EXPECT_EQ(chunks, Chunks(document, 128, 40));
    std::string joined;
    for (const ChunkText& chunk : chunks) joined += WithoutSpace(chunk.text);
    size_t at = 0;  // headings may stand between
    for (const char c : all) {
      at = joined.find(c, at);
      ASSERT_NE(at, std::string::npos) << "lost or out of order";
      ++at;
    }
    size_t headings = 0;
    for (const TextBlock& block : document.blocks) {
      headings += block.kind == BlockKind::kHeading ? block.text.size() : 0;
    }
    EXPECT_LE(joined.size(), all.size() + 3 * headings) << "repeated";
  }
}

// A megabyte in one paragraph, one sentence or one word: counted a bounded number of times.
TEST(Chunker, CostIsLinear) {
  std::string sentences, words, letters(1 << 20, 'x');
  int n = 0;
  while (sentences.size() < letters.size()) sentences += Prose(1, 12, &n) + " ";
  while (words.size() < letters.size()) words += "word ";
  for (const std::string& text : {sentences, words, letters}) {
    WordCounter counter;
    ChunkerOptions options;
    const auto chunks = ChunkDocument({"T", {Paragraph(text)}}, options, counter.Function());
    ASSERT_TRUE(chunks.ok());
    // Halving from 16 bytes a token down to a piece, and the check of each chunk.
    EXPECT_LT(counter.bytes, 8 * static_cast<int64_t>(text.size()));
  }
}

TEST(Chunker, Failures) {
  ChunkerOptions options;
  options.target_tokens = 10;
  WordCounter counter;
  const ParsedDocument document{"T", {Paragraph("x")}};
  EXPECT_EQ(ChunkDocument(document, options, counter.Function()).status().code(),
            StatusCode::kInvalidArgument);
  const ChunkTokenCounter broken = [](std::string_view, std::string_view) -> Result<int32_t> {
    return Internal("no tokenizer");
  };
  EXPECT_EQ(ChunkDocument(document, {}, broken).status().code(), StatusCode::kInternal);
  EXPECT_TRUE(ChunkDocument({"T", {}}, {}, counter.Function())->empty());
}

TEST(Sentences, HandCases) {
  const auto split = [](std::string_view text) {
    std::vector<std::string> out;
    for (const Sentence& sentence : SplitSentences(text)) out.emplace_back(sentence.text);
    return out;
  };
  using Texts = std::vector<std::string>;
  EXPECT_EQ(split("One. Two! (Three?) \"Four.\" Five"),
            (Texts{"One.", "Two!", "(Three?)", "\"Four.\"", "Five"}));
  EXPECT_EQ(split("Use e.g. This or D. R. Hipp, version 3.7.0 of it. Next"),
            (Texts{"Use e.g. This or D. R. Hipp, version 3.7.0 of it.", "Next"}));
  EXPECT_EQ(split("see etc. and so on. it goes on."), (Texts{"see etc. and so on. it goes on."}));
  EXPECT_EQ(split("\u4F60\u597D\u3002\u518D\u89C1"), (Texts{"\u4F60\u597D\u3002", "\u518D\u89C1"}));
  EXPECT_FALSE(SplitSentences("\u3002a")[1].space_before);
  EXPECT_TRUE(split("").empty());
}

}  // namespace
}  // namespace kvasir
