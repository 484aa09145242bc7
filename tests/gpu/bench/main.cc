// Measures the CUDA backend through its seams, on the card of this machine or, to test this
// program, in the emulation that is linked in its place.
//   kvasir_gpu_bench [--smoke] [--json FILE] [--seconds S] [--only SECTION]
//                    [--model GGUF --prompts FILE] [--fact KEY=VALUE]...
// 0: the table is whole, or there is no card. 1: a section could not be run. 2: usage.
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <optional>
#include <string>
#include <vector>

#include "tests/gpu/bench/card.h"

namespace kvasir::bench {
namespace {

struct Section {
  const char* name;
  SectionFunction run;
};
constexpr Section kSections[] = {
    {"Ceilings", RunCeilings}, {"Products", RunProducts},      {"Attention", RunAttention},
    {"KV loads", RunKvLoads},  {"Generation", RunGeneration},  {"First token", RunFirstToken},
    {"Logits", RunLogits},     {"Greedy text", RunGreedyText},
};

struct Arguments {
  bool smoke = false;
  double seconds = 0.2;
  std::string json, only, model, prompts;
  std::vector<std::pair<std::string, std::string>> facts;
};

bool ReadFact(const std::string& text, Arguments* to) {
  const size_t equals = text.find('=');
  if (equals == std::string::npos) return false;
  to->facts.emplace_back(text.substr(0, equals), text.substr(equals + 1));
  return true;
}

std::optional<Arguments> Read(int argc, char** argv) {
  Arguments arguments;
  for (int i = 1; i < argc; ++i) {
    const std::string name = argv[i];
    if (name == "--smoke") {
      arguments.smoke = true;
      continue;
    }
    if (++i == argc) return std::nullopt;
    const std::string value = argv[i];
    if (name == "--json")
      arguments.json = value;
    else if (name == "--only")
      arguments.only = value;
    else if (name == "--model")
      arguments.model = value;
    else if (name == "--prompts")
      arguments.prompts = value;
    else if (name == "--seconds")
      arguments.seconds = std::atof(value.c_str());
    else if (name != "--fact" || !ReadFact(value, &arguments))
      return std::nullopt;
  }
  return arguments;
}

// Ceilings are always measured: others are shares of them. Whether all could be run.
bool RunSections(const Arguments& arguments, Bench& bench) {
  bool all = true;
  for (const Section& section : kSections) {
    const std::string name = section.name;
    if (!arguments.only.empty() && name != arguments.only && name != "Ceilings") continue;
    bench.report.Section(name);
    const Status status = section.run(bench);
    if (status.ok()) continue;
    bench.report.Missing(status);
    all = all && status.code() == StatusCode::kNotFound;  // nothing was given to run
  }
  return all;
}

int Run(const Arguments& arguments) {
  const Result<cuda::DeviceInfo> device = cuda::OpenDevice();
  if (!device.ok()) {
    std::printf("no CUDA device: skipped (%s)\n", device.status().message().c_str());
    return 0;
  }
  const bool measured = device->name != "emulated";
  Bench bench = {Report(measured ? device->name : "emulation", measured), arguments.smoke};
  bench.seconds = arguments.smoke ? 0 : arguments.seconds;
  bench.model = arguments.model;
  bench.prompts = arguments.prompts;
  bench.device = *device;
  for (const auto& [key, value] : arguments.facts) bench.report.Describe(key, value);
  const bool all = RunSections(arguments, bench);
  std::fputs(bench.report.Text().c_str(), stdout);
  if (!arguments.json.empty()) std::ofstream(arguments.json) << bench.report.Json();
  return all ? 0 : 1;
}

}  // namespace
}  // namespace kvasir::bench

int main(int argc, char** argv) {
  const auto arguments = kvasir::bench::Read(argc, argv);
  if (!arguments) {
    std::fprintf(stderr, "kvasir_gpu_bench: see the head of tests/gpu/bench/main.cc\n");
    return 2;
  }
  return kvasir::bench::Run(*arguments);
}
