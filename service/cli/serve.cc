// kvasir serve, search, stats, config show.
#include <boost/json.hpp>
#include <chrono>
#include <cstdio>

#include "service/backend_choice.h"
#include "service/cli/commands.h"
#include "service/cli/print.h"
#include "service/http/api.h"
#include "service/http/server.h"
#include "service/log.h"

namespace kvasir {

int RunServe(const CliContext& context) {
  if (context.server) {
    PrintError("serve: --server asks a running server; leave it out to start one");
    return kExitUsage;
  }
  StartLog(context.config().log_level);
  auto runtime = Runtime::Create(context.config());
  if (!runtime.ok()) return Fail(runtime.status());
  const auto retrieval = (*runtime)->retrieval();
  if (!retrieval.ok()) LogWarning("serving without retrieval: " + retrieval.status().message());
  if (!(*runtime)->chat_template().known()) {
    LogWarning("the model's chat template is not known; the plain form is used");
  }
  ServiceContext service(**runtime);
  auto server = HttpServer::Listen(service);
  if (!server.ok()) return Fail(server.status());
  LogInfo("model " + (*runtime)->model_name() + " on " + NameOf((*runtime)->backend()) +
          ", data in " + (*runtime)->database().path());
  std::printf("kvasir: ready on %s\n", (*server)->url().c_str());
  std::fflush(stdout);
  (*server)->Run();
  LogInfo("stopped");
  return kExitOk;
}

namespace {

namespace json = boost::json;

Result<std::string> SearchText(const CliContext& context, const SearchArguments& arguments) {
  const std::string collection =
      arguments.collection.empty() ? kDefaultCollection : arguments.collection;
  if (context.server) {
    const json::object body{
        {"query", arguments.query}, {"collection", collection}, {"top_k", arguments.top_k}};
    return CallServer(*context.server, "POST", "/v1/search", json::serialize(body));
  }
  KVASIR_ASSIGN_OR_RETURN(const auto runtime, Runtime::Create(context.config()));
  KVASIR_ASSIGN_OR_RETURN(Retriever * retriever, runtime->retrieval());
  SearchRequest request;
  request.collection = collection;
  request.query = arguments.query;
  request.top_k = arguments.top_k;
  KVASIR_ASSIGN_OR_RETURN(const auto hits, retriever->Search(request));
  return SearchBody(hits);
}

void PrintHits(const json::value& body) {
  for (const json::value& hit : body.at("data").as_array()) {
    std::string text(hit.at("text").as_string());
    if (text.size() > 200) text = WrapText(text, 200).front() + "...";
    std::printf("%.3f  %s  (%s, %ld tokens)\n       %s\n", hit.at("score").to_number<double>(),
                hit.at("title").as_string().c_str(), hit.at("id").as_string().c_str(),
                static_cast<long>(hit.at("tokens").to_number<int64_t>()),
                WrapText(text, 92).front().c_str());
  }
}

Result<std::string> StatsText(const CliContext& context) {
  if (context.server) return CallServer(*context.server, "GET", "/v1/stats", "");
  KVASIR_ASSIGN_OR_RETURN(const auto runtime, Runtime::Create(context.config()));
  ServiceContext service(*runtime);
  return StatsBody(service);
}

// "disk 1.2 GB/s, pool 3.4 GB/s, prefill 1900 tokens/s; 0 chunks computed sooner than loaded".
void PrintLoading(const json::object& loading) {
  std::string text;
  const auto add = [&](const char* name, const char* key, auto&& show) {
    const json::value& rate = loading.at(key);
    text += (text.empty() ? "" : ", ") + std::string(name) + " ";
    text += rate.is_null() ? "not measured yet" : show(rate.to_number<double>());
  };
  const auto bytes = [](double rate) { return HumanBytes(static_cast<uint64_t>(rate)) + "/s"; };
  add("disk", "disk_bytes_per_second", bytes);
  add("pool", "pool_bytes_per_second", bytes);
  add("prefill", "prefill_tokens_per_second",
      [](double rate) { return std::to_string(static_cast<int64_t>(rate)) + " tokens/s"; });
  std::printf("loading    %s; %ld chunks computed sooner than loaded\n", text.c_str(),
              static_cast<long>(loading.at("computed_sooner").to_number<int64_t>()));
}

void PrintStats(const json::value& body) {
  const json::object& totals = body.at("totals").as_object();
  auto number = [&totals](const char* name) {
    return static_cast<long>(totals.at(name).to_number<int64_t>());
  };
  const json::object& store = body.at("store").as_object();
  std::printf("store      %s, %s on disk%s\n", store.at("path").as_string().c_str(),
              HumanBytes(store.at("disk_bytes").to_number<uint64_t>()).c_str(),
              store.at("read_only").as_bool() ? ", READ ONLY (disk full)" : "");
  for (const json::value& collection : store.at("collections").as_array()) {
    std::printf("collection %s (%s, %s): %ld documents, %ld chunks, %ld tokens\n",
                collection.at("name").as_string().c_str(),
                collection.at("ingestion").as_string().c_str(),
                collection.at("codec").as_string().c_str(),
                static_cast<long>(collection.at("documents").to_number<int64_t>()),
                static_cast<long>(collection.at("chunks").to_number<int64_t>()),
                static_cast<long>(collection.at("tokens").to_number<int64_t>()));
  }
  std::printf("requests   %ld\n", number("requests"));
  std::printf("tokens     %ld = %ld prefix + %ld fused + %ld recomputed + %ld computed\n",
              number("requested_tokens"), number("prefix_tokens"), number("fused_tokens"),
              number("recomputed_tokens"), number("computed_tokens"));
  std::printf("chunk hits %ld pool, %ld memory, %ld disk; %ld misses\n", number("chunk_hits_pool"),
              number("chunk_hits_memory"), number("chunk_hits_disk"), number("chunk_misses"));
  PrintLoading(body.at("loading").as_object());
}

// Prints `text` as it is, or by `print` for people.
int Show(const CliContext& context, const Result<std::string>& text,
         void (*print)(const json::value&)) {
  if (!text.ok()) return Fail(text.status());
  if (context.json) {
    std::printf("%s\n", text->c_str());
    return kExitOk;
  }
  try {
    print(json::parse(*text));
  } catch (const std::exception& error) {
    return Fail(
        Internal(std::string("the reply is not what this program expects: ") + error.what()));
  }
  return kExitOk;
}

}  // namespace

int RunSearch(const CliContext& context, const SearchArguments& arguments) {
  return Show(context, SearchText(context, arguments), PrintHits);
}

int RunStats(const CliContext& context) { return Show(context, StatsText(context), PrintStats); }

int RunConfigShow(const CliContext& context, bool origin) {
  json::array list;
  for (const ConfigEntry& entry : context.loaded.Entries()) {
    if (context.json) {
      list.push_back({{"key", entry.key}, {"value", entry.value}, {"origin", entry.origin}});
    } else {
      std::printf("%-22s = %s%s\n", entry.key.c_str(), entry.value.c_str(),
                  origin ? ("    # " + entry.origin).c_str() : "");
    }
  }
  if (context.json) std::printf("%s\n", json::serialize(list).c_str());
  return kExitOk;
}

}  // namespace kvasir
