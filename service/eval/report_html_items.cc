#include <algorithm>

#include "service/eval/clean_text.h"
#include "service/eval/report_findings.h"
#include "service/eval/report_html_parts.h"
#include "service/eval/report_numbers.h"

namespace kvasir {
namespace {

constexpr size_t kWorst = 3;           // items of a row
constexpr size_t kLongestText = 2000;  // characters shown

std::string Pair(const std::string& name, const std::string& text) {
  return "<dt>" + EscapeHtml(name) + "</dt><dd>" + EscapeHtml(Shortened(text, kLongestText)) +
         "</dd>";
}

double MeanKl(const ItemResult& result) {
  return ItemMetric(result, EvalMetric::kKlMean).value_or(-1);
}

// Items with a distribution, worst first; equal ones in the file's order.
std::vector<const ItemResult*> WorstItems(const EvalRow& row) {
  std::vector<const ItemResult*> items;
  for (const ItemResult& result : row.items) {
    if (!result.kl.empty()) items.push_back(&result);
  }
  std::stable_sort(items.begin(), items.end(), [](const ItemResult* a, const ItemResult* b) {
    return MeanKl(*a) > MeanKl(*b);
  });
  if (items.size() > kWorst) items.resize(kWorst);
  return items;
}

std::string Numbers(const ItemResult& result) {
  std::string text = "KL mean " + ShortNumber(MeanKl(result)) + ", step 1 " +
                     ShortNumber(result.kl[0]) + ", top-1 " + std::to_string(result.top1_matches) +
                     " of " + std::to_string(result.kl.size());
  if (result.free_tokens == 0) return text;
  if (result.first_divergence < 0) return text + ", same tokens as full prefill";
  return text + ", diverges at token " + std::to_string(result.first_divergence + 1);
}

std::string Case(const EvalReport& report, const EvalRow& row, const ItemResult& result) {
  const EvalQuestionText* question = nullptr;
  if (static_cast<size_t>(result.item) < report.questions.size())
    question = &report.questions[static_cast<size_t>(result.item)];
  std::string text =
      "<div class=\"case\"><p class=\"soft\">" + EscapeHtml(Numbers(result)) + "</p><dl>";
  if (question != nullptr) {
    text += Pair("Question", question->question) + Pair("Full prefill", question->full);
  }
  text += Pair(row.policy, result.text);
  if (question != nullptr && !question->answers.empty()) {
    std::string golds;
    for (const std::string& answer : question->answers)
      golds += (golds.empty() ? "" : "\n") + answer;
    text += Pair("Gold", golds);
  }
  return text + "</dl></div>\n";
}

std::string RowOfWorst(const EvalReport& report, const EvalRow& row, bool open) {
  const std::vector<const ItemResult*> worst = WorstItems(row);
  if (worst.empty()) return "";
  std::string text = open ? "<details open><summary>" : "<details><summary>";
  text += EscapeHtml(RowName(row)) + ": worst mean KL " + ShortNumber(MeanKl(*worst[0])) +
          "</summary><div>\n";
  for (const ItemResult* result : worst) text += Case(report, row, *result);
  return text + "</div></details>\n";
}

std::string Definitions(const EvalReport& report) {
  const std::string steps = std::to_string(report.steps);
  const std::vector<std::pair<std::string, std::string>> words = {
      {"KL",
       "Kullback-Leibler divergence KL(full || row) in nats between the next-token "
       "distributions of full prefill and of the row, while full prefill's own greedy answer "
       "is fed to both: at most " +
           steps +
           " tokens, cut at the answer's end. Mean: over "
           "questions of the mean over tokens; p50, p95, max: over all tokens of all questions."},
      {"top-1", "Share of those tokens at which both find the same token most probable."},
      {"diverges",
       "Free greedy decoding: the first token that is not full prefill's; a question "
       "whose tokens are all the same counts with its length."},
      {"charged",
       "Rows times layers with freshly computed queries, keys and values, divided by "
       "all rows times layers; the question included."},
      {"noise floor",
       "Full prefill again with other threads and tile sizes: the unit in which "
       "damage is to be read."},
      {"concat", "Chunk KV as stored, nothing repaired."},
      {"no context", "The passages left out of the prompt."},
      {"refusals", "Answers that are empty or hold a phrase such as \"not mentioned\"."},
  };
  std::string text;
  for (const auto& [word, meaning] : words) text += Pair(word, meaning);
  return text;
}

}  // namespace

std::string HtmlWorstItems(const PlotData& data) {
  std::string text;
  const std::optional<size_t> best = BestRow(data.report, data.summaries);
  for (size_t i = 0; i < data.report.rows.size(); ++i) {
    const EvalRow& row = data.report.rows[i];
    if (row.policy == kExactRow || row.policy == kNoiseFloorRow) continue;
    text += RowOfWorst(data.report, row, best == i);
  }
  return text;
}

std::string HtmlHowMade(const PlotData& data) {
  const EvalReport& report = data.report;
  std::string text =
      "<dl>" + Pair("Model", report.model) + Pair("Model digest", report.model_digest) +
      Pair("Kernels", report.isa) + Pair("Questions file", report.questions_file) +
      Pair("Questions", std::to_string(report.questions.size())) +
      Pair("Tokens of an answer", "at most " + std::to_string(report.steps)) +
      Pair("Tokens of a chunk", "at most " + std::to_string(report.chunk_tokens)) +
      Pair("System text", report.system_text) + Pair("Seed", std::to_string(report.seed)) +
      Pair("Bootstrap", std::to_string(kBootstrapResamples) + " resamples") +
      Pair("Started", report.started);
  for (const auto& [name, value] : report.config) text += Pair(name, value);
  return text + "</dl>\n<h2>What the numbers mean</h2>\n<dl>" + Definitions(report) + "</dl>\n";
}

}  // namespace kvasir
