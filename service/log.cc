#include "service/log.h"

#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

#include <memory>

namespace kvasir {
namespace {

constexpr size_t kLongest = 256;

std::shared_ptr<spdlog::logger>& Logger() {
  static std::shared_ptr<spdlog::logger> logger;
  return logger;
}

void Log(spdlog::level::level_enum level, std::string_view text) {
  if (Logger()) Logger()->log(level, text);
}

}  // namespace

void StartLog(const std::string& level) {
  auto logger =
      std::make_shared<spdlog::logger>("kvasir", std::make_shared<spdlog::sinks::stderr_sink_mt>());
  logger->set_pattern("%Y-%m-%dT%H:%M:%S.%e%z %l %v");
  logger->set_level(spdlog::level::from_str(level));
  Logger() = std::move(logger);
}

std::string EscapeForLog(std::string_view text) {
  constexpr char kHex[] = "0123456789abcdef";
  std::string out;
  for (const char c : text.substr(0, kLongest)) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte >= 0x20 && byte != 0x7f) {
      out += c;
    } else {
      out += "\\x";
      out += kHex[byte >> 4];
      out += kHex[byte & 15];
    }
  }
  if (text.size() > kLongest) out += "...";
  return out;
}

void LogRequest(const RequestLine& line) {
  if (!Logger()) return;
  const auto level = line.status >= 500 ? spdlog::level::warn : spdlog::level::info;
  Logger()->log(level, "{} {} {} {} {:.1f} ms{}", EscapeForLog(line.id), EscapeForLog(line.method),
                EscapeForLog(line.path), line.status, line.ms,
                line.client_gone ? ", client gone" : "");
}

void LogInfo(std::string_view text) { Log(spdlog::level::info, EscapeForLog(text)); }
void LogWarning(std::string_view text) { Log(spdlog::level::warn, EscapeForLog(text)); }

}  // namespace kvasir
