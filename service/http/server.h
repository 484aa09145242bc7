// HttpServer: the I/O shell around the routes. One service thread accepts, reads and writes; a
// small pool does what blocks; compute runs on the engine's own threads.
//
// Life cycle: Listen, then Run until SIGTERM or SIGINT (or Stop from another thread): no new
// connections, /readyz says 503, running answers finish (for at most limits.drain_seconds), then
// Run returns. Limits: limits.* of the configuration.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "service/service_context.h"

namespace kvasir {

class HttpServer {
 public:
  // Refuses an address that is not loopback without an API key. The service must outlive it.
  static Result<std::unique_ptr<HttpServer>> Listen(ServiceContext& service);
  ~HttpServer();

  uint16_t port() const;
  std::string url() const;
  void Run();
  void Stop();

 private:
  struct State;
  explicit HttpServer(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace kvasir
