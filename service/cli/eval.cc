// kvasir eval: what each policy changes in the answers, on the user's own questions.
#include "service/eval/eval.h"

#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstdio>
#include <filesystem>
#include <fstream>

#include "service/cli/commands.h"
#include "service/cli/print.h"
#include "service/eval/choose.h"
#include "service/eval/report_html.h"
#include "service/eval/report_json.h"
#include "service/eval/report_table.h"

namespace kvasir {
namespace {

volatile std::sig_atomic_t interrupted = 0;

std::vector<std::string> SplitNames(const std::string& text) {
  std::vector<std::string> names;
  for (size_t begin = 0; begin <= text.size();) {
    const size_t end = std::min(text.find(',', begin), text.size());
    if (end > begin) names.push_back(text.substr(begin, end - begin));
    begin = end + 1;
  }
  return names;
}

// A name as the reports write it, "primer" = "fixed".
Result<std::string> CheckedIngestion(const std::string& name) {
  if (name == kInPlace) return name;
  const auto condition = ParseIngestion(name);
  if (condition.ok()) return std::string(IngestionName(*condition));
  return InvalidArgument(condition.status().message() + ", or in_place (the codec alone)");
}

Status CheckFused(const FusionPolicy& policy) {
  if (policy.fused()) return Status::Ok();
  return InvalidArgument("policy '" + policy.Name() +
                         "' reuses no chunk KV; full prefill is always beside the others");
}

Result<EvalOptions> OptionsOf(const Config& config, const EvalArguments& arguments) {
  EvalOptions options;
  KVASIR_ASSIGN_OR_RETURN(options.policies, ParsePolicyList(arguments.policies));
  for (const FusionPolicy& policy : options.policies) KVASIR_RETURN_IF_ERROR(CheckFused(policy));
  for (const std::string& name : SplitNames(arguments.ingestions)) {
    KVASIR_ASSIGN_OR_RETURN(options.ingestions.emplace_back(), CheckedIngestion(name));
  }
  const std::string codecs = arguments.codecs.empty()
                                 ? (config.cache_codec == "fp16" ? "f16" : config.cache_codec)
                                 : arguments.codecs;
  for (const std::string& name : SplitNames(codecs)) {
    KVASIR_ASSIGN_OR_RETURN(options.codecs.emplace_back(),
                            ParseKvCodec(name == "fp16" ? "f16" : name));
  }
  if (options.ingestions.empty() || options.codecs.empty()) {
    return InvalidArgument("--ingestion and --codecs need at least one name each");
  }
  options.items = arguments.items;
  options.seed = static_cast<uint64_t>(arguments.seed);
  options.calibrate = arguments.calibrate;
  options.runner.steps = arguments.steps;
  options.runner.free_answers = !arguments.no_free;
  options.prompt.collection =
      arguments.collection.empty() ? kDefaultCollection : arguments.collection;
  options.prompt.top_k = arguments.top_k;
  options.prompt.document_tokens = arguments.document_tokens;
  options.prompt.max_documents = arguments.documents;
  return options;
}

class EvalBar {
 public:
  bool Show(const EvalProgress& progress) {
    const bool terminal = isatty(STDERR_FILENO) == 1;
    const double pause = terminal ? 0.2 : 15;
    if (progress.seconds - last_ >= pause) {
      last_ = progress.seconds;
      Draw(progress, terminal);
    }
    return interrupted == 0;
  }
  void Finish() const {
    if (isatty(STDERR_FILENO) == 1) std::fprintf(stderr, "\r\033[K");
  }

 private:
  static void Draw(const EvalProgress& progress, bool terminal) {
    const double share = static_cast<double>(progress.rows_done) /
                         static_cast<double>(std::max<int64_t>(1, progress.rows_total));
    const double left = share > 0 ? progress.seconds * (1 - share) / share : -1;
    const auto filled = static_cast<size_t>(std::clamp(share, 0.0, 1.0) * 24);
    std::string bar(24, '.');
    for (size_t i = 0; i < filled; ++i) bar[i] = '#';
    const std::string eta = left < 0 ? "--" : Fixed(left, 0) + " s";
    std::fprintf(stderr, "%s[%s] %ld/%ld questions, %ld/%ld rows, ETA %s, now %s%s",
                 terminal ? "\r\033[K" : "", bar.c_str(), static_cast<long>(progress.items_done),
                 static_cast<long>(progress.items_total), static_cast<long>(progress.rows_done),
                 static_cast<long>(progress.rows_total), eta.c_str(), progress.row.c_str(),
                 terminal ? "" : "\n");
    std::fflush(stderr);
  }

  double last_ = 0;
};

Status WriteFile(const std::string& path, const std::string& text) {
  std::ofstream file(path, std::ios::binary | std::ios::trunc);
  file << text;
  file.close();
  if (file) return Status::Ok();
  return FailedPrecondition("cannot write " + path + ": name another place with --output");
}

void TellFile(const QuestionFile& file, const std::string& path) {
  for (const BadLine& bad : file.bad_lines) PrintError(Describe(path, bad));
  for (const std::string& warning : file.warnings) PrintError(warning);
}

Status WriteReports(const CliContext& context, const EvalArguments& arguments,
                    const EvalReport& report, const std::vector<RowSummary>& summaries) {
  const std::string json = ReportToJson(report, summaries);
  KVASIR_RETURN_IF_ERROR(WriteFile(arguments.output + ".json", json));
  KVASIR_RETURN_IF_ERROR(WriteFile(arguments.output + ".html", ReportToHtml(report, summaries)));
  if (context.json) {
    std::printf("%s", json.c_str());
    return Status::Ok();
  }
  std::printf("%s\nwritten: %s.json and %s.html\n", FormatReport(report, summaries).c_str(),
              arguments.output.c_str(), arguments.output.c_str());
  return Status::Ok();
}

// The encoding of the collection that is asked, or of documents that questions bring along.
Result<Encoding> EncodingAsked(const Runtime& runtime, const std::string& collection) {
  const auto stored = runtime.documents().GetCollection(collection);
  return stored.ok() ? EncodingOf(*stored) : runtime.encoding();
}

// Keeps the policy that `auto` runs under from now on, and says so.
Status Choose(const Runtime& runtime, const std::string& collection, const EvalReport& report,
              const std::vector<RowSummary>& summaries) {
  KVASIR_ASSIGN_OR_RETURN(const Encoding encoding, EncodingAsked(runtime, collection));
  const KvCodec stored_as = runtime.CodecOf(encoding.codec);
  const std::string ingestion(IngestionName(encoding.condition)), codec(KvCodecName(stored_as));
  const auto row = ChooseRow(report, summaries, ingestion, codec);
  if (!row) {
    std::fprintf(stderr, "no policy chosen for auto: no row of ingestion %s and codec %s\n",
                 ingestion.c_str(), codec.c_str());
    return Status::Ok();
  }
  const auto value = [&](EvalMetric metric) {
    const auto& estimate = summaries[*row].Of(metric);
    return estimate ? estimate->value : 0.0;
  };
  const PolicyChoice choice{report.rows[*row].policy,   value(EvalMetric::kKlStep1),
                            value(EvalMetric::kKlMean), value(EvalMetric::kCharged),
                            summaries[*row].items,      report.started};
  KVASIR_RETURN_IF_ERROR(
      runtime.choices().Put(runtime.ChoiceScopeOf(collection, encoding, stored_as), choice));
  std::fprintf(stderr, "auto runs collection '%s' under %s from now on\n", collection.c_str(),
               choice.policy.c_str());
  return Status::Ok();
}

Status Evaluate(const CliContext& context, const EvalArguments& arguments,
                const EvalOptions& options) {
  KVASIR_ASSIGN_OR_RETURN(const QuestionFile file, ReadQuestions(arguments.questions_file));
  TellFile(file, arguments.questions_file);
  if (arguments.strict && !file.bad_lines.empty()) {
    return InvalidArgument("stopped for the bad lines above; without --strict the rest goes on");
  }
  KVASIR_ASSIGN_OR_RETURN(const auto runtime, Runtime::Create(context.config()));
  KVASIR_ASSIGN_OR_RETURN(
      const auto checkpoint,
      Checkpoint::Open(arguments.output + ".partial.jsonl",
                       IdentityOf(*runtime, options, file.digest), arguments.restart));
  if (checkpoint->results() > 0) {
    std::fprintf(stderr, "going on with %ld results of %s\n",
                 static_cast<long>(checkpoint->results()), checkpoint->path().c_str());
  }
  std::fprintf(stderr, "seed %ld\n", static_cast<long>(arguments.seed));
  EvalBar bar;
  auto report = RunEvaluation(*runtime, file, options, checkpoint.get(),
                              [&bar](const EvalProgress& progress) { return bar.Show(progress); });
  bar.Finish();
  KVASIR_RETURN_IF_ERROR(report.status());
  report->questions_file = arguments.questions_file;
  const std::vector<RowSummary> summaries = Summarise(*report);
  KVASIR_RETURN_IF_ERROR(WriteReports(context, arguments, *report, summaries));
  if (!arguments.no_choose) {
    KVASIR_RETURN_IF_ERROR(Choose(*runtime, options.prompt.collection, *report, summaries));
  }
  return checkpoint->Remove();
}

}  // namespace

int RunEval(const CliContext& context, const EvalArguments& arguments) {
  if (context.server) {
    PrintError("eval: it opens the data folder itself; stop the server and leave --server out");
    return kExitUsage;
  }
  const auto options = OptionsOf(context.config(), arguments);
  if (!options.ok()) {
    PrintError("eval: " + options.status().message());
    return kExitUsage;
  }
  std::signal(SIGINT, [](int) { interrupted = 1; });
  const Status status = Evaluate(context, arguments, *options);
  return status.ok() ? kExitOk : Fail(status, "eval");
}

}  // namespace kvasir
