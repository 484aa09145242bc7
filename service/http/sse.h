// Server-sent events: how a data event is framed, and how a client reads frames back out of
// pieces of any size.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace kvasir {

// "data: {payload}\n\n". The payload must hold no line break (compact JSON has none).
std::string SseEvent(std::string_view payload);
inline constexpr std::string_view kSseDone = "data: [DONE]\n\n";
// A comment line, which clients ignore: keeps idle connections open.
inline constexpr std::string_view kSseKeepAlive = ": keep-alive\n\n";

// Not thread-safe. Joins pieces and returns the data of every event that is complete.
class SseParser {
 public:
  std::vector<std::string> Push(std::string_view bytes);

 private:
  std::string pending_;
};

}  // namespace kvasir
