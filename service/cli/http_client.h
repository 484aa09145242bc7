// A small blocking HTTP client for `--server URL`. Not thread-safe; one connection a call.
#pragma once

#include <string>
#include <string_view>

#include "kernels/core/status.h"

namespace kvasir {

struct ServerAddress {
  std::string host, port;
  std::string api_key;  // "" = none
};

// "http://host:port" or "host:port". https is refused by name.
Result<ServerAddress> ParseServer(const std::string& url, const std::string& api_key);

// The body of a reply with a status below 300; else the server's own message as an error.
Result<std::string> CallServer(const ServerAddress& server, const std::string& method,
                               const std::string& target, const std::string& body,
                               const std::string& content_type = "application/json");

}  // namespace kvasir
