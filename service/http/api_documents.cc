// Documents: store, list, show, delete.
#include <boost/json.hpp>
#include <charconv>

#include "service/http/api.h"
#include "service/http/bounds.h"
#include "service/http/document_fields.h"

namespace kvasir {
namespace {

namespace json = boost::json;

HttpReply Json(const json::value& body) {
  HttpReply reply;
  reply.body = json::serialize(body);
  return reply;
}

void ReadMetadata(FieldReader& fields, Metadata* metadata) {
  const json::value* value = fields.Value("metadata");
  if (value == nullptr) return;
  if (!value->is_object()) return fields.Fail("metadata", "must be an object", "invalid_type");
  for (const auto& member : value->get_object()) {
    if (!member.value().is_string()) {
      return fields.Fail("metadata", "must hold strings only", "invalid_type");
    }
    (*metadata)[std::string(member.key())] = std::string(member.value().get_string());
  }
}

void ReadFormat(FieldReader& fields, DocumentFormat* format) {
  std::string name;
  if (!fields.Text("format", &name)) return;
  if (name == "text")
    *format = DocumentFormat::kText;
  else if (name == "markdown")
    *format = DocumentFormat::kMarkdown;
  else if (name == "html")
    *format = DocumentFormat::kHtml;
  else if (name != "auto")
    fields.Fail("format", "must be one of auto, text, markdown, html");
}

// What a collection must have, or be made with.
void ReadChoice(FieldReader& fields, CollectionChoice* choice, bool* choose_primer) {
  std::string text;
  if (fields.Text("ingestion", &text)) {
    const Result<IngestionCondition> condition = ParseIngestion(text);
    if (condition.ok()) choice->condition = *condition;
    if (!condition.ok()) {
      fields.Fail("ingestion", "must be one of bare, anchor, fixed, own, neighbour");
    }
  }
  if (fields.Text("primer", &text)) choice->primer = text;
  fields.Flag("choose_primer", choose_primer);
  if (*choose_primer && choice->primer) fields.Fail("choose_primer", "goes without primer");
}

// One document object: {id, title, text, source, format, metadata, collection, ingestion, primer,
// choose_primer}.
ApiResult<IngestInput> ReadInput(const json::object& object, std::string* collection,
                                 CollectionChoice* choice, bool* choose_primer) {
  FieldReader fields(object);
  IngestInput input;
  input.format = DocumentFormat::kText;
  fields.Text("id", &input.id);
  fields.Text("title", &input.title);
  fields.Text("source", &input.source);
  fields.Text("collection", collection);
  if (!fields.Text("text", &input.bytes)) {
    fields.Fail("text", "is required", "missing_required_parameter");
  }
  fields.Text("cache_salt", &input.cache_salt);
  ReadChoice(fields, choice, choose_primer);
  ReadFormat(fields, &input.format);
  ReadMetadata(fields, &input.metadata);
  if (auto error = fields.Finish()) return *error;
  return input;
}

json::object OutcomeObject(const IngestOutcome& outcome, const std::string& collection) {
  return {{"id", outcome.id},
          {"object", "document"},
          {"collection", collection},
          {"version", outcome.version},
          {"unchanged", outcome.unchanged},
          {"chunks", outcome.chunks},
          {"tokens", outcome.tokens},
          {"chunks_computed", outcome.chunks_computed},
          {"tokens_computed", outcome.tokens_computed}};
}

ApiResult<json::object> StoreOne(ServiceContext& service, const json::object& object,
                                 std::string collection) {
  CollectionChoice choice;
  bool choose_primer = false;
  auto input = ReadInput(object, &collection, &choice, &choose_primer);
  if (!input.ok()) return input.error();
  if (choose_primer && !service.ingest.HasCollection(collection)) {
    Result<std::string> primer = service.ingest.ChoosePrimer({*input});
    if (!primer.ok()) return FromStatus(primer.status());
    choice.primer = std::move(*primer);
  }
  if (choice.condition || choice.primer) {
    const Status opened = service.ingest.OpenCollection(collection, choice).status();
    if (!opened.ok()) return FromStatus(opened);
  }
  const auto outcome = service.ingest.IngestOne(collection, *input);
  if (!outcome.ok()) return FromStatus(outcome.status());
  return OutcomeObject(*outcome, collection);
}

json::object ErrorObject(const ApiError& error) {
  return json::parse(ErrorBody(error)).get_object();
}

// One document a line, one result a line, in the same order; a bad line does not stop the rest.
HttpReply StoreLines(ServiceContext& service, const std::string& body,
                     const std::string& collection) {
  HttpReply reply;
  reply.content_type = "application/x-ndjson";
  for (size_t begin = 0; begin < body.size();) {
    const size_t end = std::min(body.find('\n', begin), body.size());
    std::string_view line(body.data() + begin, end - begin);
    begin = end + 1;
    if (line.find_first_not_of(" \t\r") == std::string_view::npos) continue;
    auto object = ParseObject(line);
    auto stored = object.ok() ? StoreOne(service, *object, collection)
                              : ApiResult<json::object>(object.error());
    reply.body += json::serialize(stored.ok() ? *stored : ErrorObject(stored.error())) + "\n";
  }
  return reply;
}

HttpReply StoreList(ServiceContext& service, const json::object& body, std::string collection) {
  FieldReader fields(body);
  fields.Text("collection", &collection);
  const json::value* documents = fields.Value("documents");
  if (documents == nullptr || !documents->is_array()) {
    fields.Fail("documents", "must be an array", "invalid_type");
  }
  if (auto error = fields.Finish()) return ErrorReply(*error);
  json::array data;
  for (const json::value& document : documents->get_array()) {
    if (!document.is_object()) {
      data.push_back(ErrorObject(BadField("documents", "must hold objects", "invalid_type")));
      continue;
    }
    auto stored = StoreOne(service, document.get_object(), collection);
    data.push_back(stored.ok() ? *stored : ErrorObject(stored.error()));
  }
  return Json(json::object{{"object", "list"}, {"data", std::move(data)}});
}

std::string CollectionOf(const HttpRequest& request) {
  const auto named = request.query.find("collection");
  return named == request.query.end() ? kDefaultCollection : named->second;
}

HttpReply Store(ServiceContext& service, const HttpRequest& request) {
  const std::string collection = CollectionOf(request);
  if (request.content_type.find("ndjson") != std::string::npos ||
      request.content_type.find("jsonl") != std::string::npos) {
    return StoreLines(service, request.body, collection);
  }
  auto object = ParseObject(request.body);
  if (!object.ok()) return ErrorReply(object.error());
  if (object->contains("documents")) return StoreList(service, *object, collection);
  auto stored = StoreOne(service, *object, collection);
  return stored.ok() ? Json(*stored) : ErrorReply(stored.error());
}

json::object DocumentObject(const Document& document) {
  json::object metadata;
  for (const auto& [name, value] : document.metadata) metadata[name] = value;
  return {{"id", document.id},
          {"object", "document"},
          {"collection", document.collection},
          {"title", document.title},
          {"source", document.source},
          {"version", document.version},
          {"chunks", document.chunks.size()},
          {"tokens", document.tokens},
          {"created", document.created_ms / 1000},
          {"updated", document.updated_ms / 1000},
          {"metadata", std::move(metadata)}};
}

HttpReply List(ServiceContext& service, const HttpRequest& request) {
  int32_t limit = 100;
  if (const auto text = request.query.find("limit"); text != request.query.end()) {
    const std::string& digits = text->second;
    const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), limit);
    if (error != std::errc() || end != digits.data() + digits.size() || limit < 1 || limit > 1000) {
      return ErrorReply(BadField("limit", "must be an integer between 1 and 1000"));
    }
  }
  const auto after = request.query.find("after");
  const auto page = service.runtime.documents().List(
      CollectionOf(request), after == request.query.end() ? "" : after->second, limit);
  if (!page.ok()) return ErrorReply(FromStatus(page.status()));
  json::array data;
  for (const Document& document : page->documents) data.push_back(DocumentObject(document));
  return Json(json::object{{"object", "list"},
                           {"data", std::move(data)},
                           {"has_more", !page->next_after.empty()},
                           {"next_after", page->next_after}});
}

HttpReply Show(ServiceContext& service, const std::string& id) {
  const auto document = service.runtime.documents().Get(id);
  if (!document.ok()) return ErrorReply(FromStatus(document.status()));
  const auto chunks = service.runtime.documents().GetChunks(id);
  if (!chunks.ok()) return ErrorReply(FromStatus(chunks.status()));
  json::object body = DocumentObject(*document);
  json::array list;
  for (const Chunk& chunk : *chunks) {
    list.push_back({{"id", chunk.id},
                    {"title", chunk.title},
                    {"text", chunk.text},
                    {"tokens", chunk.token_ids.size()}});
  }
  body["chunk_list"] = std::move(list);
  return Json(body);
}

HttpReply Remove(ServiceContext& service, const std::string& id) {
  const Status status = service.ingest.Delete(id);
  if (!status.ok()) return ErrorReply(FromStatus(status));
  return Json(json::object{{"id", id}, {"object", "document.deleted"}, {"deleted", true}});
}

}  // namespace

HttpReply HandleDocuments(ServiceContext& service, const RouteMatch& match,
                          const HttpRequest& request) {
  switch (match.route) {
    case Route::kDocumentsPost:
      return Store(service, request);
    case Route::kDocumentsList:
      return List(service, request);
    case Route::kDocumentGet:
      return Show(service, match.parameter);
    default:
      return Remove(service, match.parameter);
  }
}

}  // namespace kvasir
