// Health, versions, models, statistics.
#include <unistd.h>

#include <boost/json.hpp>
#include <cmath>
#include <fstream>

#include "service/http/api.h"
#include "service/name_space.h"

namespace kvasir {
namespace {

namespace json = boost::json;

uint64_t ResidentBytes() {
  std::ifstream file("/proc/self/statm");
  uint64_t total = 0, resident = 0;
  file >> total >> resident;
  return resident * static_cast<uint64_t>(sysconf(_SC_PAGESIZE));
}

HttpReply Json(const json::value& body) {
  HttpReply reply;
  reply.body = json::serialize(body);
  return reply;
}

json::object ModelObject(ServiceContext& service) {
  const ModelConfig& model = service.runtime.model().config;
  return {{"id", service.runtime.model_name()},
          {"object", "model"},
          {"created", service.started_unix_s},
          {"owned_by", "kvasir"},
          {"max_model_len", service.runtime.engine().max_context()},
          {"movable_kv", model.reuse.movable}};
}

HttpReply ShowModel(ServiceContext& service, const std::string& id) {
  if (id == service.runtime.model_name() || id == "default") return Json(ModelObject(service));
  ApiError error;
  error.status = 404;
  error.message =
      "The model '" + id + "' does not exist; loaded is '" + service.runtime.model_name() + "'";
  error.param = "model";
  error.code = "model_not_found";
  return ErrorReply(error);
}

json::object TotalsObject(const StatisticsTotals& totals) {
  return {{"requests", totals.requests},
          {"requested_tokens", totals.requested},
          {"prefix_tokens", totals.prefix},
          {"fused_tokens", totals.fused},
          {"recomputed_tokens", totals.recomputed},
          {"computed_tokens", totals.computed},
          {"chunk_hits_pool", totals.chunk_hits_pool},
          {"chunk_hits_memory", totals.chunk_hits_memory},
          {"chunk_hits_disk", totals.chunk_hits_disk},
          {"chunk_misses", totals.chunk_misses},
          {"load_ms", totals.load_ms}};
}

json::object DraftersObject(const EngineStats& stats) {
  json::object object;
  for (size_t i = 0; i < kDraftSources; ++i) {
    object[DraftSourceName(DraftSource(i))] = {{"drafted", stats.drafts[i].drafted},
                                               {"accepted", stats.drafts[i].accepted}};
  }
  return object;
}

json::object AnswersObject(const Runtime& runtime) {
  if (runtime.answers() == nullptr) return {{"on", false}};
  const AnswerStoreStats stats = runtime.answers()->stats();
  return {{"on", true},
          {"answers", stats.answers},
          {"bytes", stats.bytes},
          {"evicted", stats.evicted},
          {"queue_full", stats.dropped},
          {"unreadable", stats.unreadable}};
}

json::object EngineObject(const Engine& engine) {
  const EngineStats stats = engine.stats();
  return {{"healthy", engine.health().ok()},
          {"running", stats.running},
          {"waiting", stats.waiting},
          {"blocks_total", stats.blocks_total},
          {"blocks_free", stats.blocks_free},
          {"steps", stats.steps},
          {"rows", stats.rows},
          {"tokens_generated", stats.tokens_generated},
          {"tokens_drafted", stats.tokens_drafted},
          {"drafts_accepted", stats.drafts_accepted},
          {"drafters", DraftersObject(stats)},
          {"drafters_dropped", stats.drafters_dropped},
          {"requests_finished", stats.requests_finished},
          {"preemptions", stats.preemptions},
          {"longest_queued_ms", stats.longest_queued_ms}};
}

json::object CacheObject(const TieredCache& cache) {
  const CacheOccupancy occupancy = cache.occupancy();
  const CacheCounters counters = cache.counters();
  return {{"pool_chunks", occupancy.pool_chunks},
          {"pool_blocks", occupancy.pool_blocks},
          {"memory_chunks", occupancy.memory_chunks},
          {"memory_bytes", occupancy.memory_bytes},
          {"memory_budget", occupancy.memory_budget},
          {"hits_pool", counters.hits_pool},
          {"hits_memory", counters.hits_memory},
          {"hits_disk", counters.hits_disk},
          {"misses", counters.misses},
          {"loads_lost", counters.lost},
          {"rejected_checksum", counters.rejected_checksum},
          {"rejected_fingerprint", counters.rejected_fingerprint},
          {"rejected_tokens", counters.rejected_tokens},
          {"unreadable", counters.unreadable},
          {"inserted", counters.inserted},
          {"insert_failures", counters.insert_failures},
          {"evicted_pool", counters.evicted_pool},
          {"evicted_memory", counters.evicted_memory},
          {"disk_bytes_read", counters.disk_bytes_read},
          {"disk_bytes_written", counters.disk_bytes_written}};
}

// Running averages; null until a few samples are there.
json::object LoadingObject(TieredCache& cache) {
  const LoadRates rates = cache.load_policy().rates();
  const auto or_null = [](double rate) {
    return rate > 0 ? json::value(rate) : json::value(nullptr);
  };
  return {{"disk_bytes_per_second", or_null(rates.disk_bytes_per_second)},
          {"pool_bytes_per_second", or_null(rates.pool_bytes_per_second)},
          {"prefill_tokens_per_second", or_null(rates.prefill_tokens_per_second)},
          {"computed_sooner", cache.counters().slower}};
}

// Collections of older programs name none.
std::string CodecName(const Runtime& runtime, const Collection& collection) {
  if (!collection.codec.empty()) return collection.codec;
  return std::string(KvCodecName(runtime.codec()));
}

json::object StoreObject(ServiceContext& service) {
  const DatabaseSize size = service.runtime.database().Size();
  json::array collections;
  if (const auto list = service.runtime.documents().ListCollections(); list.ok()) {
    for (const Collection& collection : *list) {
      int64_t documents = 0, chunks = 0, tokens = 0;
      const Status counted = service.runtime.documents().ForEachDocument(
          collection.name, [&](const Document& document) {
            ++documents;
            chunks += static_cast<int64_t>(document.chunks.size());
            tokens += document.tokens;
            return true;
          });
      collections.push_back({{"name", collection.name},
                             {"ingestion", collection.ingestion},
                             {"primer_tokens", collection.primer.size()},
                             {"codec", CodecName(service.runtime, collection)},
                             {"documents", documents},
                             {"chunks", chunks},
                             {"tokens", tokens},
                             {"readable", counted.ok()}});
    }
  }
  return {{"path", service.runtime.database().path()},
          {"read_only", service.runtime.database().read_only()},
          {"disk_bytes", size.disk_bytes},
          {"memory_bytes", size.memory_bytes},
          {"collections", std::move(collections)}};
}

json::object PolicyAuditsObject(const PolicyAudits& audits) {
  const auto samples = static_cast<double>(audits.samples);
  const bool any = audits.samples > 0 && std::isfinite(audits.sum_kl);
  return {{"samples", audits.samples},
          {"mean_kl", any ? json::value(audits.sum_kl / samples) : json::value(nullptr)},
          {"max_kl", any ? json::value(audits.max_kl) : json::value(nullptr)},
          {"share_over_eps",
           any ? json::value(static_cast<double>(audits.over) / samples) : json::value(nullptr)}};
}

json::object AuditsObject(const AuditStats& stats) {
  json::object object = PolicyAuditsObject(stats.total);
  object["share"] = stats.share;
  object["waiting"] = stats.waiting;
  object["dropped"] = stats.dropped;
  object["failed"] = stats.failed;
  json::object policies;
  for (const auto& [policy, audits] : stats.policies) policies[policy] = PolicyAuditsObject(audits);
  object["policies"] = std::move(policies);
  return object;
}

HttpReply Health(const ServiceContext& service, bool ready) {
  const Status engine = service.runtime.engine().health();
  HttpReply reply;
  if (!engine.ok()) {
    reply = Json(json::object{{"status", "failed"}, {"message", engine.message()}});
    reply.status = 503;
    return reply;
  }
  const bool draining = ready && service.draining;
  reply = Json(json::object{{"status", draining ? "draining" : ready ? "ready" : "ok"}});
  reply.status = draining ? 503 : 200;
  return reply;
}

}  // namespace

std::string StatsBody(ServiceContext& service) {
  const StatisticsSnapshot snapshot = service.runtime.statistics().Snapshot(20);
  service.runtime.SamplePrefill();
  json::array top;
  for (const ChunkUsage& usage : snapshot.top_chunks) {
    top.push_back({{"chunk", usage.key.Id()},
                   {"collection", CollectionOfNamespace(usage.key.name_space)},
                   {"hits", usage.hits},
                   {"tokens", usage.tokens},
                   {"last_hit", usage.last_hit_unix_s}});
  }
  const double uptime =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - service.started).count();
  json::object body{{"model", service.runtime.model_name()},
                    {"backend", std::string(service.runtime.backend().name())},
                    {"device", service.runtime.backend().device()},
                    {"uptime_seconds", uptime},
                    {"resident_bytes", ResidentBytes()},
                    {"totals", TotalsObject(snapshot.totals)},
                    {"session", TotalsObject(snapshot.session)},
                    {"engine", EngineObject(service.runtime.engine())},
                    {"past_answers", AnswersObject(service.runtime)},
                    {"cache", CacheObject(service.runtime.cache())},
                    {"loading", LoadingObject(service.runtime.cache())},
                    {"store", StoreObject(service)},
                    {"audits", AuditsObject(service.rag.audits())},
                    {"chunks_hit", snapshot.chunks_hit},
                    {"top_chunks", std::move(top)}};
  return json::serialize(body);
}

HttpReply HandleInfo(ServiceContext& service, const RouteMatch& match) {
  HttpReply reply;
  switch (match.route) {
    case Route::kHealth:
      return Health(service, /*ready=*/false);
    case Route::kReady:
      return Health(service, /*ready=*/true);
    case Route::kVersion:
      return Json(json::object{{"version", kVersion}});
    case Route::kModels:
      return Json(json::object{{"object", "list"}, {"data", json::array{ModelObject(service)}}});
    case Route::kModel:
      return ShowModel(service, match.parameter);
    case Route::kStats:
      reply.body = StatsBody(service);
      return reply;
    case Route::kMetrics:
      reply.content_type = "text/plain; version=0.0.4; charset=utf-8";
      reply.body = service.metrics.Print(service.runtime, service.rag.audits());
      return reply;
    default:
      return ErrorReply(FromStatus(Internal("no handler for this route")));
  }
}

}  // namespace kvasir
