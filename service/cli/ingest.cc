// kvasir ingest.
#include <algorithm>
#include <boost/json.hpp>
#include <cmath>
#include <cstdio>
#include <filesystem>

#include "service/cli/commands.h"
#include "service/cli/print.h"
#include "service/ingest_pipeline.h"

namespace kvasir {
namespace {

namespace json = boost::json;

json::array FailuresJson(const std::vector<IngestFailure>& failures) {
  json::array list;
  for (const IngestFailure& failure : failures) {
    list.push_back({{"name", failure.name}, {"message", failure.message}});
  }
  return list;
}

void PrintFailures(const std::vector<IngestFailure>& failures) {
  for (const IngestFailure& failure : failures) {
    const bool named = failure.message.find(failure.name) != std::string::npos;
    PrintError(named ? failure.message : failure.name + ": " + failure.message);
  }
}

int DryRun(const CliContext& context, IngestPipeline& pipeline,
           const std::vector<std::string>& files) {
  const DryRunReport report = pipeline.DryRun(files);
  if (context.json) {
    const json::object body{{"documents", report.documents},
                            {"chunks", report.chunks},
                            {"tokens", report.tokens},
                            {"kv_bytes",
                             {{"int8", report.kv_bytes_int8},
                              {"int4", report.kv_bytes_int4},
                              {"fp16", report.kv_bytes_fp16}}},
                            {"failures", FailuresJson(report.failures)}};
    std::printf("%s\n", json::serialize(body).c_str());
  } else {
    std::printf("%ld documents, %ld chunks, %ld tokens; KV: %s as int8, %s as int4, %s as fp16\n",
                static_cast<long>(report.documents), static_cast<long>(report.chunks),
                static_cast<long>(report.tokens), HumanBytes(report.kv_bytes_int8).c_str(),
                HumanBytes(report.kv_bytes_int4).c_str(), HumanBytes(report.kv_bytes_fp16).c_str());
  }
  PrintFailures(report.failures);
  return report.failures.empty() ? kExitOk : kExitFailure;
}

int PrintReport(const CliContext& context, const IngestReport& report) {
  const double rate =
      report.seconds > 0 ? static_cast<double>(report.tokens_computed) / report.seconds : 0;
  if (context.json) {
    const json::object body{{"documents", report.documents},
                            {"unchanged", report.unchanged},
                            {"chunks", report.chunks},
                            {"tokens", report.tokens},
                            {"chunks_computed", report.chunks_computed},
                            {"tokens_computed", report.tokens_computed},
                            {"seconds", report.seconds},
                            {"tokens_per_second", rate},
                            {"failures", FailuresJson(report.failures)}};
    std::printf("%s\n", json::serialize(body).c_str());
  } else {
    std::printf(
        "%ld documents (%ld unchanged), %ld chunks, %ld tokens; KV of %ld chunks "
        "(%ld tokens) computed in %.1f s, %.0f tokens/s\n",
        static_cast<long>(report.documents), static_cast<long>(report.unchanged),
        static_cast<long>(report.chunks), static_cast<long>(report.tokens),
        static_cast<long>(report.chunks_computed), static_cast<long>(report.tokens_computed),
        report.seconds, rate);
  }
  PrintFailures(report.failures);
  return report.failures.empty() ? kExitOk : kExitFailure;
}

// Adds one reply line or object of the server to the report.
void AddReply(const json::value& reply, const std::string& path, IngestReport* report) {
  if (const json::value* error = reply.as_object().if_contains("error")) {
    report->failures.push_back({path, std::string(error->at("message").as_string())});
    return;
  }
  ++report->documents;
  report->unchanged += reply.at("unchanged").as_bool() ? 1 : 0;
  report->chunks += reply.at("chunks").to_number<int64_t>();
  report->tokens += reply.at("tokens").to_number<int64_t>();
  report->chunks_computed += reply.at("chunks_computed").to_number<int64_t>();
  report->tokens_computed += reply.at("tokens_computed").to_number<int64_t>();
}

Result<CollectionChoice> ChoiceOf(const IngestArguments& arguments) {
  CollectionChoice choice;
  if (!arguments.ingestion.empty()) {
    KVASIR_ASSIGN_OR_RETURN(choice.condition, ParseIngestion(arguments.ingestion));
  }
  if (!arguments.primer_file.empty()) {
    KVASIR_ASSIGN_OR_RETURN(choice.primer, ReadFileBytes(arguments.primer_file));
  }
  return choice;
}

Status SendFile(const ServerAddress& server, const std::string& collection,
                const CollectionChoice& choice, bool choose_primer, const std::string& path,
                IngestReport* report) {
  KVASIR_ASSIGN_OR_RETURN(const std::string bytes, ReadFileBytes(path));
  const DocumentFormat format = DetectFormat(path, bytes);
  const char* name = format == DocumentFormat::kHtml       ? "html"
                     : format == DocumentFormat::kMarkdown ? "markdown"
                                                           : "text";
  json::object body{{"id", path},
                    {"source", path},
                    {"text", bytes},
                    {"format", name},
                    {"collection", collection}};
  if (choice.condition) body["ingestion"] = std::string(IngestionName(*choice.condition));
  if (choice.primer) body["primer"] = *choice.primer;
  if (choose_primer) body["choose_primer"] = true;
  KVASIR_ASSIGN_OR_RETURN(const std::string reply,
                          CallServer(server, "POST", "/v1/documents", json::serialize(body)));
  try {
    AddReply(json::parse(reply), path, report);
  } catch (const std::exception& error) {
    return Internal(std::string("the server's reply is not what this program expects: ") +
                    error.what());
  }
  return Status::Ok();
}

uint64_t FileBytes(const std::string& path) {
  std::error_code error;
  const auto bytes = std::filesystem::file_size(path, error);
  return error ? 0 : bytes;
}

IngestReport IngestRemote(const ServerAddress& server, const std::string& collection,
                          const CollectionChoice& choice, const IngestArguments& arguments,
                          const std::vector<std::string>& files) {
  const auto begin = std::chrono::steady_clock::now();
  IngestReport report;
  IngestProgress progress;
  progress.documents_total = files.size();
  uint64_t bytes_all = 0, bytes_done = 0;
  for (const std::string& file : files) bytes_all += FileBytes(file);
  ProgressBar bar;
  for (const std::string& file : files) {
    const Status status =
        SendFile(server, collection, choice, arguments.choose_primer, file, &report);
    if (!status.ok()) report.failures.push_back({file, status.message()});
    ++progress.documents_done;
    bytes_done += FileBytes(file);
    progress.tokens_computed = report.tokens_computed;
    // The server counts tokens as it goes; the rest is estimated by the size of the files.
    const auto share = static_cast<double>(std::max<uint64_t>(1, bytes_done)) /
                       static_cast<double>(std::max<uint64_t>(1, bytes_all));
    progress.tokens_to_compute = std::llround(static_cast<double>(report.tokens_computed) / share);
    progress.seconds =
        std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
    bar.Show(progress);
    if (arguments.strict && !report.failures.empty()) break;
  }
  bar.Finish();
  report.seconds = progress.seconds;
  return report;
}

}  // namespace

int RunIngest(const CliContext& context, const IngestArguments& arguments) {
  const auto files = ListFiles(arguments.paths);
  if (!files.ok()) return Fail(files.status());
  if (files->empty()) return Fail(NotFound("there is no file below the paths given"));
  const std::string collection =
      arguments.collection.empty() ? kDefaultCollection : arguments.collection;
  Result<CollectionChoice> choice = ChoiceOf(arguments);
  if (!choice.ok()) return Fail(choice.status());
  if (context.server && !arguments.dry_run) {
    return PrintReport(context,
                       IngestRemote(*context.server, collection, *choice, arguments, *files));
  }
  auto runtime = Runtime::Create(context.config());
  if (!runtime.ok()) return Fail(runtime.status());
  IngestPipeline pipeline(**runtime);
  if (arguments.dry_run) return DryRun(context, pipeline, *files);
  if (arguments.choose_primer && !pipeline.HasCollection(collection)) {
    Result<std::string> primer = pipeline.ChoosePrimerOf(*files);
    if (!primer.ok()) return Fail(primer.status());
    choice->primer = std::move(*primer);
  }
  if (const auto opened = pipeline.OpenCollection(collection, *choice); !opened.ok()) {
    return Fail(opened.status());
  }
  ProgressBar bar;
  const IngestReport report =
      pipeline.IngestFiles(collection, *files, arguments.strict,
                           [&bar](const IngestProgress& progress) { bar.Show(progress); });
  bar.Finish();
  return PrintReport(context, report);
}

}  // namespace kvasir
