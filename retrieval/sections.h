// Sections: a parsed document as runs of small pieces below heading paths; what Chunker packs.
// Not thread-safe; values.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "retrieval/reader.h"

namespace kvasir {

// What parts a piece from the one before it, best places for a chunk's end first.
enum class Boundary : uint8_t { kBlock, kItem, kLine, kSentence, kWord, kCharacter };

// A sentence, line or part of one: chunks are runs of whole pieces.
struct Piece {
  std::string text;
  Boundary before = Boundary::kBlock;
  bool space = true;   // a space stands before it (sentences, words)
  bool glued = false;  // reads badly without the piece before: after a heading or a colon
  int32_t tokens = 0;  // of the text alone
};

struct Section {
  std::vector<std::string> path;  // headings from the top, without the document's title
  std::vector<Piece> pieces;
  int32_t tokens = 0;  // sum
};

// "\n\n", "\n", " " or "": what stands before `piece` inside a chunk.
std::string_view JoinerOf(const Piece& piece);

// In document order, tokens not yet counted. A heading with nothing below it becomes text
// of the section that follows, or of the last one.
std::vector<Section> MakeSections(const ParsedDocument& document);

// Parts a piece in two near its middle, at a space if there is one; texts of one character stay
// (then *second is empty).
void SplitPiece(const Piece& piece, Piece* first, Piece* second);

}  // namespace kvasir
