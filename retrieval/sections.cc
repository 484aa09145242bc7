#include "retrieval/sections.h"

#include <algorithm>
#include <utility>

#include "retrieval/sentences.h"

namespace kvasir {
namespace {

bool IsContinuationByte(char byte) { return (static_cast<unsigned char>(byte) & 0xC0) == 0x80; }

// Collects the pieces of blocks under the current heading path.
class SectionMaker {
 public:
  explicit SectionMaker(const std::string& title) : title_(title) { sections_.emplace_back(); }

  void Add(const TextBlock& block) {
    switch (block.kind) {
      case BlockKind::kHeading:
        return Heading(block);
      case BlockKind::kParagraph:
        Sentences(block.text, Boundary::kBlock);
        break;
      case BlockKind::kList:
        Lines(block.text, true);
        break;
      case BlockKind::kCode:
      case BlockKind::kTable:
        Lines(block.text, false);
        break;
    }
    after_colon_ = block.text.back() == ':';
  }

  std::vector<Section> Finish() {
    DropEmpty({});
    if (sections_.empty() && !bare_headings_.empty()) sections_.emplace_back();
    if (!sections_.empty()) PushBareHeadings();
    return std::move(sections_);
  }

 private:
  Section& current() { return sections_.back(); }

  void Heading(const TextBlock& block) {
    std::vector<std::pair<int32_t, std::string>> path = headings_;
    while (!path.empty() && path.back().first >= block.level) path.pop_back();
    // A page's first heading often repeats its title.
    const bool is_title = path.empty() && block.text == title_;
    path.emplace_back(block.level, is_title ? std::string() : block.text);
    headings_ = std::move(path);
    std::vector<std::string> texts;
    for (const auto& [level, text] : headings_) {
      if (!text.empty()) texts.push_back(text);
    }
    DropEmpty(texts);
    sections_.push_back({std::move(texts), {}, 0});
    after_colon_ = false;
  }

  // The last section goes if it has no pieces. Unless its headings live on in the next path, its
  // own heading becomes text at the beginning of what follows.
  void DropEmpty(const std::vector<std::string>& next) {
    if (!current().pieces.empty()) return;
    const std::vector<std::string> path = std::move(current().path);
    sections_.pop_back();
    const bool lives_on =
        path.size() <= next.size() && std::equal(path.begin(), path.end(), next.begin());
    if (!lives_on) bare_headings_.push_back(path.back());
  }

  void Push(std::string_view text, Boundary before, bool space) {
    const bool glued = !bare_headings_.empty() ||
                       (before == Boundary::kBlock && after_colon_ && !current().pieces.empty());
    PushBareHeadings();
    current().pieces.push_back({std::string(text), before, space, glued, 0});
  }

  void PushBareHeadings() {
    for (std::string& heading : bare_headings_) {
      current().pieces.push_back({std::move(heading), Boundary::kBlock, false, false, 0});
    }
    bare_headings_.clear();
  }

  void Sentences(std::string_view text, Boundary first) {
    for (const Sentence& sentence : SplitSentences(text)) {
      Push(sentence.text, first, sentence.space_before);
      first = Boundary::kSentence;
    }
  }

  void Lines(std::string_view text, bool prose) {
    Boundary before = Boundary::kBlock;
    while (!text.empty()) {
      const size_t end = std::min(text.find('\n'), text.size());
      const std::string_view line = text.substr(0, end);
      const bool item = prose && !line.empty() && line[0] != ' ';
      if (before != Boundary::kBlock) before = item ? Boundary::kItem : Boundary::kLine;
      if (prose) {
        Sentences(line, before);
      } else {
        Push(line, before, false);
      }
      before = Boundary::kLine;
      text.remove_prefix(std::min(end + 1, text.size()));
    }
  }

  const std::string& title_;
  std::vector<std::pair<int32_t, std::string>> headings_;  // open ones: level, text
  std::vector<Section> sections_;
  std::vector<std::string> bare_headings_;  // with nothing below, not yet placed
  bool after_colon_ = false;
};

}  // namespace

std::string_view JoinerOf(const Piece& piece) {
  switch (piece.before) {
    case Boundary::kBlock:
      return "\n\n";
    case Boundary::kItem:
    case Boundary::kLine:
      return "\n";
    default:
      return piece.space ? " " : "";
  }
}

std::vector<Section> MakeSections(const ParsedDocument& document) {
  SectionMaker maker(document.title);
  for (const TextBlock& block : document.blocks) {
    if (!block.text.empty()) maker.Add(block);
  }
  return maker.Finish();
}

void SplitPiece(const Piece& piece, Piece* first, Piece* second) {
  const std::string& text = piece.text;
  const size_t middle = text.size() / 2;
  const size_t left = text.rfind(' ', middle), right = text.find(' ', middle);
  size_t at = std::string::npos;
  if (left != std::string::npos && left > 0) at = left;
  if (right != std::string::npos && right + 1 < text.size() &&
      (at == std::string::npos || right - middle < middle - at)) {
    at = right;
  }
  *first = *second = piece;
  const bool space = at != std::string::npos;
  if (!space) {
    at = middle;
    while (at > 0 && IsContinuationByte(text[at])) --at;
    if (at == 0) {
      at = middle + 1;
      while (at < text.size() && IsContinuationByte(text[at])) ++at;
    }
  }
  first->text = text.substr(0, at);
  second->text = at < text.size() ? text.substr(at + (space ? 1 : 0)) : std::string();
  second->before = space ? Boundary::kWord : Boundary::kCharacter;
  second->space = space;
  second->glued = false;
}

}  // namespace kvasir
