#include "service/cli/print.h"

#include <unistd.h>

#include <cstdio>

namespace kvasir {
namespace {

std::string Eta(double seconds) {
  if (seconds < 0) return "--:--";
  const auto whole = static_cast<long>(seconds + 0.5);
  const long hours = whole / 3600;
  char text[48];
  if (hours > 0) {
    std::snprintf(text, sizeof text, "%ld:%02ld:%02ld", hours, whole / 60 % 60, whole % 60);
  } else {
    std::snprintf(text, sizeof text, "%02ld:%02ld", whole / 60, whole % 60);
  }
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

std::string ProgressLine(const IngestProgress& progress, bool bar) {
  const std::string documents = std::to_string(progress.documents_done) + "/" +
                                std::to_string(progress.documents_total) + " documents";
  if (progress.counting) return documents + " read and counted";
  std::string line;
  if (bar) {
    const auto filled = static_cast<size_t>(progress.Share() * 24);
    line += '[';
    line.append(filled, '#').append(24 - filled, '.').append("] ");
  }
  line += documents;
  line += ", ";
  line += std::to_string(progress.tokens_computed);
  if (progress.tokens_to_compute > 0)
    line.append("/").append(std::to_string(progress.tokens_to_compute));
  line += " tokens, ";
  line += Fixed(progress.TokensPerSecond(), 0);
  line += " tokens/s, ETA ";
  return line + Eta(progress.Eta());
}

ProgressBar::ProgressBar()
    : ProgressBar(
          isatty(STDERR_FILENO) == 1,
          [](const std::string& text) {
            std::fputs(text.c_str(), stderr);
            std::fflush(stderr);
          },
          Clock::now()) {}

ProgressBar::ProgressBar(bool terminal, std::function<void(const std::string&)> write,
                         Clock::time_point now)
    : terminal_(terminal), write_(std::move(write)), last_(now) {}

void ProgressBar::Show(const IngestProgress& progress, Clock::time_point now) {
  latest_ = progress;
  const auto pause = terminal_ ? std::chrono::milliseconds(100) : std::chrono::milliseconds(10000);
  if (now - last_ < pause) return;
  last_ = now;
  Draw();
}

void ProgressBar::Draw() {
  std::string line = terminal_ ? "\r\033[K" : "";
  line += ProgressLine(*latest_, terminal_);
  if (!terminal_) line += '\n';
  write_(line);
}

void ProgressBar::Finish() {
  if (!latest_) return;
  Draw();
  if (terminal_) write_("\n");
  latest_.reset();
}

}  // namespace kvasir
