// What `kvasir eval` measures: plain values that the runner fills and the reports read.
//
// A row is one way to answer (ingestion condition, policy, codec); its items are questions. Rows of
// one report answer the same questions, each named by its index, so rows compare item by item.
// Copy freely; no thread safety beyond that of plain values.
#pragma once

#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "cache/certificate.h"

namespace kvasir {

// Policies of the rows that are always beside the others.
inline constexpr char kExactRow[] = "exact";             // the reference itself
inline constexpr char kNoiseFloorRow[] = "noise floor";  // exact with other threads and tiles
inline constexpr char kConcatRow[] = "concat";           // chunk KV as stored
inline constexpr char kNoContextRow[] = "no context";    // the passages dropped

// An ingestion condition that no request can have: the exact KV of the whole prompt, through the
// codec alone.
inline constexpr char kInPlaceIngestion[] = "in_place";

// Milliseconds; the parts need not fill the total (queueing, the first token's decoding).
struct TtftSplit {
  double total_ms = 0;
  double lookup_ms = 0;    // retrieval and keys
  double load_ms = 0;      // stored KV into the pool, and chunks that were missing
  double repair_ms = 0;    // rows computed again
  double question_ms = 0;  // the question's own rows
};

// One question answered by one row.
struct ItemResult {
  int64_t item = 0;  // index into EvalReport::questions

  // KL(full || row) in nats, one value a teacher-forced token of full's answer, at most
  // EvalReport::steps; empty for a row without a distribution.
  std::vector<double> kl;
  int64_t top1_matches = 0;  // of kl.size() steps

  // Free greedy decoding against full's: the first token that differs, -1 if none does; of
  // free_tokens that were compared (the longer of the two answers). free_tokens 0: nothing was
  // decoded freely, and the item has no divergence, texts or refusal.
  int64_t first_divergence = -1;
  int64_t free_tokens = 0;

  double rouge_l = 0;  // text against full's
  double f1_full = 0;
  std::optional<double> f1_gold;      // text against the gold answers, where there are some
  std::optional<double> gold_loglik;  // nats, summed over the first gold answer's tokens
  bool refused = false;

  double charged = 0;         // rows x layers with fresh QKV / all, the question included
  double question_share = 0;  // the question's part of it
  double selected = 0;        // r that the policy really used; 0 where it has none
  TtftSplit ttft;
  std::string text;  // free greedy answer
};

struct EvalRow {
  std::string ingestion;  // "bare", "anchor", "primer(fixed)", ...; "" where nothing is reused
  std::string policy;     // "query(.05)", or one of the names above
  std::string codec;      // of the stored KV: "int8", ...; "" where nothing is stored
  std::string note;       // shown beside the row; may be ""
  std::vector<ItemResult> items;  // by ascending ItemResult::item; may lack some
};

struct EvalQuestionText {
  std::string id, question;
  std::string full;                  // the answer of full prefill
  std::vector<std::string> answers;  // gold; may be empty
};

// How certify is calibrated for one kind of rows, by all samples of the data folder.
struct EvalCalibration {
  std::string ingestion, codec;
  double epsilon = 0, alpha = 0;
  int64_t samples = 0;
  std::optional<double> lambda;
  std::vector<CalibrationPoint> curve;
};

struct EvalReport {
  std::string model, model_digest;
  std::string isa;  // of the kernels
  uint64_t seed = 0;
  int64_t steps = 16;          // teacher-forced tokens an item, at most
  std::string questions_file;  // as the user named it
  std::string system_text;     // of the anchor
  int64_t chunk_tokens = 0;    // at most, a chunk
  std::string started;         // RFC 3339, UTC
  std::vector<std::pair<std::string, std::string>> config;  // other settings, in order of print
  std::vector<EvalQuestionText> questions;
  std::vector<EvalRow> rows;
  std::vector<EvalCalibration> calibrations;  // where asked for
};

}  // namespace kvasir
