#include "service/cli/asker.h"

#include <boost/json.hpp>
#include <cmath>

#include "service/blocking_answer.h"

namespace kvasir {
namespace {

namespace json = boost::json;

bool TakesPolicy(const std::string& mode) {
  return mode == "fused" || mode == "auto" || mode == "optimistic";
}

class EmbeddedAsker : public Asker {
 public:
  EmbeddedAsker(std::unique_ptr<Runtime> runtime, AskArguments arguments)
      : runtime_(std::move(runtime)), rag_(*runtime_), arguments_(std::move(arguments)) {}

  Result<AskAnswer> Ask(const std::string& question, const std::string& mode) override {
    RagRequest request;
    if (!arguments_.system.empty()) request.messages.push_back({"system", arguments_.system});
    request.messages.push_back({"user", question});
    request.collection = arguments_.collection;
    request.top_k = arguments_.top_k;
    KVASIR_ASSIGN_OR_RETURN(request.cache.mode, ParseCacheMode(mode));
    if (TakesPolicy(mode)) request.cache.policy = arguments_.policy;
    KVASIR_ASSIGN_OR_RETURN(const PreparedPrompt prompt, rag_.Prepare(request));
    KVASIR_ASSIGN_OR_RETURN(
        const BlockingAnswer answer,
        AnswerBlocking(*runtime_, rag_, prompt, SamplingParams(), arguments_.max_tokens));
    CacheReport report = prompt.report;
    MoveLost(answer.lost, &report.account);
    return AskAnswer{question,
                     answer.text,
                     report.mode,
                     report.policy,
                     report.account,
                     {answer.ttft_ms, report.lookup_ms, report.load_ms,
                      answer.timing.queued_ms + answer.timing.prefill_ms, answer.timing.decode_ms},
                     answer.tokens,
                     report.documents,
                     report.certificate};
  }

 private:
  std::unique_ptr<Runtime> runtime_;
  RagPipeline rag_;
  AskArguments arguments_;
};

class ServerAsker : public Asker {
 public:
  ServerAsker(ServerAddress server, AskArguments arguments)
      : server_(std::move(server)), arguments_(std::move(arguments)) {}

  Result<AskAnswer> Ask(const std::string& question, const std::string& mode) override {
    json::array messages;
    if (!arguments_.system.empty()) {
      messages.push_back({{"role", "system"}, {"content", arguments_.system}});
    }
    messages.push_back({{"role", "user"}, {"content", question}});
    json::object cache{{"mode", mode}, {"explain", true}};
    if (!arguments_.policy.empty() && TakesPolicy(mode)) {
      cache["policy"] = arguments_.policy;
    }
    const json::object body{{"model", "default"},
                            {"messages", std::move(messages)},
                            {"collection", arguments_.collection},
                            {"top_k", arguments_.top_k},
                            {"max_tokens", arguments_.max_tokens},
                            {"chunk_cache", std::move(cache)}};
    KVASIR_ASSIGN_OR_RETURN(
        const std::string reply,
        CallServer(server_, "POST", "/v1/chat/completions", json::serialize(body)));
    try {
      return Read(question, json::parse(reply));
    } catch (const std::exception& error) {
      return Internal(std::string("the server's reply is not what this program expects: ") +
                      error.what());
    }
  }

 private:
  static std::string Text(const json::value& value) { return std::string(value.as_string()); }

  static AskAnswer Read(const std::string& question, const json::value& reply) {
    const json::object& cache = reply.at("chunk_cache").as_object();
    AskAnswer answer;
    answer.question = question;
    answer.answer = Text(reply.at("choices").at(0).at("message").at("content"));
    answer.mode = Text(cache.at("mode"));
    answer.policy = Text(cache.at("policy"));
    answer.account = {cache.at("requested_tokens").to_number<int64_t>(),
                      cache.at("prefix_tokens").to_number<int64_t>(),
                      cache.at("fused_tokens").to_number<int64_t>(),
                      cache.at("recomputed_tokens").to_number<int64_t>(),
                      cache.at("computed_tokens").to_number<int64_t>()};
    auto number = [&cache](const char* name) { return cache.at(name).to_number<double>(); };
    answer.ttft = {number("ttft_ms"), number("lookup_ms"), number("load_ms"),
                   number("queued_ms") + number("prefill_ms"), number("decode_ms")};
    answer.completion_tokens = reply.at("usage").at("completion_tokens").to_number<int64_t>();
    for (const json::value& entry : cache.at("documents").as_array()) {
      answer.documents.push_back({Text(entry.at("id")), Text(entry.at("title")),
                                  Text(entry.at("source")), Text(entry.at("status")),
                                  entry.at("tokens").to_number<int32_t>(),
                                  entry.at("score").to_number<double>()});
    }
    if (cache.contains("certificate")) answer.certificate = ReadCertificate(cache);
    return answer;
  }

  static CertificateReport ReadCertificate(const json::object& cache) {
    const json::object& object = cache.at("certificate").as_object();
    const auto number = [](const json::value& value) {
      return value.is_null() ? std::nullopt : std::optional(value.to_number<double>());
    };
    CertificateReport certificate;
    certificate.rung = Text(object.at("rung"));
    certificate.predicted_kl = number(object.at("predicted_kl"));
    certificate.lambda = number(object.at("lambda"));
    certificate.samples = object.at("calibration_samples").to_number<int64_t>();
    for (const json::value& value : object.at("movement").as_array()) {
      certificate.movement.push_back(number(value).value_or(std::nan("")));
    }
    return certificate;
  }

  ServerAddress server_;
  AskArguments arguments_;
};

}  // namespace

Result<std::unique_ptr<Asker>> MakeAsker(const CliContext& context, const AskArguments& arguments) {
  AskArguments complete = arguments;
  if (complete.collection.empty()) complete.collection = kDefaultCollection;
  std::unique_ptr<Asker> asker;
  if (context.server) {
    asker = std::make_unique<ServerAsker>(*context.server, complete);
    return asker;
  }
  KVASIR_ASSIGN_OR_RETURN(std::unique_ptr<Runtime> runtime, Runtime::Create(context.config()));
  const Result<Collection> collection = runtime->documents().GetCollection(complete.collection);
  if (!collection.ok() && collection.status().code() == StatusCode::kNotFound) {
    return NotFound("there is no collection '" + complete.collection + "' in " +
                    runtime->database().path() + ": run 'kvasir ingest FILES...' first");
  }
  KVASIR_RETURN_IF_ERROR(runtime->retrieval().status());
  asker = std::make_unique<EmbeddedAsker>(std::move(runtime), complete);
  return asker;
}

}  // namespace kvasir
