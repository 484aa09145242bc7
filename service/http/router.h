// Router: method and path to a route. A table, no sockets.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace kvasir {

enum class Route : uint8_t {
  kNotFound,
  kMethodNotAllowed,
  kHealth,
  kReady,
  kVersion,
  kMetrics,
  kModels,
  kModel,
  kStats,
  kChat,
  kCompletion,
  kDocumentsPost,
  kDocumentsList,
  kDocumentGet,
  kDocumentDelete,
  kSearch,
  kEmbeddings,
  kTokenize,
  kDetokenize,
};

// Where a route's work runs.
enum class Lane : uint8_t {
  kInline,    // on the service thread: memory only, microseconds
  kWork,      // on the blocking pool: disk, retrieval, embedding
  kIngest,    // on the one ingestion thread: minutes
  kGenerate,  // prepared on the blocking pool, then answered token by token
};

struct RouteMatch {
  Route route = Route::kNotFound;
  Lane lane = Lane::kInline;
  std::string parameter;             // what stood for {id}
  std::string allow;                 // for kMethodNotAllowed: "GET, POST"
  std::string_view label = "other";  // the pattern, for metrics
  bool open = false;                 // needs no API key
};

RouteMatch MatchRoute(std::string_view method, std::string_view path);

}  // namespace kvasir
