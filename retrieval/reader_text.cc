#include <algorithm>
#include <cctype>

#include "retrieval/reader_formats.h"

namespace kvasir {
namespace {

using Lines = std::vector<std::string_view>;

bool IsBlank(std::string_view line) {
  return line.find_first_not_of(" \t") == std::string_view::npos;
}

// "- ", "* ", "+ " or "12. " / "12) " after at most three spaces.
bool IsItem(std::string_view line) {
  const size_t at = line.find_first_not_of(' ');
  if (at == std::string_view::npos || at > 3) return false;
  line.remove_prefix(at);
  if (std::string_view("-*+").find(line[0]) != std::string_view::npos) {
    return line.size() > 1 && line[1] == ' ';
  }
  const size_t digits = std::min(line.find_first_not_of("0123456789"), line.size());
  return digits > 0 && digits < 4 && line.size() > digits + 1 && line[digits + 1] == ' ' &&
         (line[digits] == '.' || line[digits] == ')');
}

bool IsIndented(std::string_view line) { return line.starts_with("    ") || line[0] == '\t'; }

std::string Trimmed(std::string_view line) {
  const size_t first = line.find_first_not_of(" \t"), last = line.find_last_not_of(" \t");
  return first == std::string_view::npos ? "" : std::string(line.substr(first, last - first + 1));
}

void AppendList(const Lines& lines, BlockBuilder* builder, std::vector<TextBlock>* blocks) {
  std::string text;
  for (const std::string_view line : lines) {
    if (!text.empty()) text.append(IsItem(line) ? "\n" : " ");
    text.append(Trimmed(line));
  }
  blocks->push_back({BlockKind::kList, 0, std::move(text)});
}

void AppendLines(const Lines& lines, std::vector<TextBlock>* blocks) {
  if (IsItem(lines.front())) return AppendList(lines, nullptr, blocks);
  BlockBuilder builder;
  const bool code = std::all_of(lines.begin(), lines.end(), IsIndented);
  if (code) builder.OpenCode();
  for (const std::string_view line : lines) {
    builder.Text(line);
    builder.Text("\n");
  }
  for (TextBlock& block : builder.Finish()) blocks->push_back(std::move(block));
}

}  // namespace

// Paragraphs are parted by blank lines; runs of indented lines are code, runs that begin with a
// bullet or number are lists.
ParsedDocument ParseText(std::string_view text) {
  ParsedDocument document;
  Lines lines;
  while (!text.empty() || !lines.empty()) {
    const size_t end = std::min(text.find('\n'), text.size());
    const std::string_view line = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    if (!IsBlank(line)) {
      lines.push_back(line);
      if (!text.empty()) continue;
    }
    if (!lines.empty()) AppendLines(lines, &document.blocks);
    lines.clear();
  }
  return document;
}

}  // namespace kvasir
