#include "service/log.h"

#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

#include <memory>

namespace kvasir {
namespace {

constexpr size_t kLongest = 256;  // of what a client sent
constexpr size_t kLongestOfOurs = 1024;

std::shared_ptr<spdlog::logger>& Logger() {
  static std::shared_ptr<spdlog::logger> logger;
  return logger;
}

}  // namespace

void StartLog(const std::string& level) {
  auto logger =
      std::make_shared<spdlog::logger>("kvasir", std::make_shared<spdlog::sinks::stderr_sink_mt>());
  logger->set_pattern("%Y-%m-%dT%H:%M:%S.%e%z %l %v");
  logger->set_level(spdlog::level::from_str(level));
  Logger() = std::move(logger);
}

namespace {

std::string Escape(std::string_view text, size_t longest) {
  constexpr char kHex[] = "0123456789abcdef";
  std::string out;
  for (const char c : text.substr(0, longest)) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte >= 0x20 && byte != 0x7f) {
      out += c;
    } else {
      out += "\\x";
      out += kHex[byte >> 4];
      out += kHex[byte & 15];
    }
  }
  if (text.size() > longest) out += "...";
  return out;
}

void Log(spdlog::level::level_enum level, std::string_view text) {
  if (Logger()) Logger()->log(level, Escape(text, kLongestOfOurs));
}

}  // namespace

std::string EscapeForLog(std::string_view text) { return Escape(text, kLongest); }

void LogRequest(const RequestLine& line) {
  if (!Logger()) return;
  const auto level = line.status >= 500 ? spdlog::level::warn : spdlog::level::info;
  Logger()->log(level, "{} {} {} {} {:.1f} ms{}", EscapeForLog(line.id), EscapeForLog(line.method),
                EscapeForLog(line.path), line.status, line.ms,
                line.client_gone ? ", client gone" : "");
}

void LogDebug(std::string_view text) { Log(spdlog::level::debug, text); }
void LogInfo(std::string_view text) { Log(spdlog::level::info, text); }
void LogWarning(std::string_view text) { Log(spdlog::level::warn, text); }
void LogError(std::string_view text) { Log(spdlog::level::err, text); }

}  // namespace kvasir
