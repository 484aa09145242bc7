#include "service/text_table.h"

#include <algorithm>
#include <cstdio>
#include <string_view>

namespace kvasir {
namespace {

// Characters, counted as UTF-8 lead bytes.
int Characters(std::string_view text) {
  return static_cast<int>(std::count_if(text.begin(), text.end(), [](char c) {
    return (static_cast<unsigned char>(c) & 0xC0) != 0x80;
  }));
}

// Bytes of the first `characters` characters.
size_t BytesOfCharacters(std::string_view text, int characters) {
  size_t i = 0;
  for (; i < text.size(); ++i) {
    const bool lead = (static_cast<unsigned char>(text[i]) & 0xC0) != 0x80;
    if (lead && characters-- == 0) break;
  }
  return i;
}

std::string Pad(const std::string& text, int width, bool right) {
  const int missing = std::max(0, width - Characters(text));
  std::string padded = text;
  padded.insert(right ? 0 : padded.size(), static_cast<size_t>(missing), ' ');
  return padded;
}

void WrapParagraph(std::string_view text, int width, std::vector<std::string>* lines) {
  while (Characters(text) > width) {
    const size_t limit = BytesOfCharacters(text, width);
    size_t cut = text.rfind(' ', limit);
    if (cut == std::string_view::npos || cut == 0) cut = limit;
    lines->emplace_back(text.substr(0, cut));
    text.remove_prefix(cut);
    while (!text.empty() && text[0] == ' ') text.remove_prefix(1);
  }
  if (!text.empty()) lines->emplace_back(text);
}

std::string Rule(const std::vector<TableColumn>& columns) {
  std::string rule;
  for (size_t i = 0; i < columns.size(); ++i) {
    const int borders = (i > 0 ? 1 : 0) + (i + 1 < columns.size() ? 1 : 0);
    if (i > 0) rule += '+';
    rule.append(static_cast<size_t>(columns[i].width + borders), '-');
  }
  return rule + "\n";
}

std::string FormatRow(const std::vector<TableColumn>& columns,
                      const std::vector<std::string>& cells) {
  std::vector<std::vector<std::string>> wrapped;
  size_t height = 1;
  for (size_t i = 0; i < columns.size(); ++i) {
    wrapped.push_back(WrapText(i < cells.size() ? cells[i] : "", columns[i].width));
    height = std::max(height, wrapped.back().size());
  }
  std::string out;
  for (size_t line = 0; line < height; ++line) {
    std::string text;
    for (size_t i = 0; i < columns.size(); ++i) {
      const std::string cell = line < wrapped[i].size() ? wrapped[i][line] : "";
      if (i > 0) text += " | ";
      text += Pad(cell, columns[i].width, columns[i].right);
    }
    text.erase(text.find_last_not_of(' ') + 1);
    out += text + "\n";
  }
  return out;
}

}  // namespace

std::string Fixed(double value, int digits) {
  char text[48];
  std::snprintf(text, sizeof text, "%.*f", digits, value);
  return text;
}

std::string HumanBytes(uint64_t bytes) {
  const auto value = static_cast<double>(bytes);
  if (bytes >= uint64_t{1} << 30) return Fixed(value / (1 << 30), 2) + " GiB";
  if (bytes >= uint64_t{1} << 20) return Fixed(value / (1 << 20), 1) + " MiB";
  if (bytes >= uint64_t{1} << 10) return Fixed(value / (1 << 10), 1) + " KiB";
  return std::to_string(bytes) + " B";
}

std::vector<std::string> WrapText(const std::string& text, int width) {
  std::vector<std::string> lines;
  for (size_t begin = 0; begin <= text.size();) {
    const size_t end = std::min(text.find('\n', begin), text.size());
    WrapParagraph(std::string_view(text).substr(begin, end - begin), width, &lines);
    begin = end + 1;
  }
  if (lines.empty()) lines.emplace_back();
  return lines;
}

std::string FormatTable(const std::vector<TableColumn>& columns,
                        const std::vector<std::vector<std::string>>& rows, TableRules rules) {
  std::vector<std::string> titles;
  for (const TableColumn& column : columns) titles.push_back(column.title);
  std::string table = FormatRow(columns, titles);
  bool rule = true;
  for (const auto& row : rows) {
    if (rules == TableRules::kAsked && row.empty()) {
      rule = true;
      continue;
    }
    if (rule) table += Rule(columns);
    table += FormatRow(columns, row);
    rule = rules == TableRules::kEveryRow;
  }
  return table;
}

}  // namespace kvasir
