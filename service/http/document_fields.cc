#include "service/http/document_fields.h"

#include "service/http/bounds.h"

namespace kvasir {
namespace {

namespace json = boost::json;

std::string TextOf(const json::value& value) {
  return {value.get_string().data(), value.get_string().size()};
}

// Copies a string member if there is one; false if it has another type.
bool CopyMember(const json::object& object, std::string_view name, std::string* out) {
  const json::value* value = object.if_contains({name.data(), name.size()});
  if (value == nullptr || value->is_null()) return true;
  if (!value->is_string()) return false;
  *out = TextOf(*value);
  return true;
}

// {id, data: {...}} (Cohere's form): "text", "snippet" or "content" is the text, "title" the
// title; without them all string members are joined as "name: value" lines.
std::string ReadData(const json::object& data, DocumentInput* document) {
  if (!CopyMember(data, "title", &document->title)) return "has a data.title that is no string";
  for (const std::string_view name : {"text", "snippet", "content"}) {
    const json::value* value = data.if_contains({name.data(), name.size()});
    if (value == nullptr) continue;
    if (!value->is_string()) return "has a data." + std::string(name) + " that is no string";
    document->text = TextOf(*value);
    document->has_text = true;
    return "";
  }
  for (const auto& member : data) {
    if (!member.value().is_string() || member.key() == "title") continue;
    document->text += std::string(member.key()) + ": " + TextOf(member.value()) + "\n";
    document->has_text = true;
  }
  return document->has_text ? "" : "has a 'data' object without text";
}

std::string CheckDocument(const DocumentInput& document) {
  if (document.has_text ? document.text.empty() : document.id.empty()) {
    return "needs an 'id' or a 'text' that is not empty";
  }
  if (document.id.size() > 512) return "has an 'id' of more than 512 bytes";
  return "";
}

void ReadCacheOptions(FieldReader& fields, CacheOptions* cache) {
  const json::value* value = fields.Value("chunk_cache");
  if (value == nullptr) return;
  if (!value->is_object()) return fields.Fail("chunk_cache", "must be an object", "invalid_type");
  FieldReader inner(value->get_object(), "chunk_cache.");
  std::string mode, on_missing;
  if (inner.Text("mode", &mode)) {
    const Result<CacheMode> parsed = ParseCacheMode(mode);
    if (parsed.ok()) cache->mode = *parsed;
    if (!parsed.ok())
      inner.Fail("mode", "must be one of auto, exact, prefix, fused, optimistic, off");
  }
  if (inner.Text("policy", &cache->policy)) {
    const Result<FusionPolicy> parsed = ParsePolicy(cache->policy);
    if (!parsed.ok()) inner.Fail("policy", "is wrong: " + parsed.status().message());
  }
  if (inner.Text("on_missing", &on_missing)) {
    if (on_missing != "compute" && on_missing != "error") {
      inner.Fail("on_missing", "must be 'compute' or 'error'");
    }
    cache->compute_missing = on_missing == "compute";
  }
  inner.Flag("store", &cache->store);
  inner.Flag("explain", &cache->explain);
  inner.Flag("provisional", &cache->provisional);
  if (cache->provisional && cache->mode != CacheMode::kOptimistic) {
    inner.Fail("provisional", "needs 'mode' to be 'optimistic'");
  }
  if (const auto error = inner.Finish()) {
    fields.Fail(error->param, error->message.substr(error->message.find("' ") + 2), error->code);
  }
}

void ReadSalt(FieldReader& fields, std::string* salt) {
  if (!fields.Text("cache_salt", salt)) return;
  if (salt->empty() || salt->size() > kMaxSaltBytes) {
    fields.Fail("cache_salt", "must be a string of 1 to 256 bytes");
  }
}

}  // namespace

void ReadFilters(FieldReader& fields, SearchFilter* filter) {
  const json::value* value = fields.Value("filters");
  if (value == nullptr) return;
  if (!value->is_object()) {
    return fields.Fail("filters", "must be an object of strings", "invalid_type");
  }
  if (value->get_object().size() > kMaxFilters) {
    return fields.Fail("filters", "holds more than 64 conditions");
  }
  for (const auto& member : value->get_object()) {
    const std::string name(member.key().data(), member.key().size());
    if (!member.value().is_string()) {
      return fields.Fail("filters",
                         "must hold strings only, to be equal to the document's metadata",
                         "invalid_type");
    }
    if (name == "document_id") {
      filter->document_ids.push_back(TextOf(member.value()));
    } else {
      filter->metadata[name] = TextOf(member.value());
    }
  }
}

std::string ReadDocument(const json::value& value, DocumentInput* document) {
  if (value.is_string()) {
    document->text = TextOf(value);
    document->has_text = true;
    return CheckDocument(*document);
  }
  if (!value.is_object()) return "must be a string or an object";
  const json::object& object = value.get_object();
  if (!CopyMember(object, "id", &document->id)) return "has an 'id' that is no string";
  if (!CopyMember(object, "title", &document->title)) return "has a 'title' that is no string";
  if (!CopyMember(object, "text", &document->text)) return "has a 'text' that is no string";
  const json::value* text = object.if_contains("text");
  document->has_text = text != nullptr && text->is_string();
  if (const json::value* data = object.if_contains("data")) {
    if (!data->is_object()) return "has a 'data' that is no object";
    if (const std::string problem = ReadData(data->get_object(), document); !problem.empty()) {
      return problem;
    }
  }
  return CheckDocument(*document);
}

void ReadDocumentFields(FieldReader& fields, size_t max_documents, RagRequest* rag) {
  if (const json::value* value = fields.Value("documents")) {
    if (!value->is_array()) return fields.Fail("documents", "must be an array", "invalid_type");
    const json::array& array = value->get_array();
    if (array.size() > max_documents) {
      return fields.Fail("documents",
                         "holds more than " + std::to_string(max_documents) + " documents");
    }
    for (size_t i = 0; i < array.size(); ++i) {
      DocumentInput document;
      const std::string problem = ReadDocument(array[i], &document);
      if (!problem.empty()) {
        return fields.Fail("documents[" + std::to_string(i) + "]", problem);
      }
      rag->documents.push_back(std::move(document));
    }
  }
  fields.Text("collection", &rag->collection);
  int64_t top_k = 0;
  if (fields.Integer("top_k", &top_k)) rag->top_k = static_cast<int32_t>(top_k);
  if (!rag->collection.empty() && rag->top_k == 0) {
    fields.Fail("top_k", "must be at least 1 when 'collection' is given");
  }
  ReadFilters(fields, &rag->filter);
  if (!rag->filter.empty() && (rag->collection.empty() || !rag->documents.empty())) {
    fields.Fail("filters", "goes with 'collection', and not with 'documents'");
  }
  ReadSalt(fields, &rag->cache_salt);
  ReadCacheOptions(fields, &rag->cache);
}

}  // namespace kvasir
