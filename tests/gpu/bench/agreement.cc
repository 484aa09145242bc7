// The card against the CPU: logits on random weights, greedy text of a real model.
#include <algorithm>
#include <cmath>
#include <fstream>
#include <sstream>
#include <thread>
#include <vector>

#include "kernels/cpu/cpu_backend.h"
#include "tests/gpu/bench/card.h"
#include "tests/gpu/bench/engine_run.h"
#include "tests/gpu/bench/random_model.h"

namespace kvasir::bench {
namespace {

using Prompts = std::vector<std::vector<int32_t>>;
using MakeModel = std::function<Result<std::shared_ptr<const Model>>(Backend&)>;

Result<std::shared_ptr<Backend>> OpenCpu() {
  CpuOptions options;
  options.threads = static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
  KVASIR_ASSIGN_OR_RETURN(std::unique_ptr<Backend> backend, CreateCpuBackend(options));
  return std::shared_ptr<Backend>(std::move(backend));
}

// Every prompt's answer of so many tokens, a few prompts side by side.
Result<std::vector<Spoken>> Answers(std::shared_ptr<Backend> backend, const MakeModel& make,
                                    const Prompts& prompts, int32_t tokens) {
  constexpr int32_t kTogether = 8;
  KVASIR_ASSIGN_OR_RETURN(const std::shared_ptr<const Model> model, make(*backend));
  size_t longest = 0;
  for (const auto& prompt : prompts) longest = std::max(longest, prompt.size());
  const EngineOptions options =
      OptionsFor(model->config, kTogether, static_cast<int32_t>(longest) + tokens, 512);
  KVASIR_ASSIGN_OR_RETURN(const std::unique_ptr<Engine> engine,
                          Engine::Create(model, backend, options));
  std::vector<Request> requests;
  for (const auto& prompt : prompts) {
    requests.push_back(Ask(prompt, tokens));
    requests.back().sampling.logprobs = 2;
  }
  return RunRequests(*engine, std::move(requests), true);
}

// Root of the mean square of the difference, of the CPU's own deviation from its mean.
double Difference(const std::vector<float>& card, const std::vector<float>& cpu) {
  double mean = 0, difference = 0, spread = 0;
  for (const float value : cpu) mean += value / static_cast<double>(cpu.size());
  for (size_t i = 0; i < cpu.size(); ++i) {
    difference += std::pow(double{card[i]} - cpu[i], 2);
    spread += std::pow(cpu[i] - mean, 2);
  }
  return std::sqrt(difference / spread);
}

const char* NameOf(CudaCompute compute) { return compute == CudaCompute::kF32 ? "fp32" : "bf16"; }

Status CompareLogits(Bench& bench, const MakeModel& make, const Prompts& prompts,
                     const std::string& name) {
  KVASIR_ASSIGN_OR_RETURN(const std::shared_ptr<Backend> host, OpenCpu());
  KVASIR_ASSIGN_OR_RETURN(const std::vector<Spoken> cpu, Answers(host, make, prompts, 1));
  for (const CudaCompute compute : {CudaCompute::kF32, CudaCompute::kBf16}) {
    KVASIR_ASSIGN_OR_RETURN(const std::shared_ptr<Backend> backend, OpenCard(compute));
    KVASIR_ASSIGN_OR_RETURN(const std::vector<Spoken> card, Answers(backend, make, prompts, 1));
    double most = 0;
    int same = 0;
    for (size_t i = 0; i < prompts.size(); ++i) {
      most = std::max(most, Difference(card[i].logits, cpu[i].logits));
      same += card[i].tokens == cpu[i].tokens ? 1 : 0;
    }
    const std::string of = name + ", " + NameOf(compute);
    bench.report.Add(of + ", difference of the logits' deviation", most, "");
    bench.report.Add(of + ", same best token", same, "of " + std::to_string(prompts.size()));
  }
  return Status::Ok();
}

// Lines "ids 1 2 3" of a file of tests/golden.
Result<Prompts> ReadPrompts(const std::string& path) {
  std::ifstream file(path);
  Prompts prompts;
  for (std::string line; std::getline(file, line);) {
    if (line.rfind("ids ", 0) != 0) continue;
    std::istringstream ids(line.substr(4));
    prompts.emplace_back();
    for (int32_t id; ids >> id;) prompts.back().push_back(id);
  }
  if (prompts.empty()) return NotFound("no prompts in " + path);
  return prompts;
}

size_t FirstDifference(const Spoken& a, const Spoken& b) {
  const size_t length = std::min(a.tokens.size(), b.tokens.size());
  size_t at = 0;
  while (at < length && a.tokens[at] == b.tokens[at]) ++at;
  return at;
}

Status CompareText(Bench& bench, CudaCompute compute, const MakeModel& make, const Prompts& prompts,
                   const std::vector<Spoken>& cpu, int32_t tokens) {
  KVASIR_ASSIGN_OR_RETURN(const std::shared_ptr<Backend> backend, OpenCard(compute));
  KVASIR_ASSIGN_OR_RETURN(const std::vector<Spoken> card, Answers(backend, make, prompts, tokens));
  int same = 0;
  for (size_t i = 0; i < prompts.size(); ++i) {
    const size_t at = FirstDifference(card[i], cpu[i]);
    if (at == cpu[i].tokens.size()) {
      ++same;
      continue;
    }
    bench.report.Add(std::string(NameOf(compute)) + ", prompt " + std::to_string(i) +
                         " differs at token " + std::to_string(at) + ", the CPU's lead there",
                     at < cpu[i].leads.size() ? cpu[i].leads[at] : NAN, "nats");
  }
  const std::string of = "of " + std::to_string(prompts.size());
  const std::string name =
      std::string("the same ") + std::to_string(tokens) + " tokens, " + NameOf(compute);
  bench.report.Add(name, same, of);
  if (compute != CudaCompute::kF32) return Status::Ok();  // bf16 parts at near ties more often
  bench.report.Expect(
      {name, of, static_cast<double>(same), std::ceil(0.9 * static_cast<double>(prompts.size()))});
  return Status::Ok();
}

}  // namespace

Status RunLogits(Bench& bench) {
  const ModelShape shape = bench.smoke ? TinyShape() : SmolShape();
  Prompts prompts;
  for (int i = 0; i < (bench.smoke ? 2 : 8); ++i) {
    prompts.push_back(
        RandomTokens(bench.smoke ? 12 : 64, 70 + static_cast<uint64_t>(i), shape.vocab));
  }
  for (const DType weights : {DType::kBF16, DType::kQ4_0}) {
    const MakeModel make = [&](Backend& backend) {
      return MakeRandomModel(shape, weights, backend);
    };
    KVASIR_RETURN_IF_ERROR(
        CompareLogits(bench, make, prompts, shape.name + " " + TypeName(weights)));
  }
  return Status::Ok();
}

Status RunGreedyText(Bench& bench) {
  if (bench.model.empty()) return NotFound("no model file was given (--model, --prompts)");
  KVASIR_ASSIGN_OR_RETURN(const Prompts prompts, ReadPrompts(bench.prompts));
  const MakeModel make = [&](Backend& backend) { return LoadGgufModel(bench.model, backend); };
  constexpr int32_t kTokens = 64;
  KVASIR_ASSIGN_OR_RETURN(const std::shared_ptr<Backend> host, OpenCpu());
  KVASIR_ASSIGN_OR_RETURN(const std::vector<Spoken> cpu, Answers(host, make, prompts, kTokens));
  for (const CudaCompute compute : {CudaCompute::kF32, CudaCompute::kBf16}) {
    KVASIR_RETURN_IF_ERROR(CompareText(bench, compute, make, prompts, cpu, kTokens));
  }
  return Status::Ok();
}

}  // namespace kvasir::bench
