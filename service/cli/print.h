// What the command line prints: errors, a progress bar; tables by text_table.h.
#pragma once

#include <chrono>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "kernels/core/status.h"
#include "service/ingest_pipeline.h"
#include "service/text_table.h"

namespace kvasir {

inline constexpr int kExitOk = 0, kExitFailure = 1, kExitUsage = 2;

// "kvasir: message" on stderr.
void PrintError(const std::string& message);
// Prints a failed status; `what` (may be "") goes before the message.
int Fail(const Status& status, const std::string& what = "");

std::string ProgressLine(const IngestProgress& progress, bool bar);

// One line that is redrawn on a terminal; elsewhere a line each ten seconds, and a last one.
class ProgressBar {
 public:
  using Clock = std::chrono::steady_clock;
  ProgressBar();  // to stderr; looks whether that is a terminal
  ProgressBar(bool terminal, std::function<void(const std::string&)> write, Clock::time_point now);

  void Show(const IngestProgress& progress, Clock::time_point now = Clock::now());
  void Finish();  // draws the last state that was shown

 private:
  void Draw();

  bool terminal_;
  std::function<void(const std::string&)> write_;
  Clock::time_point last_;  // drawn
  std::optional<IngestProgress> latest_;
};

}  // namespace kvasir
