#include "service/http/sse.h"

namespace kvasir {

std::string SseEvent(std::string_view payload) {
  std::string frame = "data: ";
  frame += payload;
  frame += "\n\n";
  return frame;
}

std::vector<std::string> SseParser::Push(std::string_view bytes) {
  pending_ += bytes;
  std::vector<std::string> events;
  for (size_t end; (end = pending_.find("\n\n")) != std::string::npos;) {
    const std::string frame = pending_.substr(0, end);
    pending_.erase(0, end + 2);
    if (frame.starts_with("data: ")) events.push_back(frame.substr(6));
  }
  return events;
}

}  // namespace kvasir
