#include "service/metrics.h"

#include <algorithm>
#include <cstdio>

#include "engine/draft_run.h"
#include "service/auditor.h"
#include "service/runtime.h"

namespace kvasir {
namespace {

std::string Number(double value) {
  char text[40];
  std::snprintf(text, sizeof text, "%.9g", value);
  return text;
}

void Head(const char* name, const char* type, const char* help, std::string* out) {
  *out += std::string("# HELP ") + name + " " + help + "\n# TYPE " + name + " " + type + "\n";
}

void One(const char* name, const char* type, const char* help, double value, std::string* out) {
  Head(name, type, help, out);
  *out += std::string(name) + " " + Number(value) + "\n";
}

void Labelled(const char* name, const char* label, const char* value, double number,
              std::string* out) {
  *out += std::string(name) + "{" + label + "=\"" + value + "\"} " + Number(number) + "\n";
}

void PrintDrafters(const EngineStats& stats, std::string* out) {
  const char* accepted = "kvasir_drafts_accepted_total";
  const char* rejected = "kvasir_drafts_rejected_total";
  Head(accepted, "counter", "Drafted tokens that answers took, by drafter.", out);
  for (size_t i = 0; i < kDraftSources; ++i) {
    Labelled(accepted, "drafter", DraftSourceName(DraftSource(i)).data(),
             static_cast<double>(stats.drafts[i].accepted), out);
  }
  Head(rejected, "counter", "Drafted tokens that answers did not take, by drafter.", out);
  for (size_t i = 0; i < kDraftSources; ++i) {
    Labelled(rejected, "drafter", DraftSourceName(DraftSource(i)).data(),
             static_cast<double>(stats.drafts[i].drafted - stats.drafts[i].accepted), out);
  }
  One("kvasir_drafters_dropped_total", "counter", "Drafters dropped because they failed.",
      static_cast<double>(stats.drafters_dropped), out);
}

void PrintEngine(const Runtime& runtime, std::string* out) {
  const EngineStats stats = runtime.engine().stats();
  One("kvasir_engine_healthy", "gauge", "1 until the device that computes has failed.",
      runtime.engine().health().ok() ? 1 : 0, out);
  One("kvasir_requests_running", "gauge", "Sequences in the engine's batch.", stats.running, out);
  One("kvasir_requests_waiting", "gauge", "Requests that wait for a place.", stats.waiting, out);
  One("kvasir_kv_blocks_total", "gauge", "Blocks of the KV pool.", stats.blocks_total, out);
  One("kvasir_kv_blocks_free", "gauge", "Free blocks of the KV pool.", stats.blocks_free, out);
  One("kvasir_preemptions_total", "counter",
      "Answers that gave their pool blocks up and were computed again.",
      static_cast<double>(stats.preemptions), out);
  One("kvasir_longest_queued_seconds", "gauge", "Longest wait for a request's first step so far.",
      stats.longest_queued_ms / 1000, out);
  One("kvasir_engine_steps_total", "counter", "Steps of the engine.",
      static_cast<double>(stats.steps), out);
  One("kvasir_engine_rows_total", "counter", "Rows computed.", static_cast<double>(stats.rows),
      out);
  One("kvasir_generation_tokens_total", "counter", "Tokens generated.",
      static_cast<double>(stats.tokens_generated), out);
  One("kvasir_draft_tokens_total", "counter", "Tokens drafted for verification.",
      static_cast<double>(stats.tokens_drafted), out);
  One("kvasir_draft_tokens_accepted_total", "counter", "Drafted tokens that answers took.",
      static_cast<double>(stats.drafts_accepted), out);
  PrintDrafters(stats, out);
}

void PrintAnswers(const Runtime& runtime, std::string* out) {
  if (runtime.answers() == nullptr) return;
  const AnswerStoreStats stats = runtime.answers()->stats();
  One("kvasir_past_answers", "gauge", "Answers kept to draft from.",
      static_cast<double>(stats.answers), out);
  One("kvasir_past_answers_bytes", "gauge", "Bytes of memory that they take.",
      static_cast<double>(stats.bytes), out);
  const char* lost = "kvasir_past_answers_lost_total";
  Head(lost, "counter", "Answers that went or were not kept, by reason.", out);
  Labelled(lost, "reason", "evicted", static_cast<double>(stats.evicted), out);
  Labelled(lost, "reason", "queue_full", static_cast<double>(stats.dropped), out);
  Labelled(lost, "reason", "unreadable", static_cast<double>(stats.unreadable), out);
}

void PrintTokens(const Runtime& runtime, std::string* out) {
  const StatisticsTotals totals = runtime.statistics().Snapshot(0).session;
  One("kvasir_prompt_tokens_total", "counter", "Prompt tokens requested.",
      static_cast<double>(totals.requested), out);
  const char* name = "kvasir_prompt_tokens_by_source_total";
  Head(name, "counter", "Prompt tokens by where their KV came from.", out);
  Labelled(name, "source", "prefix", static_cast<double>(totals.prefix), out);
  Labelled(name, "source", "fused", static_cast<double>(totals.fused), out);
  Labelled(name, "source", "recomputed", static_cast<double>(totals.recomputed), out);
  Labelled(name, "source", "computed", static_cast<double>(totals.computed), out);
}

void PrintCache(const Runtime& runtime, std::string* out) {
  const CacheCounters cache = runtime.cache().counters();
  const char* hits = "kvasir_chunk_hits_total";
  Head(hits, "counter", "Chunk look-ups that hit, by tier.", out);
  Labelled(hits, "tier", "pool", static_cast<double>(cache.hits_pool), out);
  Labelled(hits, "tier", "memory", static_cast<double>(cache.hits_memory), out);
  Labelled(hits, "tier", "disk", static_cast<double>(cache.hits_disk), out);
  const char* misses = "kvasir_chunk_misses_total";
  Head(misses, "counter", "Chunk look-ups that missed, by reason.", out);
  Labelled(misses, "reason", "absent", static_cast<double>(cache.absent), out);
  Labelled(misses, "reason", "fingerprint", static_cast<double>(cache.rejected_fingerprint), out);
  Labelled(misses, "reason", "tokens", static_cast<double>(cache.rejected_tokens), out);
  Labelled(misses, "reason", "checksum", static_cast<double>(cache.rejected_checksum), out);
  Labelled(misses, "reason", "unreadable", static_cast<double>(cache.unreadable), out);
  Labelled(misses, "reason", "pool_full", static_cast<double>(cache.pool_full), out);
  Labelled(misses, "reason", "slower_than_computing", static_cast<double>(cache.slower), out);
  One("kvasir_chunk_loads_lost_total", "counter", "Hits whose load failed after the look-up.",
      static_cast<double>(cache.lost), out);
  One("kvasir_disk_read_bytes_total", "counter", "Bytes of chunk KV read from disk.",
      static_cast<double>(cache.disk_bytes_read), out);
  One("kvasir_disk_read_seconds_total", "counter", "Seconds of reading chunk KV from disk.",
      cache.disk_read_seconds, out);
  One("kvasir_disk_written_bytes_total", "counter", "Bytes of chunk KV written to disk.",
      static_cast<double>(cache.disk_bytes_written), out);
  One("kvasir_pool_load_seconds_total", "counter", "Seconds of loading chunk KV into the pool.",
      cache.pool_load_seconds, out);
  const CacheOccupancy occupancy = runtime.cache().occupancy();
  One("kvasir_memory_tier_bytes", "gauge", "Bytes of records in the memory tier.",
      static_cast<double>(occupancy.memory_bytes), out);
  const PrefixIndexStats prefix = runtime.prefix_index().stats();
  One("kvasir_prefix_cache_queries_total", "counter", "Tokens asked of the prefix index.",
      static_cast<double>(prefix.tokens_asked), out);
  One("kvasir_prefix_cache_hits_total", "counter", "Tokens the prefix index had.",
      static_cast<double>(prefix.tokens_matched), out);
}

void PrintAudits(const AuditStats& audits, std::string* out) {
  One("kvasir_audits_total", "counter", "Requests answered again exactly.",
      static_cast<double>(audits.total.samples), out);
  One("kvasir_audits_over_total", "counter", "Of these, with KL above their policy's epsilon.",
      static_cast<double>(audits.total.over), out);
  One("kvasir_audit_kl_nats_sum", "counter", "KL to full prefill at the first token, summed.",
      audits.total.sum_kl, out);
}

}  // namespace

void SecondsHistogram::Add(double seconds) {
  const auto place = std::lower_bound(kBounds.begin(), kBounds.end(), seconds) - kBounds.begin();
  ++counts_[static_cast<size_t>(place)];
  sum_ += seconds;
  ++total_;
}

void SecondsHistogram::Print(const std::string& name, std::string* out) const {
  uint64_t below = 0;
  for (size_t i = 0; i < kBounds.size(); ++i) {
    below += counts_[i];
    *out += name + "_bucket{le=\"" + Number(kBounds[i]) + "\"} " + std::to_string(below) + "\n";
  }
  *out += name + "_bucket{le=\"+Inf\"} " + std::to_string(total_) + "\n";
  *out += name + "_sum " + Number(sum_) + "\n" + name + "_count " + std::to_string(total_) + "\n";
}

void Metrics::CountReply(const std::string& route, int status) {
  std::lock_guard lock(mutex_);
  ++replies_[{route, status}];
}

void Metrics::CountAnswer(double ttft_seconds, double total_seconds) {
  std::lock_guard lock(mutex_);
  ttft_.Add(ttft_seconds);
  latency_.Add(total_seconds);
}

void Metrics::CountOptimistic(const DraftRunReport& report, int answers) {
  std::lock_guard lock(mutex_);
  draft_tokens_ += static_cast<uint64_t>(report.drafted);
  draft_tokens_stood_ += static_cast<uint64_t>(report.stood);
  uint64_t& outcome = report.drafted == 0              ? undrafted_
                      : report.stood == report.drafted ? stood_
                                                       : corrected_;
  outcome += static_cast<uint64_t>(answers);
  if (report.first_draft_ms >= 0) first_draft_.Add(report.first_draft_ms / 1000);
}

void Metrics::PrintOptimistic(std::string* out) const {
  const char* answers = "kvasir_optimistic_answers_total";
  Head(answers, "counter", "Answers of mode optimistic, by what became of their draft.", out);
  Labelled(answers, "draft", "stood", static_cast<double>(stood_), out);
  Labelled(answers, "draft", "corrected", static_cast<double>(corrected_), out);
  Labelled(answers, "draft", "none", static_cast<double>(undrafted_), out);
  One("kvasir_optimistic_draft_tokens_total", "counter", "Tokens drafted before the exact answer.",
      static_cast<double>(draft_tokens_), out);
  One("kvasir_optimistic_draft_tokens_stood_total", "counter", "Of these, tokens that stood.",
      static_cast<double>(draft_tokens_stood_), out);
  const char* first = "kvasir_optimistic_time_to_first_draft_seconds";
  Head(first, "histogram", "From request to first drafted token.", out);
  first_draft_.Print(first, out);
}

std::string Metrics::Print(const Runtime& runtime, const AuditStats& audits) const {
  std::string out;
  {
    std::lock_guard lock(mutex_);
    Head("kvasir_http_requests_total", "counter", "Replies by route and status.", &out);
    for (const auto& [key, count] : replies_) {
      out += "kvasir_http_requests_total{route=\"" + key.first + "\",status=\"" +
             std::to_string(key.second) + "\"} " + std::to_string(count) + "\n";
    }
    Head("kvasir_time_to_first_token_seconds", "histogram", "From request to first token.", &out);
    ttft_.Print("kvasir_time_to_first_token_seconds", &out);
    Head("kvasir_request_latency_seconds", "histogram", "From request to last token.", &out);
    latency_.Print("kvasir_request_latency_seconds", &out);
    PrintOptimistic(&out);
  }
  One("kvasir_requests_cancelled_total", "counter", "Answers whose client went away.",
      static_cast<double>(cancelled_.load()), &out);
  PrintEngine(runtime, &out);
  PrintAnswers(runtime, &out);
  PrintTokens(runtime, &out);
  PrintCache(runtime, &out);
  PrintAudits(audits, &out);
  return out;
}

}  // namespace kvasir
