// kvasir ask: one question, or a file of questions in several modes as one table.
#include <boost/json.hpp>
#include <cmath>
#include <cstdio>
#include <fstream>

#include "service/cli/ask_table.h"
#include "service/cli/asker.h"
#include "service/cli/print.h"

namespace kvasir {
namespace {

namespace json = boost::json;

json::value NumberOrNull(const std::optional<double>& number) {
  return number && std::isfinite(*number) ? json::value(*number) : json::value(nullptr);
}

json::object CertificateJson(const CertificateReport& certificate) {
  return {{"rung", certificate.rung},
          {"predicted_kl", NumberOrNull(certificate.predicted_kl)},
          {"lambda", NumberOrNull(certificate.lambda)},
          {"calibration_samples", certificate.samples}};
}

void PrintCertificate(const CertificateReport& certificate) {
  if (!certificate.lambda && certificate.rung == "exact") {
    std::printf("certified by going to exact: %ld calibration samples allow no earlier stop\n",
                static_cast<long>(certificate.samples));
    return;
  }
  std::printf("certified at %s after %zu rungs, predicted KL %.4g (%ld calibration samples)\n",
              certificate.rung.c_str(), certificate.movement.size(),
              certificate.predicted_kl.value_or(std::nan("")),
              static_cast<long>(certificate.samples));
}

json::object AnswerJson(const AskAnswer& answer) {
  json::array sources, documents;
  for (const DocumentReport& document : answer.documents) {
    sources.push_back({{"id", document.id},
                       {"title", document.title},
                       {"source", document.source},
                       {"score", document.score}});
    documents.push_back(
        {{"id", document.id}, {"status", document.status}, {"tokens", document.tokens}});
  }
  json::object object = {{"question", answer.question},
                         {"answer", answer.answer},
                         {"sources", std::move(sources)},
                         {"mode", answer.mode},
                         {"policy", answer.policy},
                         {"prompt_tokens", answer.account.requested},
                         {"prefix_tokens", answer.account.prefix},
                         {"fused_tokens", answer.account.fused},
                         {"recomputed_tokens", answer.account.recomputed},
                         {"computed_tokens", answer.account.computed},
                         {"completion_tokens", answer.completion_tokens},
                         {"ttft_ms",
                          {{"total", answer.ttft.total_ms},
                           {"lookup", answer.ttft.lookup_ms},
                           {"load", answer.ttft.load_ms},
                           {"prefill", answer.ttft.prefill_ms}}},
                         {"decode_ms", answer.ttft.decode_ms},
                         {"documents", std::move(documents)}};
  if (answer.certificate) object["certificate"] = CertificateJson(*answer.certificate);
  return object;
}

void PrintAnswer(const AskAnswer& answer) {
  std::printf("%s\n\n", answer.answer.c_str());
  for (const DocumentReport& document : answer.documents) {
    std::printf("  %.3f  %-12s %4d tokens  %s%s%s\n", document.score, document.status.c_str(),
                document.tokens, document.title.c_str(), document.source.empty() ? "" : "  ",
                document.source.c_str());
  }
  std::printf(
      "\n%s, %s: %ld prompt tokens = %ld prefix + %ld fused + %ld recomputed + %ld computed\n"
      "time to first token %.1f ms (look-up %.1f, load %.1f, prefill %.1f)\n",
      answer.mode.c_str(), answer.policy.c_str(), static_cast<long>(answer.account.requested),
      static_cast<long>(answer.account.prefix), static_cast<long>(answer.account.fused),
      static_cast<long>(answer.account.recomputed), static_cast<long>(answer.account.computed),
      answer.ttft.total_ms, answer.ttft.lookup_ms, answer.ttft.load_ms, answer.ttft.prefill_ms);
  if (answer.certificate) PrintCertificate(*answer.certificate);
}

Result<std::vector<std::string>> ReadQuestions(const AskArguments& arguments) {
  if (arguments.questions_file.empty()) return std::vector<std::string>{arguments.question};
  std::ifstream file(arguments.questions_file);
  if (!file) return NotFound("cannot read the file of questions " + arguments.questions_file);
  std::vector<std::string> questions;
  for (std::string line; std::getline(file, line);) {
    if (line.find_first_not_of(" \t\r") != std::string::npos) questions.push_back(line);
  }
  if (questions.empty()) {
    return InvalidArgument("the file " + arguments.questions_file + " holds no question");
  }
  return questions;
}

int CheckUsage(const AskArguments& arguments) {
  if (arguments.question.empty() == arguments.questions_file.empty()) {
    PrintError("ask: give a question, or --questions FILE");
    return kExitUsage;
  }
  for (const std::string& mode : arguments.modes) {
    if (const auto parsed = ParseCacheMode(mode); !parsed.ok()) {
      PrintError("--mode: " + parsed.status().message());
      return kExitUsage;
    }
  }
  if (!arguments.policy.empty()) {
    if (const auto parsed = ParsePolicy(arguments.policy); !parsed.ok()) {
      PrintError("--policy: " + parsed.status().message());
      return kExitUsage;
    }
  }
  return kExitOk;
}

int AskAll(const CliContext& context, const AskArguments& arguments, Asker& asker,
           const std::vector<std::string>& questions) {
  const std::vector<std::string> modes =
      arguments.modes.empty() ? std::vector<std::string>{"auto"} : arguments.modes;
  std::vector<std::vector<AskAnswer>> all;
  json::array list;
  for (const std::string& question : questions) {
    all.emplace_back();
    for (const std::string& mode : modes) {
      Result<AskAnswer> answer = asker.Ask(question, mode);
      if (!answer.ok()) return Fail(answer.status(), "ask");
      if (context.json) list.push_back(AnswerJson(*answer));
      if (!context.json && !arguments.table) PrintAnswer(*answer);
      all.back().push_back(std::move(*answer));
    }
  }
  if (context.json) {
    const bool single = list.size() == 1;
    std::printf("%s\n", json::serialize(single ? list[0] : json::value(list)).c_str());
  } else if (arguments.table) {
    std::printf("%s", FormatAnswers(all).c_str());
  }
  return kExitOk;
}

}  // namespace

int RunAsk(const CliContext& context, const AskArguments& arguments) {
  if (const int usage = CheckUsage(arguments); usage != kExitOk) return usage;
  const auto questions = ReadQuestions(arguments);
  if (!questions.ok()) return Fail(questions.status());
  auto asker = MakeAsker(context, arguments);
  if (!asker.ok()) return Fail(asker.status());
  return AskAll(context, arguments, **asker, *questions);
}

}  // namespace kvasir
