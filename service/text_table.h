// Tables of plain text with wrapped cells, and numbers as text. Widths are in characters of UTF-8.
//
// Pure functions; thread-safe.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace kvasir {

std::string HumanBytes(uint64_t bytes);
std::string Fixed(double value, int digits);

struct TableColumn {
  std::string title;
  int width;  // in characters
  bool right = false;
};
enum class TableRules {
  kEveryRow,  // a rule below the head and between rows
  kAsked,     // a rule below the head, and where a row has no cells
};
// A table whose cells wrap at words.
std::string FormatTable(const std::vector<TableColumn>& columns,
                        const std::vector<std::vector<std::string>>& rows,
                        TableRules rules = TableRules::kEveryRow);
// `text` in lines of at most `width` characters, broken at spaces where there are some.
std::vector<std::string> WrapText(const std::string& text, int width);

}  // namespace kvasir
