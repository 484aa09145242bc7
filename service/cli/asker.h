// Asker: puts one question to the embedded pipeline or to a server, and gives back the same facts
// either way.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "service/cli/commands.h"
#include "service/rag_request.h"

namespace kvasir {

struct AskTimes {
  double total_ms = 0, lookup_ms = 0, load_ms = 0, prefill_ms = 0, decode_ms = 0;
};

struct AskAnswer {
  std::string question, answer, mode, policy;
  PromptAccount account;
  AskTimes ttft;
  int64_t completion_tokens = 0;
  std::vector<DocumentReport> documents;
  std::optional<CertificateReport> certificate;
};

// Not thread-safe.
class Asker {
 public:
  virtual ~Asker() = default;
  virtual Result<AskAnswer> Ask(const std::string& question, const std::string& mode) = 0;
};

Result<std::unique_ptr<Asker>> MakeAsker(const CliContext& context, const AskArguments& arguments);

}  // namespace kvasir
