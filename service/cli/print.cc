#include "service/cli/print.h"

#include <unistd.h>

#include <algorithm>
#include <cstdio>

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

std::string Clock(double seconds) {
  if (seconds < 0) return "--:--";
  const int whole = static_cast<int>(seconds + 0.5);
  char text[32];
  std::snprintf(text, sizeof text, "%02d:%02d", whole / 60, whole % 60);
  return text;
}

}  // namespace

void PrintError(const std::string& message) {
  std::fprintf(stderr, "kvasir: %s\n", message.c_str());
}

int Fail(const Status& status, const std::string& what) {
  PrintError(what.empty() ? status.message() : what + ": " + status.message());
  return kExitFailure;
}

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
                        const std::vector<std::vector<std::string>>& rows) {
  auto print_row = [&columns](const std::vector<std::string>& cells) {
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
  };
  std::vector<std::string> titles;
  for (const TableColumn& column : columns) titles.push_back(column.title);
  std::string table = print_row(titles);
  for (const auto& row : rows) table += Rule(columns) + print_row(row);
  return table;
}

std::string ProgressLine(const IngestProgress& progress, bool bar) {
  std::string line;
  if (bar) {
    const double share = progress.bytes_total == 0 ? 0.0
                                                   : static_cast<double>(progress.bytes_done) /
                                                         static_cast<double>(progress.bytes_total);
    const auto filled = static_cast<size_t>(share * 24);
    line += '[';
    line.append(filled, '#').append(24 - filled, '.').append("] ");
  }
  line += std::to_string(progress.documents_done) + "/" + std::to_string(progress.documents_total) +
          " documents, " + std::to_string(progress.tokens_computed) + " tokens, " +
          Fixed(progress.TokensPerSecond(), 0) + " tokens/s, ETA " + Clock(progress.Eta());
  return line;
}

ProgressBar::ProgressBar() : terminal_(isatty(STDERR_FILENO) == 1) {}

void ProgressBar::Show(const IngestProgress& progress) {
  const auto now = std::chrono::steady_clock::now();
  const auto pause = terminal_ ? std::chrono::milliseconds(100) : std::chrono::milliseconds(5000);
  if (now - last_ < pause && progress.documents_done != progress.documents_total) return;
  if (!terminal_ && progress.documents_done == last_documents_ && drawn_ && now - last_ < pause) {
    return;
  }
  last_ = now;
  last_documents_ = progress.documents_done;
  drawn_ = true;
  if (terminal_) {
    std::fprintf(stderr, "\r\033[K%s", ProgressLine(progress, true).c_str());
  } else {
    std::fprintf(stderr, "%s\n", ProgressLine(progress, false).c_str());
  }
  std::fflush(stderr);
}

void ProgressBar::Finish() {
  if (terminal_ && drawn_) std::fprintf(stderr, "\n");
}

}  // namespace kvasir
