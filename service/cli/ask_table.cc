#include "service/cli/ask_table.h"

#include <map>

#include "service/cli/print.h"

namespace kvasir {
namespace {

std::string BaseName(const std::string& path) { return path.substr(path.rfind('/') + 1); }

// "wal.html x3, limits.html": each source once, in order of its first chunk.
std::string SourcesText(const AskAnswer& answer) {
  std::vector<std::string> order;
  std::map<std::string, int> counts;
  for (const DocumentReport& document : answer.documents) {
    const std::string name = BaseName(document.source.empty() ? document.id : document.source);
    if (counts[name]++ == 0) order.push_back(name);
  }
  std::string text;
  for (const std::string& name : order) {
    if (!text.empty()) text += ", ";
    text += name;
    if (counts[name] > 1) text += " x" + std::to_string(counts[name]);
  }
  return text;
}

// "8 disk" or "5 pool, 3 disk": where the chunks' KV was found.
std::string HitsText(const AskAnswer& answer) {
  std::map<std::string, int> counts;
  for (const DocumentReport& document : answer.documents) {
    const bool hit = document.status.starts_with("hit_");
    ++counts[hit ? document.status.substr(4) : document.status];
  }
  std::string text;
  for (const auto& [name, count] : counts) {
    text += (text.empty() ? "" : ", ") + std::to_string(count) + " " + name;
  }
  return text;
}

// "exact", or mode and policy where they differ.
std::string ModeText(const AskAnswer& answer) {
  return answer.mode == answer.policy ? answer.mode : answer.mode + " " + answer.policy;
}

// Milliseconds in at most five characters up to 100 seconds.
std::string MillisecondsText(double ms) { return Fixed(ms, ms < 999.95 ? 1 : 0); }

std::vector<std::string> Row(const AskAnswer& answer, const AskAnswer& first) {
  const bool head = &answer == &first;
  return {head ? answer.question : "",
          ModeText(answer),
          answer.answer,
          head ? SourcesText(answer) : "",
          HitsText(answer),
          std::to_string(answer.account.prefix + answer.account.fused),
          std::to_string(answer.account.recomputed),
          std::to_string(answer.account.computed),
          MillisecondsText(answer.ttft.total_ms),
          head ? "" : Fixed(first.ttft.total_ms / answer.ttft.total_ms, 1)};
}

// "mean time to first token: exact 2500.0 ms, fused 300.0 ms (8.3 times faster)"
std::string MeanLine(const std::vector<std::vector<AskAnswer>>& questions) {
  std::string line = "mean time to first token: ";
  double first = 0;
  for (size_t mode = 0; mode < questions[0].size(); ++mode) {
    double mean = 0;
    for (const auto& answers : questions) {
      mean += answers[mode].ttft.total_ms / static_cast<double>(questions.size());
    }
    if (mode == 0) first = mean;
    if (mode > 0) line += ", ";
    line += questions[0][mode].mode + " " + Fixed(mean, 1) + " ms";
    if (mode > 0) line += " (" + Fixed(first / mean, 1) + " times faster)";
  }
  return line + "\n";
}

}  // namespace

std::string FormatAnswers(const std::vector<std::vector<AskAnswer>>& questions) {
  if (questions.empty()) return "";
  // 123 characters and nine separators of three.
  const std::vector<TableColumn> columns = {{"question", 20},     {"mode", 8},
                                            {"answer", 34},       {"sources", 19},
                                            {"chunks", 10},       {"reused", 6, true},
                                            {"recomp.", 7, true}, {"computed", 8, true},
                                            {"TTFT ms", 5, true}, {"times faster", 6, true}};
  std::vector<std::vector<std::string>> rows;
  for (const auto& answers : questions) {
    for (const AskAnswer& answer : answers) rows.push_back(Row(answer, answers[0]));
  }
  return FormatTable(columns, rows) + "\n" + MeanLine(questions);
}

}  // namespace kvasir
