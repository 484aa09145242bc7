// Search, embeddings, tokens.
#include <boost/beast/core/detail/base64.hpp>
#include <boost/json.hpp>
#include <cstring>

#include "service/http/api.h"
#include "service/http/bounds.h"
#include "service/http/document_fields.h"
#include "service/http/field_reader.h"

namespace kvasir {
namespace {

namespace json = boost::json;

HttpReply Json(const json::value& body) {
  HttpReply reply;
  reply.body = json::serialize(body);
  return reply;
}

HttpReply Search(ServiceContext& service, const HttpRequest& request) {
  auto object = ParseObject(request.body);
  if (!object.ok()) return ErrorReply(object.error());
  FieldReader fields(*object);
  SearchRequest search;
  search.collection = kDefaultCollection;
  int64_t top_k = 8;
  double min_score = -1;
  if (!fields.Text("query", &search.query)) {
    fields.Fail("query", "is required", "missing_required_parameter");
  }
  fields.Text("collection", &search.collection);
  fields.Integer("top_k", &top_k);
  fields.Number("min_score", &min_score);
  ReadFilters(fields, &search.filter);
  if (top_k < 1) fields.Fail("top_k", "must be at least 1");
  if (auto error = fields.Finish()) return ErrorReply(*error);
  search.top_k = static_cast<int32_t>(top_k);
  search.min_score = static_cast<float>(min_score);
  const Result<Retriever*> retriever = service.runtime.retrieval();
  if (!retriever.ok()) return ErrorReply(FromStatus(retriever.status()));
  const auto hits = (*retriever)->Search(search);
  if (!hits.ok()) return ErrorReply(FromStatus(hits.status()));
  HttpReply reply;
  reply.body = SearchBody(*hits);
  return reply;
}

// Reads `input`: a string or a list of strings.
std::vector<std::string> ReadInput(FieldReader& fields) {
  std::vector<std::string> texts;
  const json::value* value = fields.Value("input");
  if (value == nullptr) fields.Fail("input", "is required", "missing_required_parameter");
  if (value == nullptr) return texts;
  if (value->is_string()) texts.emplace_back(value->get_string());
  if (value->is_array()) {
    for (const json::value& item : value->get_array()) {
      if (!item.is_string()) {
        fields.Fail("input", "must be a string or a list of strings", "invalid_type");
        break;
      }
      texts.emplace_back(item.get_string());
    }
  }
  if (texts.empty()) fields.Fail("input", "must be a string or a list of strings", "invalid_type");
  if (texts.size() > kMaxEmbeddingInputs) fields.Fail("input", "holds more than 2048 texts");
  return texts;
}

json::value Vector(const float* values, size_t count, bool base64) {
  if (!base64) {
    json::array array;
    for (size_t i = 0; i < count; ++i) array.push_back(values[i]);
    return array;
  }
  namespace codec = boost::beast::detail::base64;
  std::string text(codec::encoded_size(count * sizeof(float)), '\0');
  text.resize(codec::encode(text.data(), values, count * sizeof(float)));  // little-endian hosts
  return json::value(text);
}

HttpReply Embeddings(ServiceContext& service, const HttpRequest& request) {
  auto object = ParseObject(request.body);
  if (!object.ok()) return ErrorReply(object.error());
  FieldReader fields(*object);
  std::string model, format = "float";
  const std::vector<std::string> texts = ReadInput(fields);
  fields.Text("model", &model);
  fields.Text("encoding_format", &format);
  if (format != "float" && format != "base64") {
    fields.Fail("encoding_format", "must be 'float' or 'base64'");
  }
  int64_t dimensions = 0;
  fields.Integer("dimensions", &dimensions);
  fields.Accept({"user"});
  if (auto error = fields.Finish()) return ErrorReply(*error);
  const Result<Embedder*> embedder = service.runtime.embedder();
  if (!embedder.ok()) return ErrorReply(FromStatus(embedder.status()));
  const auto width = static_cast<size_t>((*embedder)->dimension());
  if (dimensions != 0 && dimensions != (*embedder)->dimension()) {
    return ErrorReply(BadField("dimensions",
                               "must be " + std::to_string(width) + " for this embedder",
                               "unsupported_parameter"));
  }
  const auto vectors = (*embedder)->Embed(texts);
  if (!vectors.ok()) return ErrorReply(FromStatus(vectors.status()));
  json::array data;
  int64_t tokens = 0;
  for (size_t i = 0; i < texts.size(); ++i) {
    const auto counted = service.runtime.tokenizer().Encode(texts[i]);
    tokens += counted.ok() ? static_cast<int64_t>(counted->size()) : 0;
    data.push_back({{"object", "embedding"},
                    {"index", i},
                    {"embedding", Vector(vectors->data() + i * width, width, format == "base64")}});
  }
  return Json(json::object{{"object", "list"},
                           {"data", std::move(data)},
                           {"model", service.runtime.config().model_embedder},
                           {"usage", {{"prompt_tokens", tokens}, {"total_tokens", tokens}}}});
}

HttpReply Tokenize(ServiceContext& service, const HttpRequest& request) {
  auto object = ParseObject(request.body);
  if (!object.ok()) return ErrorReply(object.error());
  FieldReader fields(*object);
  std::string text;
  if (!fields.Text("prompt", &text) && !fields.Text("content", &text)) {
    fields.Fail("prompt", "is required", "missing_required_parameter");
  }
  fields.Accept({"model", "content", "add_special_tokens"});
  if (auto error = fields.Finish()) return ErrorReply(*error);
  const auto ids = service.runtime.tokenizer().Encode(text);
  if (!ids.ok()) return ErrorReply(FromStatus(ids.status()));
  return Json(json::object{{"tokens", json::value_from(*ids)},
                           {"count", ids->size()},
                           {"max_model_len", service.runtime.engine().max_context()}});
}

HttpReply Detokenize(ServiceContext& service, const HttpRequest& request) {
  auto object = ParseObject(request.body);
  if (!object.ok()) return ErrorReply(object.error());
  FieldReader fields(*object);
  std::vector<int32_t> ids;
  const json::value* tokens = fields.Value("tokens");
  if (tokens == nullptr || !tokens->is_array()) {
    fields.Fail("tokens", "must be a list of token ids", "invalid_type");
  } else {
    for (const json::value& id : tokens->get_array()) {
      const bool valid = id.is_int64() && id.get_int64() >= 0 &&
                         id.get_int64() < service.runtime.tokenizer().VocabularySize();
      if (!valid) {
        fields.Fail("tokens", "holds a value that is no token id of this model");
        break;
      }
      ids.push_back(static_cast<int32_t>(id.get_int64()));
    }
  }
  fields.Accept({"model"});
  if (auto error = fields.Finish()) return ErrorReply(*error);
  Utf8Assembler assembler;
  const std::string text =
      assembler.Push(service.runtime.tokenizer().Decode(ids)) + assembler.Finish();
  return Json(json::object{{"prompt", text}});
}

}  // namespace

std::string SearchBody(const std::vector<SearchHit>& hits) {
  json::array data;
  for (const SearchHit& hit : hits) {
    data.push_back({{"id", hit.chunk.document_id},
                    {"chunk", hit.chunk.id},
                    {"ordinal", hit.chunk.ordinal},
                    {"title", hit.chunk.title},
                    {"document_title", hit.document_title},
                    {"source", hit.source},
                    {"score", hit.score},
                    {"tokens", hit.chunk.token_ids.size()},
                    {"text", hit.chunk.text}});
  }
  return json::serialize(json::object{{"object", "list"}, {"data", std::move(data)}});
}

HttpReply HandleText(ServiceContext& service, const RouteMatch& match, const HttpRequest& request) {
  switch (match.route) {
    case Route::kSearch:
      return Search(service, request);
    case Route::kEmbeddings:
      return Embeddings(service, request);
    case Route::kTokenize:
      return Tokenize(service, request);
    default:
      return Detokenize(service, request);
  }
}

}  // namespace kvasir
