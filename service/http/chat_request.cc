#include "service/http/chat_request.h"

#include <charconv>

#include "service/http/bounds.h"
#include "service/http/document_fields.h"
#include "service/http/field_reader.h"

namespace kvasir {
namespace {

namespace json = boost::json;

std::string TextOf(const json::value& value) {
  return {value.get_string().data(), value.get_string().size()};
}

// A message's content: a string, or a list of {"type":"text","text":...} parts.
std::string ReadContent(const json::value& value, std::string* out) {
  if (value.is_string()) {
    *out = TextOf(value);
    return "";
  }
  if (!value.is_array()) return "must be a string or a list of parts";
  for (const json::value& part : value.get_array()) {
    if (!part.is_object()) return "holds a part that is no object";
    const json::value* type = part.get_object().if_contains("type");
    const json::value* text = part.get_object().if_contains("text");
    if (type == nullptr || !type->is_string() || type->get_string() != "text") {
      return "holds a part that is not of type 'text': only text is supported";
    }
    if (text == nullptr || !text->is_string()) return "holds a part without 'text'";
    *out += TextOf(*text);
  }
  return "";
}

// "" or what is wrong; the field at fault, below the message, goes to *field.
std::string ReadMessage(const json::value& value, ChatMessage* message, std::string* field) {
  if (!value.is_object()) return "must be an object";
  const json::object& object = value.get_object();
  const json::value* role = object.if_contains("role");
  *field = ".role";
  if (role == nullptr || !role->is_string()) return "must be a string";
  message->role = TextOf(*role);
  if (message->role == "developer") message->role = "system";
  if (message->role != "system" && message->role != "user" && message->role != "assistant") {
    return "must be one of system, developer, user, assistant";
  }
  *field = ".content";
  const json::value* content = object.if_contains("content");
  if (content == nullptr) return "is missing";
  return ReadContent(*content, &message->content);
}

void ReadMessages(FieldReader& fields, RagRequest* rag) {
  const json::value* value = fields.Value("messages");
  if (value == nullptr) return fields.Fail("messages", "is required", "missing_required_parameter");
  if (!value->is_array()) return fields.Fail("messages", "must be an array", "invalid_type");
  const json::array& array = value->get_array();
  if (array.empty()) return fields.Fail("messages", "must hold at least one message");
  if (array.size() > kMaxMessages) return fields.Fail("messages", "holds too many messages");
  for (size_t i = 0; i < array.size(); ++i) {
    ChatMessage message;
    std::string field;
    const std::string problem = ReadMessage(array[i], &message, &field);
    if (!problem.empty()) {
      return fields.Fail("messages[" + std::to_string(i) + "]" + field, problem);
    }
    rag->messages.push_back(std::move(message));
  }
}

// A raw prompt: a string, a list of one string, or a list of token ids.
void ReadPrompt(FieldReader& fields, RagRequest* rag) {
  rag->raw = true;
  const json::value* value = fields.Value("prompt");
  if (value == nullptr) return fields.Fail("prompt", "is required", "missing_required_parameter");
  if (value->is_array() && value->get_array().size() == 1) {
    const json::value& only = value->get_array()[0];
    if (only.is_string() || only.is_array()) value = &only;
  }
  if (value->is_string()) {
    rag->raw_text = TextOf(*value);
    return;
  }
  if (!value->is_array()) {
    return fields.Fail("prompt", "must be a string or a list of token ids", "invalid_type");
  }
  for (const json::value& id : value->get_array()) {
    if (!id.is_int64() || id.get_int64() < 0 || id.get_int64() > INT32_MAX) {
      return fields.Fail("prompt", "must be one string or one list of token ids", "invalid_type");
    }
    rag->raw_prompt.push_back(static_cast<int32_t>(id.get_int64()));
  }
  if (rag->raw_prompt.empty()) fields.Fail("prompt", "must not be empty");
}

void ReadStop(FieldReader& fields, std::vector<std::string>* stop) {
  const json::value* value = fields.Value("stop");
  if (value == nullptr) return;
  json::array list;
  if (value->is_string()) list.push_back(*value);
  if (value->is_array()) list = value->get_array();
  if (!value->is_string() && !value->is_array()) {
    return fields.Fail("stop", "must be a string or a list of strings", "invalid_type");
  }
  if (list.size() > kMaxStopStrings) return fields.Fail("stop", "holds more than 16 strings");
  for (const json::value& item : list) {
    if (!item.is_string() || item.get_string().empty() ||
        item.get_string().size() > kMaxStopBytes) {
      return fields.Fail("stop", "must hold strings of 1 to 256 bytes");
    }
    stop->push_back(TextOf(item));
  }
}

void ReadLogitBias(FieldReader& fields, SamplingParams* sampling) {
  const json::value* value = fields.Value("logit_bias");
  if (value == nullptr) return;
  if (!value->is_object()) return fields.Fail("logit_bias", "must be an object", "invalid_type");
  if (value->get_object().size() > kMaxLogitBias) {
    return fields.Fail("logit_bias", "holds more than 1024 tokens");
  }
  for (const auto& member : value->get_object()) {
    const std::string_view key(member.key().data(), member.key().size());
    int32_t id = -1;
    const auto [end, error] = std::from_chars(key.data(), key.data() + key.size(), id);
    if (error != std::errc() || end != key.data() + key.size() || id < 0) {
      return fields.Fail("logit_bias", "has a key that is no token id");
    }
    const bool number = member.value().is_number();
    const double bias = number ? member.value().to_number<double>() : 1e9;
    if (!(bias >= -100 && bias <= 100)) {
      return fields.Fail("logit_bias", "must hold numbers between -100 and 100");
    }
    sampling->logit_bias.emplace_back(id, static_cast<float>(bias));
  }
}

void ReadFloat(FieldReader& fields, std::string_view field, float* out) {
  double number = 0;
  if (fields.Number(field, &number)) *out = static_cast<float>(number);
}

void ReadSampling(FieldReader& fields, GenerationRequest* request) {
  SamplingParams& sampling = request->sampling;
  ReadFloat(fields, "temperature", &sampling.temperature);
  ReadFloat(fields, "top_p", &sampling.top_p);
  if (sampling.top_p <= 0) fields.Fail("top_p", "must be more than 0");
  ReadFloat(fields, "min_p", &sampling.min_p);
  if (sampling.min_p >= 1) fields.Fail("min_p", "must be less than 1");
  ReadFloat(fields, "presence_penalty", &sampling.presence_penalty);
  ReadFloat(fields, "frequency_penalty", &sampling.frequency_penalty);
  ReadFloat(fields, "repetition_penalty", &sampling.repetition_penalty);
  ReadLogitBias(fields, &sampling);
  int64_t seed = 0;
  if (fields.Integer("seed", &seed)) {
    sampling.seed = static_cast<uint64_t>(seed);
    request->seed_given = true;
  }
}

void ReadStreaming(FieldReader& fields, GenerationRequest* request) {
  fields.Flag("stream", &request->stream);
  const json::value* options = fields.Value("stream_options");
  if (options == nullptr) return;
  if (!options->is_object()) {
    return fields.Fail("stream_options", "must be an object", "invalid_type");
  }
  if (!request->stream) return fields.Fail("stream_options", "is only allowed with 'stream'");
  FieldReader inner(options->get_object(), "stream_options.");
  inner.Flag("include_usage", &request->include_usage);
  inner.Accept({"include_obfuscation"});
  if (const auto error = inner.Finish()) {
    fields.Fail(error->param, error->message.substr(error->message.find("' ") + 2), error->code);
  }
}

// What is provisional can be taken back in a stream only.
void CheckProvisional(FieldReader& fields, const GenerationRequest& request) {
  if (request.rag.cache.provisional && !request.stream) {
    fields.Fail("chunk_cache.provisional", "is only allowed with 'stream'");
  }
}

void ReadCommon(FieldReader& fields, GenerationRequest* request) {
  fields.Text("model", &request->model);
  int64_t number = 0;
  if (fields.Integer("n", &number)) request->n = static_cast<int32_t>(number);
  if (fields.Integer("max_tokens", &number)) request->max_tokens = static_cast<int32_t>(number);
  ReadStop(fields, &request->stop);
  ReadSampling(fields, request);
  ReadStreaming(fields, request);
  fields.Accept({"user", "metadata", "store", "service_tier", "parallel_tool_calls",
                 "safety_identifier", "prompt_cache_key", "prompt_cache_retention"});
}

void ReadChatLogprobs(FieldReader& fields, GenerationRequest* request) {
  int64_t top = 0;
  fields.Flag("logprobs", &request->logprobs);
  const bool has_top = fields.Integer("top_logprobs", &top);
  if (has_top && !request->logprobs) {
    fields.Fail("top_logprobs", "needs 'logprobs' to be true");
  }
  if (request->logprobs) request->sampling.logprobs = static_cast<int32_t>(top);
}

// A field whose default a client may send although the feature itself is not supported.
void RefuseUnless(FieldReader& fields, std::string_view field,
                  bool (*harmless)(const json::value&)) {
  const json::value* value = fields.Value(field);
  if (value != nullptr && !harmless(*value)) {
    fields.Fail(field, "is not supported by this server with this value", "unsupported_parameter");
  }
}

bool IsTextFormat(const json::value& value) {
  return value.is_object() && value.get_object().if_contains("type") != nullptr &&
         value.get_object().at("type") == "text";
}
bool IsEmptyArray(const json::value& value) {
  return value.is_array() && value.get_array().empty();
}
bool IsNone(const json::value& value) { return value == "none"; }
bool IsTextOnly(const json::value& value) {
  return value.is_array() && value.get_array().size() == 1 && value.get_array()[0] == "text";
}

}  // namespace

ApiResult<GenerationRequest> ParseChatRequest(std::string_view body, const RequestLimits& limits) {
  auto object = ParseObject(body);
  if (!object.ok()) return object.error();
  GenerationRequest request;
  FieldReader fields(*object);
  ReadMessages(fields, &request.rag);
  ReadCommon(fields, &request);
  int64_t number = 0;
  if (fields.Integer("max_completion_tokens", &number)) {
    request.max_tokens = static_cast<int32_t>(number);
  }
  ReadChatLogprobs(fields, &request);
  ReadDocumentFields(fields, limits.documents, &request.rag);
  CheckProvisional(fields, request);
  RefuseUnless(fields, "response_format", IsTextFormat);
  RefuseUnless(fields, "tools", IsEmptyArray);
  RefuseUnless(fields, "tool_choice", IsNone);
  RefuseUnless(fields, "functions", IsEmptyArray);
  RefuseUnless(fields, "function_call", IsNone);
  RefuseUnless(fields, "modalities", IsTextOnly);
  fields.Refuse({"audio", "prediction", "web_search_options", "reasoning_effort", "verbosity"});
  if (auto error = fields.Finish()) return *error;
  return request;
}

ApiResult<GenerationRequest> ParseCompletionRequest(std::string_view body,
                                                    const RequestLimits& limits) {
  auto object = ParseObject(body);
  if (!object.ok()) return object.error();
  GenerationRequest request;
  request.chat = false;
  FieldReader fields(*object);
  ReadPrompt(fields, &request.rag);
  ReadCommon(fields, &request);
  int64_t logprobs = 0;
  if (fields.Integer("logprobs", &logprobs)) {
    request.logprobs = true;
    request.sampling.logprobs = static_cast<int32_t>(logprobs);
  }
  fields.Flag("echo", &request.echo);
  int64_t best_of = 0;
  if (fields.Integer("best_of", &best_of) && best_of != request.n) {
    fields.Fail("best_of", "is only supported equal to 'n'", "unsupported_parameter");
  }
  ReadDocumentFields(fields, limits.documents, &request.rag);
  CheckProvisional(fields, request);
  if (!request.rag.documents.empty() || !request.rag.collection.empty()) {
    fields.Fail("documents", "go with /v1/chat/completions, not with a raw prompt",
                "unsupported_parameter");
  }
  fields.Refuse({"suffix"});
  if (auto error = fields.Finish()) return *error;
  return request;
}

}  // namespace kvasir
