#include "service/http/server.h"

#include <boost/asio.hpp>
#include <csignal>

#include "service/http/session.h"

namespace kvasir {
namespace {

namespace asio = boost::asio;
using tcp = asio::ip::tcp;
using ErrorCode = boost::system::error_code;

Result<asio::ip::address> AddressOf(const std::string& host) {
  ErrorCode error;
  if (host == "localhost") return asio::ip::address(asio::ip::address_v4::loopback());
  const asio::ip::address address = asio::ip::make_address(host, error);
  if (error) {
    return InvalidArgument("server.host: '" + host +
                           "' is not an IP address (use 127.0.0.1, or "
                           "0.0.0.0 for all networks)");
  }
  return address;
}

Status BindFailure(const std::string& where, const ErrorCode& error) {
  if (error == asio::error::address_in_use) {
    return FailedPrecondition(where +
                              " is in use by another program: stop it, or choose another "
                              "port with --port (0 = any free one)");
  }
  return FailedPrecondition("cannot listen on " + where + ": " + error.message());
}

}  // namespace

struct HttpServer::State {
  explicit State(ServiceContext& context)
      : service(context), shared(std::make_shared<SessionShared>(context)) {}

  asio::awaitable<void> Accept();
  asio::awaitable<void> Drain();
  void BeginDrain();

  ServiceContext& service;
  asio::io_context io{1};
  tcp::acceptor acceptor{io};
  asio::signal_set signals{io};
  asio::steady_timer drain_timer{io};
  std::shared_ptr<SessionShared> shared;
  tcp::endpoint endpoint;
};

HttpServer::HttpServer(std::unique_ptr<State> state) : state_(std::move(state)) {}

HttpServer::~HttpServer() {
  state_->shared->work.join();
  state_->shared->ingest.join();
}

Result<std::unique_ptr<HttpServer>> HttpServer::Listen(ServiceContext& service) {
  const Config& config = service.runtime.config();
  KVASIR_ASSIGN_OR_RETURN(const asio::ip::address address, AddressOf(config.server_host));
  if (!address.is_loopback() && config.server_api_keys.empty()) {
    return FailedPrecondition(
        "server.host is " + config.server_host +
        ", which other machines can reach, and no API key is set: set "
        "server.api_keys (or KVASIR__SERVER__API_KEYS), or bind to 127.0.0.1");
  }
  auto state = std::make_unique<State>(service);
  const tcp::endpoint endpoint(address, static_cast<uint16_t>(config.server_port));
  const std::string where = config.server_host + ":" + std::to_string(config.server_port);
  ErrorCode error;
  state->acceptor.open(endpoint.protocol(), error);
  if (!error) state->acceptor.set_option(tcp::acceptor::reuse_address(true), error);
  if (!error) state->acceptor.bind(endpoint, error);
  if (!error) state->acceptor.listen(asio::socket_base::max_listen_connections, error);
  if (error) return BindFailure(where, error);
  state->endpoint = state->acceptor.local_endpoint(error);
  return std::unique_ptr<HttpServer>(new HttpServer(std::move(state)));
}

uint16_t HttpServer::port() const { return state_->endpoint.port(); }

std::string HttpServer::url() const {
  const std::string host = state_->endpoint.address().to_string();
  const bool v6 = state_->endpoint.address().is_v6();
  return "http://" + (v6 ? "[" + host + "]" : host) + ":" + std::to_string(port());
}

asio::awaitable<void> HttpServer::State::Accept() {
  const auto limit = static_cast<int>(service.runtime.config().limits_connections);
  while (!service.draining) {
    ErrorCode error;
    tcp::socket socket =
        co_await acceptor.async_accept(asio::redirect_error(asio::use_awaitable, error));
    if (error == asio::error::operation_aborted) break;
    if (error) {  // out of file descriptors: let some close
      drain_timer.expires_after(std::chrono::milliseconds(50));
      co_await drain_timer.async_wait(asio::redirect_error(asio::use_awaitable, error));
      continue;
    }
    if (shared->connections >= limit) continue;  // closed at once
    asio::co_spawn(io, RunSession(std::move(socket), shared), asio::detached);
  }
}

asio::awaitable<void> HttpServer::State::Drain() {
  const auto end = std::chrono::steady_clock::now() +
                   std::chrono::seconds(service.runtime.config().limits_drain_seconds);
  ErrorCode ignored;
  while (shared->busy > 0 && std::chrono::steady_clock::now() < end) {
    drain_timer.expires_after(std::chrono::milliseconds(20));
    co_await drain_timer.async_wait(asio::redirect_error(asio::use_awaitable, ignored));
  }
  io.stop();
}

void HttpServer::State::BeginDrain() {
  if (service.draining.exchange(true)) return;
  ErrorCode ignored;
  acceptor.close(ignored);
  for (tcp::socket* socket : shared->idle) socket->cancel(ignored);
  asio::co_spawn(io, Drain(), asio::detached);
}

void HttpServer::Run() {
  ErrorCode ignored;
  state_->signals.add(SIGTERM, ignored);
  state_->signals.add(SIGINT, ignored);
  state_->signals.async_wait([this](ErrorCode error, int) {
    if (!error) state_->BeginDrain();
  });
  asio::co_spawn(state_->io, state_->Accept(), asio::detached);
  state_->io.run();
}

void HttpServer::Stop() {
  asio::post(state_->io, [this] { state_->BeginDrain(); });
}

}  // namespace kvasir
