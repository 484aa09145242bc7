// The log of `kvasir serve`: one line an event on standard error, by spdlog.
//
// Never holds prompt or document text. Line breaks and other control characters of what a client
// sent are escaped, so that a line is always one event. Thread-safe once started.
#pragma once

#include <string>
#include <string_view>

namespace kvasir {

// level: debug, info, warning, error or off (config log.level). Without it nothing is logged.
void StartLog(const std::string& level);

// One answered request; `path` without its query, `ms` from the header read to the last byte sent.
struct RequestLine {
  std::string_view id, method, path;
  int status = 0;
  double ms = 0;
  bool client_gone = false;
};
void LogRequest(const RequestLine& line);  // info; warning from status 500 on

void LogDebug(std::string_view text);
void LogInfo(std::string_view text);
void LogWarning(std::string_view text);
void LogError(std::string_view text);

// `text` with control characters as \xNN, at most 256 bytes of it.
std::string EscapeForLog(std::string_view text);

}  // namespace kvasir
