#include "service/http/session.h"

#include <boost/asio.hpp>
#include <boost/beast/core.hpp>
#include <boost/beast/http.hpp>
#include <functional>
#include <mutex>
#include <optional>

#include "service/http/api.h"
#include "service/http/chat_request.h"
#include "service/http/generation.h"
#include "service/http/sse.h"
#include "service/log.h"
#include "service/name_space.h"
#include "service/random_id.h"

namespace kvasir {
namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = beast::http;
using asio::use_awaitable;
using tcp = asio::ip::tcp;
using ErrorCode = boost::system::error_code;
using Parser = http::request_parser<http::string_body>;

constexpr auto kIdleTimeout = std::chrono::seconds(75);
constexpr auto kReadTimeout = std::chrono::seconds(60);
constexpr auto kWriteTimeout = std::chrono::seconds(60);
constexpr auto kKeepAliveComment = std::chrono::seconds(15);
constexpr int kMaxWorkQueued = 256;
constexpr int kMaxIngestQueued = 16;

// A wake-up that may come from any thread, even after the session has ended; waited for on the
// service thread only.
class Wake : public std::enable_shared_from_this<Wake> {
 public:
  explicit Wake(asio::any_io_executor executor) : timer_(std::in_place, executor) {}

  void Signal() {  // from any thread
    std::lock_guard lock(mutex_);
    if (!timer_) return;
    asio::post(timer_->get_executor(), [self = shared_from_this()] { self->Ring(); });
  }
  // Until signalled (true) or for `limit` (false).
  asio::awaitable<bool> Wait(std::chrono::steady_clock::duration limit) {
    if (!signalled_) {
      timer_->expires_after(limit);
      ErrorCode ignored;
      co_await timer_->async_wait(asio::redirect_error(use_awaitable, ignored));
    }
    co_return std::exchange(signalled_, false);
  }
  void Close() {
    std::lock_guard lock(mutex_);
    timer_.reset();
  }

 private:
  void Ring() {
    signalled_ = true;
    if (timer_) timer_->cancel();
  }
  std::mutex mutex_;
  std::optional<asio::steady_timer> timer_;  // reset only on the service thread
  bool signalled_ = false;
};

// Closes a wake when the session leaves, also when its coroutine is destroyed unfinished.
class WakeGuard {
 public:
  explicit WakeGuard(std::shared_ptr<Wake> wake) : wake_(std::move(wake)) {}
  ~WakeGuard() { wake_->Close(); }
  WakeGuard(const WakeGuard&) = delete;
  WakeGuard& operator=(const WakeGuard&) = delete;

 private:
  std::shared_ptr<Wake> wake_;
};

template <typename T>
asio::awaitable<T> CallBody(std::function<T()> function) {
  co_return function();
}

// Runs `function` on the pool, resumes on the caller's executor.
template <typename T>
asio::awaitable<T> RunOn(asio::thread_pool& pool, std::function<T()> function) {
  co_return co_await asio::co_spawn(pool, CallBody<T>(std::move(function)), use_awaitable);
}

ApiError Overloaded(const char* what) {
  return FromStatus(ResourceExhausted(std::string("Too many requests are waiting for ") + what +
                                      ": try again later"));
}

HttpReply SafeHandle(ServiceContext& service, const RouteMatch& match, const HttpRequest& request) {
  try {
    return HandleRequest(service, match, request);
  } catch (const std::exception& error) {
    return ErrorReply(FromStatus(Internal(std::string("internal error: ") + error.what())));
  }
}

using StartResult = ApiResult<std::shared_ptr<Generation>>;

StartResult SafeStart(ServiceContext& service, const RouteMatch& match, const std::string& body,
                      const std::string& tenant, std::function<void()> wake) {
  try {
    RequestLimits limits;
    limits.documents = static_cast<size_t>(service.runtime.config().limits_documents);
    auto request = match.route == Route::kChat ? ParseChatRequest(body, limits)
                                               : ParseCompletionRequest(body, limits);
    if (!request.ok()) return request.error();
    request->rag.tenant = tenant;
    const std::string& model = request->model;
    if (!model.empty() && model != "default" && model != service.runtime.model_name()) {
      ApiError error = BadField("model",
                                "names '" + model + "', which is not loaded; loaded is '" +
                                    service.runtime.model_name() + "'",
                                "model_not_found");
      error.status = 404;
      return error;
    }
    return Generation::Start(service, std::move(*request), std::move(wake));
  } catch (const std::exception& error) {
    return FromStatus(Internal(std::string("internal error: ") + error.what()));
  }
}

class Session : public std::enable_shared_from_this<Session> {
 public:
  Session(tcp::socket socket, std::shared_ptr<SessionShared> shared)
      : stream_(std::move(socket)), shared_(std::move(shared)) {}

  asio::awaitable<void> Run();

 private:
  void LogFailure();
  asio::awaitable<bool> ReadHeader(Parser& parser);
  asio::awaitable<bool> ReadBody(Parser& parser);
  asio::awaitable<void> Answer(Parser& parser);
  asio::awaitable<void> Dispatch();
  asio::awaitable<void> Generate();
  asio::awaitable<void> SendWhole(Generation& generation, Wake& wake);
  asio::awaitable<void> SendStream(Generation& generation, Wake& wake);
  asio::awaitable<void> Write(HttpReply reply);
  asio::awaitable<bool> WriteBytes(std::string bytes);
  asio::awaitable<bool> WriteStreamHeader();
  void WatchForClose(std::shared_ptr<Wake> wake);
  template <typename Body>
  void SetCommon(http::response<Body>& response, int status);

  beast::tcp_stream stream_;
  std::shared_ptr<SessionShared> shared_;
  beast::flat_buffer buffer_;
  HttpRequest request_;
  RouteMatch match_;
  unsigned version_ = 11;
  bool keep_alive_ = false, head_only_ = false;
  bool gone_ = false;  // the client closed the connection
  int status_ = 0;     // of the reply, once its header is made
};

template <typename Body>
void Session::SetCommon(http::response<Body>& response, int status) {
  response.version(version_);
  response.result(static_cast<unsigned>(status));
  status_ = status;
  response.set(http::field::server, "kvasir");
  response.set("x-request-id", request_.request_id);
  if (shared_->service.draining) keep_alive_ = false;
  response.keep_alive(keep_alive_);
  shared_->service.metrics.CountReply(std::string(match_.label), status);
}

asio::awaitable<void> Session::Write(HttpReply reply) {
  http::response<http::string_body> response;
  SetCommon(response, reply.status);
  response.set(http::field::content_type, reply.content_type);
  for (const auto& [name, value] : reply.headers) response.set(name, value);
  response.content_length(reply.body.size());
  if (!head_only_) response.body() = std::move(reply.body);
  stream_.expires_after(kWriteTimeout);
  ErrorCode error;
  if (head_only_) {
    http::response_serializer<http::string_body> serializer(response);
    co_await http::async_write_header(stream_, serializer,
                                      asio::redirect_error(use_awaitable, error));
  } else {
    co_await http::async_write(stream_, response, asio::redirect_error(use_awaitable, error));
  }
  if (error) gone_ = true;
}

asio::awaitable<bool> Session::WriteBytes(std::string bytes) {
  ErrorCode error;
  stream_.expires_after(kWriteTimeout);
  if (version_ >= 11) {
    co_await asio::async_write(stream_, http::make_chunk(asio::buffer(bytes)),
                               asio::redirect_error(use_awaitable, error));
  } else {
    co_await asio::async_write(stream_, asio::buffer(bytes),
                               asio::redirect_error(use_awaitable, error));
  }
  stream_.expires_never();
  co_return !error;
}

asio::awaitable<bool> Session::WriteStreamHeader() {
  http::response<http::empty_body> response;
  if (version_ < 11) keep_alive_ = false;  // the end of the stream is the end of the connection
  SetCommon(response, 200);
  response.set(http::field::content_type, "text/event-stream; charset=utf-8");
  response.set(http::field::cache_control, "no-cache");
  if (version_ >= 11) response.chunked(true);
  http::response_serializer<http::empty_body> serializer(response);
  ErrorCode error;
  stream_.expires_after(kWriteTimeout);
  co_await http::async_write_header(stream_, serializer,
                                    asio::redirect_error(use_awaitable, error));
  stream_.expires_never();
  co_return !error;
}

// Readable without a byte to read means that the client closed the connection.
void Session::WatchForClose(std::shared_ptr<Wake> wake) {
  tcp::socket& socket = stream_.socket();
  socket.async_wait(tcp::socket::wait_read, [self = shared_from_this(), wake](ErrorCode error) {
    if (error) return;  // cancelled: the answer is complete
    char byte;
    ErrorCode peeked;
    const size_t bytes =
        self->stream_.socket().receive(asio::buffer(&byte, 1), tcp::socket::message_peek, peeked);
    if (bytes > 0 && !peeked) return;  // the next request of a pipelining client
    self->gone_ = true;
    wake->Signal();
  });
}

asio::awaitable<void> Session::SendWhole(Generation& generation, Wake& wake) {
  generation.Drain();
  while (!generation.finished() && !gone_) {
    co_await wake.Wait(std::chrono::hours(1));
    generation.Drain();
  }
  if (!gone_) co_await Write(generation.Reply());
}

asio::awaitable<void> Session::SendStream(Generation& generation, Wake& wake) {
  if (!co_await WriteStreamHeader()) gone_ = true;
  bool signalled = true;
  while (!gone_) {
    std::string bytes = generation.Drain();
    if (bytes.empty() && !signalled && !generation.finished()) bytes = kSseKeepAlive;
    if (!bytes.empty() && !co_await WriteBytes(std::move(bytes))) gone_ = true;
    if (generation.finished() || gone_) break;
    signalled = co_await wake.Wait(kKeepAliveComment);
  }
  if (gone_ || version_ < 11) co_return;
  ErrorCode error;
  co_await asio::async_write(stream_, http::make_chunk_last(),
                             asio::redirect_error(use_awaitable, error));
  if (error) gone_ = true;
}

asio::awaitable<void> Session::Generate() {
  if (shared_->work_queued >= kMaxWorkQueued) {
    co_await Write(ErrorReply(Overloaded("retrieval")));
    co_return;
  }
  auto wake = std::make_shared<Wake>(co_await asio::this_coro::executor);
  const WakeGuard guard(wake);
  stream_.expires_never();
  WatchForClose(wake);
  ServiceContext& service = shared_->service;
  ++shared_->work_queued;
  std::function<StartResult()> start =
      [&service, match = match_, body = std::move(request_.body),
       tenant =
           TenantOf(ApiKeyOf(request_.authorization, service.runtime.config().server_api_keys)),
       wake]() -> StartResult {
    return SafeStart(service, match, body, tenant, [wake] { wake->Signal(); });
  };
  StartResult started = co_await RunOn<StartResult>(shared_->work, std::move(start));
  --shared_->work_queued;
  if (!started.ok()) {
    co_await Write(ErrorReply(started.error()));
  } else if ((*started)->stream()) {
    co_await SendStream(**started, *wake);
  } else {
    co_await SendWhole(**started, *wake);
  }
  if (started.ok() && gone_ && !(*started)->finished()) (*started)->Cancel();
  ErrorCode ignored;
  stream_.socket().cancel(ignored);  // the watch
}

asio::awaitable<void> Session::Dispatch() {
  ServiceContext& service = shared_->service;
  if (match_.lane == Lane::kGenerate) {
    co_await Generate();
    co_return;
  }
  if (match_.lane == Lane::kInline) {
    co_await Write(SafeHandle(service, match_, request_));
    co_return;
  }
  const bool ingest = match_.lane == Lane::kIngest;
  int& queued = ingest ? shared_->ingest_queued : shared_->work_queued;
  if (queued >= (ingest ? kMaxIngestQueued : kMaxWorkQueued)) {
    co_await Write(ErrorReply(Overloaded(ingest ? "ingestion" : "retrieval")));
    co_return;
  }
  stream_.expires_never();
  ++queued;
  std::function<HttpReply()> handle = [&service, match = match_, request = request_] {
    return SafeHandle(service, match, request);
  };
  HttpReply reply =
      co_await RunOn<HttpReply>(ingest ? shared_->ingest : shared_->work, std::move(handle));
  --queued;
  co_await Write(std::move(reply));
}

// What a parser's error means to the client; nullopt = the connection is simply over.
std::optional<ApiError> ParseFailure(const ErrorCode& error) {
  ApiError reply;
  reply.code = "bad_request";
  if (error == http::error::header_limit) {
    reply.status = 431, reply.message = "The request's header is too large";
  } else if (error == http::error::body_limit) {
    reply.status = 413, reply.message = "The request's body is too large (limits.body_mib)";
    reply.code = "body_too_large";
  } else if (error == beast::error::timeout || error == http::error::end_of_stream ||
             error == asio::error::operation_aborted) {
    return std::nullopt;
  } else if (error.category() == make_error_code(http::error::bad_method).category()) {
    if (error == http::error::partial_message) return std::nullopt;
    reply.message = "The request is not valid HTTP/1.1: " + error.message();
  } else {
    return std::nullopt;
  }
  return reply;
}

asio::awaitable<bool> Session::ReadHeader(Parser& parser) {
  const Config& config = shared_->service.runtime.config();
  parser.header_limit(static_cast<uint32_t>(config.limits_header_kib << 10));
  parser.body_limit(static_cast<uint64_t>(config.limits_body_mib) << 20);
  stream_.expires_after(kIdleTimeout);
  shared_->idle.insert(&stream_.socket());
  ErrorCode error;
  co_await http::async_read_header(stream_, buffer_, parser,
                                   asio::redirect_error(use_awaitable, error));
  shared_->idle.erase(&stream_.socket());
  if (!error) co_return true;
  request_.request_id = "req_" + RandomHex(24);
  keep_alive_ = false;
  match_ = {};
  if (const auto failure = ParseFailure(error)) co_await Write(ErrorReply(*failure));
  co_return false;
}

asio::awaitable<bool> Session::ReadBody(Parser& parser) {
  ErrorCode error;
  stream_.expires_after(kReadTimeout);
  if (beast::iequals(parser.get()[http::field::expect], "100-continue")) {
    const std::string go = "HTTP/1.1 100 Continue\r\n\r\n";
    co_await asio::async_write(stream_, asio::buffer(go),
                               asio::redirect_error(use_awaitable, error));
  }
  if (!error) {
    co_await http::async_read(stream_, buffer_, parser, asio::redirect_error(use_awaitable, error));
  }
  if (!error) co_return true;
  keep_alive_ = false;
  if (const auto failure = ParseFailure(error)) co_await Write(ErrorReply(*failure));
  co_return false;
}

std::string FieldText(const Parser& parser, http::field field) {
  const auto value = parser.get()[field];
  return {value.data(), value.size()};
}

// A client's own request id is kept if it is short and printable.
std::string RequestId(const Parser& parser) {
  const auto value = parser.get()["x-request-id"];
  bool fine = !value.empty() && value.size() <= 128;
  for (const char c : value) fine = fine && c > ' ' && c < 127;
  return fine ? std::string(value.data(), value.size()) : "req_" + RandomHex(24);
}

asio::awaitable<void> Session::Answer(Parser& parser) {
  request_ = {};
  request_.request_id = RequestId(parser);
  version_ = parser.get().version();
  keep_alive_ = parser.keep_alive();
  const auto method = parser.get().method_string();
  const auto target = parser.get().target();
  request_.method.assign(method.data(), method.size());
  head_only_ = request_.method == "HEAD";
  match_ = {};
  std::optional<ApiError> refusal;
  if (!ParseTarget({target.data(), target.size()}, &request_)) {
    refusal = BadField("", "The request's target is malformed", "bad_request");
  } else {
    match_ = MatchRoute(request_.method, request_.path);
    request_.authorization = FieldText(parser, http::field::authorization);
    request_.content_type = FieldText(parser, http::field::content_type);
    if (!match_.open &&
        !IsAuthorized(request_.authorization, shared_->service.runtime.config().server_api_keys)) {
      refusal = BadField("", "The API key is missing or wrong: send 'Authorization: Bearer KEY'",
                         "invalid_api_key");
      refusal->status = 401, refusal->type = "authentication_error";
    } else if (shared_->service.draining && match_.lane != Lane::kInline) {
      refusal = FromStatus(Unavailable("The server is shutting down"));
    }
  }
  if (refusal) {
    keep_alive_ = keep_alive_ && parser.is_done();  // the body was not read
    co_await Write(ErrorReply(*refusal));
    co_return;
  }
  if (!parser.is_done() && !co_await ReadBody(parser)) co_return;
  request_.body = std::move(parser.get().body());
  co_await Dispatch();
}

// Once: what became of the engine.
void Session::LogFailure() {
  if (shared_->failure_logged) return;
  const Status health = shared_->service.runtime.engine().health();
  if (health.ok()) return;
  shared_->failure_logged = true;
  LogError(health.message());
}

asio::awaitable<void> Session::Run() {
  do {
    Parser parser;
    if (!co_await ReadHeader(parser)) break;
    ++shared_->busy;
    const auto begin = std::chrono::steady_clock::now();
    status_ = 0;
    co_await Answer(parser);
    --shared_->busy;
    const std::chrono::duration<double, std::milli> took = std::chrono::steady_clock::now() - begin;
    LogRequest({request_.request_id, request_.method, request_.path, status_, took.count(), gone_});
    LogFailure();
  } while (keep_alive_ && !gone_ && !shared_->service.draining);
  ErrorCode ignored;
  stream_.socket().shutdown(tcp::socket::shutdown_both, ignored);
}

}  // namespace

asio::awaitable<void> RunSession(tcp::socket socket, std::shared_ptr<SessionShared> shared) {
  ErrorCode ignored;
  socket.set_option(tcp::no_delay(true), ignored);
  ++shared->connections;
  co_await std::make_shared<Session>(std::move(socket), shared)->Run();
  --shared->connections;
}

}  // namespace kvasir
