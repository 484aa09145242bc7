#include "service/http/generation_reply.h"

#include <boost/json.hpp>
#include <cmath>

namespace kvasir {
namespace {

namespace json = boost::json;

// Text of a token for a logprobs entry, invalid UTF-8 replaced, and its bytes.
json::object TokenEntry(const ReplyContext& context, const TokenLogprob& token) {
  const std::string bytes = context.tokenizer->TokenBytes(token.id, true);
  Utf8Assembler assembler;
  const std::string text = assembler.Push(bytes) + assembler.Finish();
  json::array raw;
  for (const char c : bytes) raw.push_back(static_cast<uint8_t>(c));
  return {{"token", text}, {"logprob", token.logprob}, {"bytes", std::move(raw)}};
}

json::value ChatLogprobs(const ReplyContext& context, const std::vector<ShownToken>& tokens) {
  if (!context.logprobs) return nullptr;
  json::array content;
  for (const ShownToken& shown : tokens) {
    json::object entry = TokenEntry(context, shown.token);
    json::array top;
    for (const TokenLogprob& candidate : shown.top) top.push_back(TokenEntry(context, candidate));
    entry["top_logprobs"] = std::move(top);
    content.push_back(std::move(entry));
  }
  return json::object{{"content", std::move(content)}, {"refusal", nullptr}};
}

json::value TextLogprobs(const ReplyContext& context, const std::vector<ShownToken>& tokens) {
  if (!context.logprobs) return nullptr;
  json::array names, values, tops;
  for (const ShownToken& shown : tokens) {
    names.push_back(TokenEntry(context, shown.token)["token"]);
    values.push_back(shown.token.logprob);
    json::object top;
    for (const TokenLogprob& candidate : shown.top) {
      const json::value name = TokenEntry(context, candidate)["token"];
      top[name.get_string()] = candidate.logprob;
    }
    tops.push_back(std::move(top));
  }
  return json::object{{"tokens", std::move(names)},
                      {"token_logprobs", std::move(values)},
                      {"top_logprobs", std::move(tops)}};
}

json::value Logprobs(const ReplyContext& context, const std::vector<ShownToken>& tokens) {
  return context.chat ? ChatLogprobs(context, tokens) : TextLogprobs(context, tokens);
}

json::object UsageObject(const ReplyContext& context, const ReplyUsage& usage) {
  const PromptAccount& account = context.cache.account;
  json::object prompt{{"cached_tokens", account.prefix + account.fused}};
  json::object completion{
      {"reasoning_tokens", 0},
      {"accepted_prediction_tokens", usage.drafts.accepted},
      {"rejected_prediction_tokens", usage.drafts.drafted - usage.drafts.accepted}};
  return {{"prompt_tokens", account.requested},
          {"completion_tokens", usage.completion_tokens},
          {"total_tokens", account.requested + usage.completion_tokens},
          {"prompt_tokens_details", std::move(prompt)},
          {"completion_tokens_details", std::move(completion)}};
}

json::array DocumentEntries(const ReplyContext& context) {
  json::array documents;
  for (const DocumentReport& document : context.cache.documents) {
    json::object entry{
        {"id", document.id}, {"status", document.status}, {"tokens", document.tokens}};
    if (context.explain) {
      entry["title"] = document.title;
      entry["source"] = document.source;
      entry["score"] = document.score;
    }
    documents.push_back(std::move(entry));
  }
  return documents;
}

json::value OptionalNumber(const std::optional<double>& number) {
  return number && std::isfinite(*number) ? json::value(*number) : json::value(nullptr);
}

json::object CertificateObject(const CertificateReport& certificate) {
  json::array movement;
  for (const double value : certificate.movement) movement.push_back(OptionalNumber(value));
  return {{"rung", certificate.rung},
          {"predicted_kl", OptionalNumber(certificate.predicted_kl)},
          {"movement", std::move(movement)},
          {"lambda", OptionalNumber(certificate.lambda)},
          {"calibration_samples", certificate.samples}};
}

json::object DraftObject(const DraftReport& draft, const ReplyUsage& usage) {
  const DraftUsage& run = usage.draft;
  const std::string& problem = draft.problem.empty() ? run.problem : draft.problem;
  return {{"policy", draft.policy},
          {"reused_tokens", draft.account.prefix + draft.account.fused},
          {"recomputed_tokens", draft.account.recomputed},
          {"computed_tokens", draft.account.computed},
          {"drafted_tokens", run.drafted},
          {"stood_tokens", run.stood},
          {"first_provisional_ms", run.first_ms < 0 ? json::value() : json::value(run.first_ms)},
          {"first_verified_ms", usage.ttft_ms},
          {"problem", problem.empty() ? json::value() : json::value(problem)}};
}

json::object CacheObject(const ReplyContext& context, const ReplyUsage& usage) {
  const CacheReport& cache = context.cache;
  json::object object = {{"mode", cache.mode},
                         {"policy", cache.policy},
                         {"chosen_by", cache.chosen_by},
                         {"hits", cache.hits},
                         {"misses", cache.misses},
                         {"requested_tokens", cache.account.requested},
                         {"prefix_tokens", cache.account.prefix},
                         {"fused_tokens", cache.account.fused},
                         {"reused_tokens", cache.account.prefix + cache.account.fused},
                         {"recomputed_tokens", cache.account.recomputed},
                         {"computed_tokens", cache.account.computed},
                         {"charged_fraction", cache.account.ChargedFraction()},
                         {"lookup_ms", cache.lookup_ms},
                         {"load_ms", cache.load_ms},
                         {"repair_ms", cache.repair_ms},
                         {"looked_tokens", cache.account.looked},
                         {"queued_ms", usage.timing.queued_ms},
                         {"prefill_ms", usage.timing.prefill_ms},
                         {"decode_ms", usage.timing.decode_ms},
                         {"ttft_ms", usage.ttft_ms},
                         {"documents", DocumentEntries(context)}};
  if (cache.certificate) object["certificate"] = CertificateObject(*cache.certificate);
  if (cache.draft) object["draft"] = DraftObject(*cache.draft, usage);
  return object;
}

json::object Envelope(const ReplyContext& context, bool chunk) {
  const char* kind = !context.chat ? "text_completion"
                     : chunk       ? "chat.completion.chunk"
                                   : "chat.completion";
  return {{"id", context.id},
          {"object", kind},
          {"created", context.created},
          {"model", context.model},
          {"system_fingerprint", nullptr}};
}

json::object Choice(int32_t index, json::value finish, json::value logprobs) {
  return {
      {"index", index}, {"finish_reason", std::move(finish)}, {"logprobs", std::move(logprobs)}};
}

json::object Empty(const ReplyContext& context, json::object choice) {
  if (context.chat) {
    choice["delta"] = json::object();
  } else {
    choice["text"] = "";
  }
  return choice;
}

std::string ChunkOf(const ReplyContext& context, json::object choice) {
  json::object body = Envelope(context, true);
  body["choices"] = json::array{std::move(choice)};
  return json::serialize(body);
}

// A chunk without text for clients that know the extension.
std::string ExtensionChunk(const ReplyContext& context, int32_t index, json::object extension) {
  json::object body = Envelope(context, true);
  body["choices"] = json::array{Empty(context, Choice(index, nullptr, nullptr))};
  body["chunk_cache"] = std::move(extension);
  return json::serialize(body);
}

}  // namespace

std::string FinishReasonName(FinishReason reason) {
  switch (reason) {
    case FinishReason::kLength:
      return "length";
    case FinishReason::kError:
      return "error";
    case FinishReason::kCancelled:
      return "cancelled";
    case FinishReason::kNone:
    case FinishReason::kStop:
      return "stop";
  }
  return "stop";
}

std::string WholeReply(const ReplyContext& context, std::vector<AnswerText*> answers,
                       const std::string& prefix, const ReplyUsage& usage) {
  json::array choices;
  for (size_t i = 0; i < answers.size(); ++i) {
    AnswerText& answer = *answers[i];
    json::object choice =
        Choice(static_cast<int32_t>(i), json::value(FinishReasonName(answer.finish())),
               Logprobs(context, answer.TakeLogprobs()));
    if (context.chat) {
      choice["message"] = {{"role", "assistant"}, {"content", answer.text()}, {"refusal", nullptr}};
    } else {
      choice["text"] = prefix + answer.text();
    }
    choices.push_back(std::move(choice));
  }
  json::object body = Envelope(context, false);
  body["choices"] = std::move(choices);
  body["usage"] = UsageObject(context, usage);
  body["chunk_cache"] = CacheObject(context, usage);
  return json::serialize(body);
}

std::string OpeningChunk(const ReplyContext& context, int32_t index) {
  json::object choice = Choice(index, nullptr, nullptr);
  choice["delta"] = {{"role", "assistant"}, {"content", ""}};
  return ChunkOf(context, std::move(choice));
}

std::string TextChunk(const ReplyContext& context, int32_t index, const std::string& text,
                      const std::vector<ShownToken>& logprobs) {
  json::object choice = Choice(index, nullptr, Logprobs(context, logprobs));
  if (context.chat) {
    choice["delta"] = {{"content", text}};
  } else {
    choice["text"] = text;
  }
  return ChunkOf(context, std::move(choice));
}

std::string ProvisionalChunk(const ReplyContext& context, int32_t index, const std::string& text) {
  return ExtensionChunk(context, index, {{"provisional", json::object{{"content", text}}}});
}

std::string CorrectionChunk(const ReplyContext& context, int32_t index, int64_t characters) {
  return ExtensionChunk(context, index, {{"correction", json::object{{"characters", characters}}}});
}

std::string FinishChunk(const ReplyContext& context, int32_t index, FinishReason reason,
                        const ReplyUsage* usage) {
  json::object choice =
      Empty(context, Choice(index, json::value(FinishReasonName(reason)), nullptr));
  json::object body = Envelope(context, true);
  body["choices"] = json::array{std::move(choice)};
  if (usage != nullptr) {
    body["usage"] = UsageObject(context, *usage);
    body["chunk_cache"] = CacheObject(context, *usage);
  }
  return json::serialize(body);
}

std::string UsageChunk(const ReplyContext& context, const ReplyUsage& usage) {
  json::object body = Envelope(context, true);
  body["choices"] = json::array();
  body["usage"] = UsageObject(context, usage);
  body["chunk_cache"] = CacheObject(context, usage);
  return json::serialize(body);
}

}  // namespace kvasir
