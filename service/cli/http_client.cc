#include "service/cli/http_client.h"

#include <boost/asio.hpp>
#include <boost/beast/core.hpp>
#include <boost/beast/http.hpp>
#include <boost/json.hpp>

namespace kvasir {
namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = beast::http;

Status Unreachable(const ServerAddress& server, const boost::system::error_code& error) {
  return Unavailable("cannot reach the server at " + server.host + ":" + server.port + ": " +
                     error.message() + "; is 'kvasir serve' running there?");
}

// The message of {"error":{"message":...}}, or the status line.
std::string MessageOf(const std::string& body, unsigned status) {
  boost::system::error_code error;
  const boost::json::value value = boost::json::parse(body, error);
  if (!error && value.is_object() && value.get_object().contains("error")) {
    const boost::json::value& inner = value.get_object().at("error");
    if (inner.is_object() && inner.get_object().contains("message") &&
        inner.get_object().at("message").is_string()) {
      return std::string(inner.get_object().at("message").get_string());
    }
  }
  return "the server answered with status " + std::to_string(status);
}

Status StatusOf(unsigned status, const std::string& body) {
  const std::string message = MessageOf(body, status);
  if (status == 404) return NotFound(message);
  if (status == 429) return ResourceExhausted(message);
  if (status >= 500) return Unavailable(message);
  return InvalidArgument(message);
}

}  // namespace

Result<ServerAddress> ParseServer(const std::string& url, const std::string& api_key) {
  std::string rest = url;
  if (rest.starts_with("https://")) {
    return InvalidArgument(
        "--server: https is not supported; use a proxy on this machine, or http");
  }
  if (rest.starts_with("http://")) rest = rest.substr(7);
  while (rest.ends_with('/')) rest.pop_back();
  const size_t colon = rest.rfind(':');
  ServerAddress server{rest.substr(0, colon), colon == std::string::npos ? "80" : "", api_key};
  if (colon != std::string::npos) server.port = rest.substr(colon + 1);
  const bool digits = server.port.find_first_not_of("0123456789") == std::string::npos;
  if (server.host.empty() || server.port.empty() || !digits) {
    return InvalidArgument("--server: '" + url + "' is not of the form http://host:port");
  }
  return server;
}

Result<std::string> CallServer(const ServerAddress& server, const std::string& method,
                               const std::string& target, const std::string& body,
                               const std::string& content_type) {
  boost::system::error_code error;
  asio::io_context io;
  asio::ip::tcp::resolver resolver(io);
  const auto endpoints = resolver.resolve(server.host, server.port, error);
  if (error) return Unreachable(server, error);
  asio::ip::tcp::socket socket(io);
  asio::connect(socket, endpoints, error);
  if (error) return Unreachable(server, error);
  http::request<http::string_body> request(http::string_to_verb(method), target, 11);
  request.set(http::field::host, server.host);
  request.set(http::field::content_type, content_type);
  request.set(http::field::connection, "close");
  if (!server.api_key.empty()) {
    request.set(http::field::authorization, "Bearer " + server.api_key);
  }
  request.body() = body;
  request.prepare_payload();
  http::write(socket, request, error);
  if (error) return Unreachable(server, error);
  beast::flat_buffer buffer;
  http::response_parser<http::string_body> parser;
  parser.body_limit(uint64_t{1} << 30);
  http::read(socket, buffer, parser, error);
  if (error) return Unreachable(server, error);
  const auto& response = parser.get();
  if (response.result_int() >= 300) return StatusOf(response.result_int(), response.body());
  return response.body();
}

}  // namespace kvasir
