// A small report whose numbers are easy to work out by hand.
#pragma once

#include <string>

#include "service/eval/result.h"

namespace kvasir {

inline ItemResult MakeItem(int64_t item, std::vector<double> kl, double charged, double ttft_ms) {
  ItemResult result;
  result.item = item;
  result.top1_matches = static_cast<int64_t>(kl.size()) / 2;
  result.kl = std::move(kl);
  result.first_divergence = item == 0 ? -1 : 2;
  result.free_tokens = 8;
  result.rouge_l = 0.5;
  result.f1_full = 0.25;
  result.charged = charged;
  result.question_share = 0.01;
  result.ttft = {ttft_ms, 1, 2, ttft_ms / 2, 3};
  result.text = "text of <item> & " + std::to_string(item);
  return result;
}

// Two questions; exact, no context, and three fused rows of one ingestion condition.
inline EvalReport MakeReport() {
  EvalReport report;
  report.model = "tiny <model>.gguf";
  report.model_digest = "0123abcd";
  report.isa = "scalar";
  report.seed = 9;
  report.questions_file = "q\"uestions.jsonl";
  report.system_text = "Answer & be brief.";
  report.chunk_tokens = 256;
  report.started = "2026-01-02T03:04:05Z";
  report.config = {{"engine.threads", "2"}};
  report.questions = {{"a", "Who <b>?", "Full one", {"gold", "other"}},
                      {"b", "Why?", "Full two", {}}};
  report.rows = {
      {"", "exact", "", "", {MakeItem(0, {0, 0}, 1, 800), MakeItem(1, {0, 0, 0, 0}, 1, 1200)}},
      {"",
       "no context",
       "",
       "the passages left out",
       {MakeItem(0, {1, 1}, 0.01, 10), MakeItem(1, {2, 2, 2, 2}, 0.01, 10)}},
      {"anchor",
       "concat",
       "int8",
       "",
       {MakeItem(0, {0.5, 0.25}, 0.01, 20), MakeItem(1, {0.25, 0.25, 0.25, 0.25}, 0.01, 20)}},
      {"anchor",
       "query(0.05)",
       "int8",
       "",
       {MakeItem(0, {0.125, 0.125}, 0.0625, 80), MakeItem(1, {0.125, 0, 0, 0.125}, 0.0625, 120)}},
      {"anchor",
       "blend(0.15)",
       "int8",
       "",
       {MakeItem(0, {0.25, 0.25}, 0.5, 200), MakeItem(1, {0.25, 0.25, 0.25, 0.25}, 0.5, 200)}}};
  report.rows[3].items[0].f1_gold = 0.75;
  return report;
}

}  // namespace kvasir
