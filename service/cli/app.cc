#include "service/cli/app.h"

#include <CLI/CLI.hpp>
#include <map>

#include "service/cli/commands.h"
#include "service/cli/print.h"
#include "service/service_context.h"

namespace kvasir {
namespace {

// Flags that are short names of settings, in the order of --help.
struct SettingFlag {
  const char *flag, *key, *help;
};
constexpr SettingFlag kSettingFlags[] = {
    {"--data", "data.folder", "Data folder (default: $XDG_DATA_HOME/kvasir)"},
    {"--model", "model.path", "GGUF file, or its name in the models folder"},
    {"--draft-model", "engine.draft_model", "Smaller GGUF of the same vocabulary that drafts"},
    {"--embedder", "model.embedder", "Folder of the sentence embedder, or its name"},
    {"--backend", "engine.backend",
     "What computes: auto (a usable NVIDIA card, else cpu), cpu or cuda"},
    {"--threads", "engine.threads", "Compute threads (0 = all cores)"},
    {"--pool-mib", "engine.pool_mib", "Size of the KV pool"},
    {"--memory-mib", "cache.memory_mib", "Budget of the memory tier"},
    {"--kv-dtype", "engine.kv_dtype", "Element type of the KV pool: bf16, int8 or f32"},
    {"--isa", "engine.isa", "auto, scalar, avx2 or avx512"},
    {"--codec", "cache.codec", "Stored KV of new collections: int8, fp16 or int4"},
    {"--chunk-tokens", "chunk.tokens", "Most tokens of a chunk"},
    {"--host", "server.host", "Address to listen on"},
    {"--port", "server.port", "Port to listen on (0 = any free one)"},
    {"--api-key", "server.api_keys", "API key(s), comma-separated"},
};

struct Arguments {
  std::map<std::string, std::string> settings;  // key -> value, as given by flags
  std::vector<std::string> assignments;         // --set key=value
  std::string config_file, server;
  bool json = false, origin = false;
  IngestArguments ingest;
  AskArguments ask;
  SearchArguments search;
  BenchArguments bench;
  EvalArguments eval;
};

void AddGlobalFlags(CLI::App& app, Arguments* arguments) {
  for (const SettingFlag& flag : kSettingFlags) {
    app.add_option(flag.flag, arguments->settings[flag.key], flag.help)->group("Settings");
  }
  app.add_option("--set", arguments->assignments, "Any setting, as section.key=value")
      ->group("Settings")
      ->allow_extra_args(false);
  app.add_option("--config", arguments->config_file, "TOML file with settings")->group("Settings");
  app.add_option("--server", arguments->server,
                 "Ask a running server (http://host:port) instead of opening the data folder");
  app.add_flag("--json", arguments->json, "Print JSON");
}

void AddEval(CLI::App& app, EvalArguments* a) {
  CLI::App* eval =
      app.add_subcommand("eval", "What each policy changes in answers to your questions");
  eval->add_option("--questions", a->questions_file,
                   "JSON Lines: question, optional documents, answers, id")
      ->required();
  eval->add_option("--policies", a->policies, "Policies, comma-separated")->capture_default_str();
  eval->add_option("--ingestion", a->ingestions,
                   "Conditions: bare, anchor, fixed, own, neighbour, in_place")
      ->capture_default_str();
  eval->add_option("--codecs", a->codecs, "Codecs of stored KV, comma-separated");
  eval->add_option("--items", a->items, "The first N questions (0 = all)")
      ->check(CLI::Range(0, 1 << 20));
  eval->add_option("--documents", a->documents, "The first N documents of a question")
      ->check(CLI::Range(1, 256));
  eval->add_option("--document-tokens", a->document_tokens, "Cut documents of the file here")
      ->capture_default_str()
      ->check(CLI::Range(8, 1 << 16));
  eval->add_option("--collection", a->collection, "Searched for questions without documents");
  eval->add_option("--top-k", a->top_k, "Chunks to retrieve")->check(CLI::Range(1, 256));
  eval->add_option("--steps", a->steps, "Answer tokens compared")
      ->capture_default_str()
      ->check(CLI::Range(1, 512));
  eval->add_option("--seed", a->seed, "Of the intervals' bootstrap")->capture_default_str();
  eval->add_option("--output", a->output, "Files to write, without suffix")->capture_default_str();
  eval->add_flag("--no-free", a->no_free, "Do not decode rows freely: distances only, faster");
  eval->add_flag("--calibrate", a->calibrate,
                 "Keep what certify is calibrated by in the data folder");
  eval->add_flag("--no-choose", a->no_choose, "Do not keep the best policy for mode auto");
  eval->add_flag("--strict", a->strict, "Stop at a bad line of the questions file");
  eval->add_flag("--restart", a->restart, "Drop what an interrupted run left");
}

void AddCommands(CLI::App& app, Arguments* a) {
  AddEval(app, &a->eval);
  app.add_subcommand("serve", "Answer HTTP requests (OpenAI dialect)");
  CLI::App* ingest = app.add_subcommand("ingest", "Store documents and the KV of their chunks");
  ingest->add_option("paths", a->ingest.paths, "Text, Markdown or HTML files, or folders")
      ->required();
  ingest->add_option("--collection", a->ingest.collection, "Collection (default: default)");
  ingest
      ->add_option("--ingestion", a->ingest.ingestion,
                   "What a new collection's chunks are encoded behind: bare, anchor, fixed, own or "
                   "neighbour")
      ->check(CLI::IsMember({"bare", "anchor", "fixed", "primer", "own", "neighbour"}));
  ingest->add_option("--primer", a->ingest.primer_file,
                     "File with a new collection's fixed primer");
  ingest
      ->add_flag("--choose-primer", a->ingest.choose_primer,
                 "Take a new collection's fixed primer from these documents")
      ->excludes("--primer");
  ingest->add_flag("--dry-run", a->ingest.dry_run, "Only count documents, chunks, tokens, bytes");
  ingest->add_flag("--strict", a->ingest.strict, "Stop at the first document that fails");
  CLI::App* ask = app.add_subcommand("ask", "Answer a question from stored documents");
  ask->add_option("question", a->ask.question, "The question");
  ask->add_option("--questions", a->ask.questions_file, "File with one question a line");
  ask->add_option("--mode,--modes", a->ask.modes,
                  "auto, exact, prefix, fused, optimistic or off; a list")
      ->delimiter(',')
      ->allow_extra_args(false);
  ask->add_option("--policy", a->ask.policy,
                  "A repair such as concat or query(0.1); README lists them");
  ask->add_option("--collection", a->ask.collection, "Collection (default: default)");
  ask->add_option("--system", a->ask.system, "Own system text (its own anchor)");
  ask->add_option("--top-k", a->ask.top_k, "Chunks to retrieve")->check(CLI::Range(1, 256));
  ask->add_option("--max-tokens", a->ask.max_tokens, "Longest answer")
      ->check(CLI::Range(1, 1 << 20));
  ask->add_flag("--table", a->ask.table, "Print one table over all questions and modes");
  CLI::App* search = app.add_subcommand("search", "Show the chunks that fit a question");
  search->add_option("query", a->search.query, "The question")->required();
  search->add_option("--collection", a->search.collection, "Collection (default: default)");
  search->add_option("--top-k", a->search.top_k, "Chunks to show")->check(CLI::Range(1, 256));
  app.add_subcommand("stats", "What the cache holds and what it saved");
  CLI::App* bench = app.add_subcommand("bench", "Measure this machine: speeds, roofs, TTFT");
  bench->add_option("--lengths", a->bench.lengths, "Prompt lengths, e.g. 512,2048")
      ->delimiter(',')
      ->allow_extra_args(false);
  bench->add_option("--repeats", a->bench.repeats, "Runs of each figure (the median counts)")
      ->check(CLI::Range(1, 100));
  app.add_subcommand("doctor", "Say what was found here, and what is wrong");
  CLI::App* config = app.add_subcommand("config", "Settings");
  CLI::App* show = config->add_subcommand("show", "Print every setting");
  show->add_flag("--origin", a->origin, "Also where each comes from");
  config->require_subcommand(1);
  for (CLI::App* command : app.get_subcommands({})) command->fallthrough();
  show->fallthrough();
}

Result<ConfigSources> SourcesOf(const CLI::App& app, const Arguments& arguments) {
  ConfigSources sources;
  sources.file = arguments.config_file;
  sources.environment = ReadEnvironment();
  for (const SettingFlag& flag : kSettingFlags) {
    if (app.count(flag.flag) > 0) {
      sources.flags.emplace_back(flag.key, arguments.settings.at(flag.key));
    }
  }
  for (const std::string& assignment : arguments.assignments) {
    const size_t split = assignment.find('=');
    if (split == std::string::npos) {
      return InvalidArgument("--set: '" + assignment + "' is not of the form section.key=value");
    }
    sources.flags.emplace_back(assignment.substr(0, split), assignment.substr(split + 1));
  }
  return sources;
}

Result<CliContext> ContextOf(const CLI::App& app, const Arguments& arguments) {
  KVASIR_ASSIGN_OR_RETURN(const ConfigSources sources, SourcesOf(app, arguments));
  CliContext context;
  KVASIR_ASSIGN_OR_RETURN(context.loaded, LoadConfig(sources));
  context.json = arguments.json;
  if (!arguments.server.empty()) {
    const auto& keys = context.config().server_api_keys;
    KVASIR_ASSIGN_OR_RETURN(context.server,
                            ParseServer(arguments.server, keys.empty() ? "" : keys.front()));
  }
  return context;
}

int Dispatch(const CLI::App& app, const CliContext& context, Arguments& arguments) {
  if (app.got_subcommand("serve")) return RunServe(context);
  if (app.got_subcommand("ingest")) return RunIngest(context, arguments.ingest);
  if (app.got_subcommand("ask")) return RunAsk(context, arguments.ask);
  if (app.got_subcommand("search")) return RunSearch(context, arguments.search);
  if (app.got_subcommand("stats")) return RunStats(context);
  if (app.got_subcommand("bench")) return RunBench(context, arguments.bench);
  if (app.got_subcommand("eval")) return RunEval(context, arguments.eval);
  if (app.got_subcommand("doctor")) return RunDoctor(context);
  return RunConfigShow(context, arguments.origin);
}

}  // namespace

int RunCommandLine(int argc, const char* const* argv) {
  CLI::App app("Kvasir: answers from documents, with the KV of their chunks cached", "kvasir");
  app.set_version_flag("--version", std::string("kvasir ") + kVersion);
  app.require_subcommand(1);
  Arguments arguments;
  AddGlobalFlags(app, &arguments);
  AddCommands(app, &arguments);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    const int code = app.exit(error);
    return code == 0 ? kExitOk : kExitUsage;
  }
  const Result<CliContext> context = ContextOf(app, arguments);
  if (!context.ok()) {
    PrintError(context.status().message());
    return kExitUsage;
  }
  return Dispatch(app, *context, arguments);
}

}  // namespace kvasir
