// BlockBuilder: turns the events of a parser (text, open, close) into the blocks of a document.
//
// Tolerant: events may come in any order and nesting; closing what is not open does nothing.
// Headings, code and tables inside lists or layout tables come out as blocks of their own.
// Not thread-safe; one per document. Memory grows with the text alone, whatever the nesting.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "retrieval/reader.h"

namespace kvasir {

class BlockBuilder {
 public:
  // Valid UTF-8. White space (also no-break spaces) collapses outside code.
  void Text(std::string_view text);
  void Break();  // ends a paragraph
  // Superscript follows: "2" and then "31" become "2^31".
  void Superscript() { caret_ = !run_.empty() && !space_ && !in_code_; }
  // A dropped control (a button) stands here: the short paragraph around it is its label and goes
  // with it.
  void Control() { control_ = true; }

  void OpenHeading(int32_t level);  // 1-6
  void CloseHeading();
  void OpenList(bool ordered, int64_t start = 1);
  void OpenItem();
  void CloseList();
  void OpenCode();
  void CloseCode();
  void OpenTable();
  void OpenRow();
  void OpenCell();
  void CloseTable();

  bool in_code() const { return in_code_; }
  std::vector<TextBlock> Finish();

 private:
  struct List {
    bool ordered = false;
    int64_t next = 1;
  };
  // A table is `layout` once a cell holds a heading, code or another table: its cells then are
  // read as running text.
  struct Table {
    std::vector<std::string> rows;
    std::string row;
    int32_t cells = 0;   // of the row
    int32_t widest = 0;  // cells
    bool layout = false;
  };

  bool in_grid() const { return !tables_.empty() && !tables_.back().layout; }
  void Emit(BlockKind kind, std::string text, int32_t level = 0);
  void EndRow();
  void EmitTable(Table* table);
  void MakeLayout();
  void EmitList();
  void AppendListLine(std::string_view line);
  void AppendVisible(char byte);

  std::vector<TextBlock> blocks_;
  std::string run_;       // inline text so far, collapsed
  bool caret_ = false;    // "^" is due before the next letter or digit
  bool control_ = false;  // the run holds a control
  bool space_ = false;    // a space is due before the next visible byte
  int32_t heading_ = 0;   // level of the open heading, 0 = none
  bool in_code_ = false;
  std::string code_;
  std::vector<List> lists_;
  std::string list_text_;  // lines of the outermost list so far
  std::string marker_;     // of an item that has no text yet
  std::vector<Table> tables_;
};

}  // namespace kvasir
