// The subcommands, each a function from its arguments to an exit code (0, 1 failure, 2 usage).
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "service/cli/http_client.h"
#include "service/config.h"

namespace kvasir {

struct CliContext {
  LoadedConfig loaded;
  bool json = false;
  std::optional<ServerAddress> server;  // else embedded: this process opens the data folder
  const Config& config() const { return loaded.config(); }
};

struct IngestArguments {
  std::vector<std::string> paths;
  std::string collection;
  std::string ingestion, primer_file;  // "": as the collection was made, or as configured
  bool choose_primer = false;
  bool dry_run = false, strict = false;
};

struct AskArguments {
  std::string question;
  std::string questions_file;
  std::vector<std::string> modes;
  std::string policy, collection, system;
  int top_k = 8, max_tokens = 64;
  bool table = false;
};

struct SearchArguments {
  std::string query, collection;
  int top_k = 8;
};

struct BenchArguments {
  std::vector<int> lengths;
  int repeats = 3;
};

struct EvalArguments {
  std::string questions_file;
  std::string policies = "link(16),query(0.05),query(0.15)";
  std::string ingestions = "fixed";
  std::string codecs;  // "" = the configured one
  std::string collection;
  std::string output = "kvasir-eval";  // .json, .html, .partial.jsonl
  int64_t items = 0;
  int64_t seed = 1;
  int steps = 16, top_k = 8, documents = 256, document_tokens = 256;
  bool no_free = false, no_choose = false, strict = false, restart = false, calibrate = false;
};

int RunServe(const CliContext& context);
int RunIngest(const CliContext& context, const IngestArguments& arguments);
int RunAsk(const CliContext& context, const AskArguments& arguments);
int RunSearch(const CliContext& context, const SearchArguments& arguments);
int RunStats(const CliContext& context);
int RunBench(const CliContext& context, const BenchArguments& arguments);
int RunEval(const CliContext& context, const EvalArguments& arguments);
int RunDoctor(const CliContext& context);
int RunConfigShow(const CliContext& context, bool origin);

}  // namespace kvasir
