#include "retrieval/block_builder.h"

#include <algorithm>
#include <cctype>
#include <utility>

namespace kvasir {
namespace {

constexpr size_t kDeepestIndent = 8;  // list levels; bounds the spaces hostile nesting can ask for

constexpr ptrdiff_t kLabelWords = 4;  // a control's label has at most as many

bool IsSpace(char c) { return c == ' ' || c == '\n' || c == '\t' || c == '\r' || c == '\f'; }

// Bytes of a white or invisible character at the start of `text` beyond ASCII, 0 if there is none:
// no-break space, soft hyphen, zero-width space to right-to-left mark, byte order mark.
size_t WideBlank(std::string_view text, bool* visible_space) {
  *visible_space = text.starts_with("\xC2\xA0");
  if (*visible_space || text.starts_with("\xC2\xAD")) return 2;
  if (text.starts_with("\xEF\xBB\xBF")) return 3;
  return text.size() >= 3 && text.starts_with("\xE2\x80") && text[2] >= '\x8B' && text[2] <= '\x8F'
             ? 3
             : 0;
}

// Without blank lines at both ends and white space at line ends.
std::string TrimCode(std::string_view code) {
  std::string out;
  while (!code.empty()) {
    const size_t end = std::min(code.find('\n'), code.size());
    std::string_view line = code.substr(0, end);
    while (!line.empty() && IsSpace(line.back())) line.remove_suffix(1);
    if (!out.empty() || !line.empty()) out.append(line).push_back('\n');
    code.remove_prefix(std::min(end + 1, code.size()));
  }
  while (!out.empty() && out.back() == '\n') out.pop_back();
  return out;
}

}  // namespace

void BlockBuilder::Emit(BlockKind kind, std::string text, int32_t level) {
  if (!text.empty()) blocks_.push_back({kind, level, std::move(text)});
}

void BlockBuilder::AppendVisible(char byte) {
  if (std::exchange(caret_, false) && std::isalnum(static_cast<unsigned char>(byte))) {
    run_.push_back('^');
  }
  if (space_ && !run_.empty()) run_.push_back(' ');
  space_ = false;
  run_.push_back(byte);
}

void BlockBuilder::Text(std::string_view text) {
  if (in_code_) {
    code_.append(text);
    return;
  }
  for (size_t i = 0; i < text.size();) {
    bool wide_space = false;
    const size_t blank = WideBlank(text.substr(i), &wide_space);
    if (blank > 0 || IsSpace(text[i])) {
      space_ |= blank == 0 || wide_space;
      i += std::max<size_t>(blank, 1);
    } else {
      AppendVisible(text[i++]);
    }
  }
}

void BlockBuilder::Break() {
  space_ = caret_ = false;
  const bool control = std::exchange(control_, false);
  if (run_.empty() || in_code_) return;
  std::string run = std::exchange(run_, {});
  if (control && std::count(run.begin(), run.end(), ' ') < kLabelWords) return;
  if (heading_ > 0) {
    Emit(BlockKind::kHeading, std::move(run), heading_);
  } else if (in_grid()) {
    std::string& row = tables_.back().row;
    if (!row.empty() && row.back() != ' ') row.push_back(' ');
    row.append(run);
  } else if (!lists_.empty()) {
    AppendListLine(run);
  } else {
    Emit(BlockKind::kParagraph, std::move(run));
  }
}

void BlockBuilder::OpenHeading(int32_t level) {
  Break();
  if (in_code_) return;
  if (in_grid()) MakeLayout();
  EmitList();
  heading_ = std::clamp(level, 1, 6);
}

void BlockBuilder::CloseHeading() {
  Break();
  heading_ = 0;
}

void BlockBuilder::OpenList(bool ordered, int64_t start) {
  Break();
  heading_ = 0;
  lists_.push_back({ordered, start});
}

void BlockBuilder::OpenItem() {
  Break();
  if (lists_.empty()) return;  // an item without a list is a paragraph
  List& list = lists_.back();
  marker_ = list.ordered ? std::to_string(list.next) + ". " : "- ";
  if (list.next < INT32_MAX) ++list.next;
}

void BlockBuilder::CloseList() {
  Break();
  if (lists_.empty()) return;
  lists_.pop_back();
  marker_.clear();
  if (lists_.empty()) EmitList();
}

void BlockBuilder::AppendListLine(std::string_view line) {
  if (!list_text_.empty()) list_text_.push_back('\n');
  list_text_.append(2 * (std::min(lists_.size(), kDeepestIndent) - 1), ' ');
  list_text_.append(marker_.empty() ? "  " : marker_).append(line);
  marker_.clear();
}

void BlockBuilder::EmitList() { Emit(BlockKind::kList, std::exchange(list_text_, {})); }

void BlockBuilder::OpenCode() {
  Break();
  if (in_grid()) MakeLayout();
  in_code_ = true;
}

void BlockBuilder::CloseCode() {
  if (!std::exchange(in_code_, false)) return;
  std::string code = TrimCode(std::exchange(code_, {}));
  if (code.empty()) return;
  if (lists_.empty()) {
    Emit(BlockKind::kCode, std::move(code));
    return;
  }
  for (std::string_view rest = code; !rest.empty();) {
    const size_t end = std::min(rest.find('\n'), rest.size());
    AppendListLine(rest.substr(0, end));
    rest.remove_prefix(std::min(end + 1, rest.size()));
  }
}

void BlockBuilder::OpenTable() {
  Break();
  if (in_code_) return;
  heading_ = 0;
  if (in_grid()) MakeLayout();
  EmitList();
  tables_.emplace_back();
}

void BlockBuilder::OpenRow() {
  Break();
  if (!tables_.empty()) EndRow();
}

void BlockBuilder::OpenCell() {
  Break();
  if (!in_grid()) return;
  Table& table = tables_.back();
  if (table.cells++ > 0) table.row.append(" | ");
}

void BlockBuilder::EndRow() {
  Table& table = tables_.back();
  while (!table.row.empty() && (table.row.back() == ' ' || table.row.back() == '|')) {
    table.row.pop_back();
  }
  if (!table.row.empty()) table.rows.push_back(std::exchange(table.row, {}));
  table.widest = std::max(table.widest, table.cells);
  table.cells = 0;
}

// A table of one column is a way to lay out paragraphs.
void BlockBuilder::EmitTable(Table* table) {
  if (table->widest <= 1) {
    for (std::string& row : table->rows) Emit(BlockKind::kParagraph, std::move(row));
  } else {
    std::string text;
    for (const std::string& row : table->rows) {
      if (!text.empty()) text.push_back('\n');
      text.append(row);
    }
    Emit(BlockKind::kTable, std::move(text));
  }
  table->rows.clear();
}

void BlockBuilder::MakeLayout() {
  EndRow();
  EmitTable(&tables_.back());
  tables_.back().layout = true;
}

void BlockBuilder::CloseTable() {
  Break();
  if (tables_.empty() || in_code_) return;
  if (in_grid()) {
    EndRow();
    EmitTable(&tables_.back());
  }
  tables_.pop_back();
}

std::vector<TextBlock> BlockBuilder::Finish() {
  CloseCode();
  Break();
  while (!tables_.empty()) CloseTable();
  lists_.clear();
  EmitList();
  return std::move(blocks_);
}

}  // namespace kvasir
