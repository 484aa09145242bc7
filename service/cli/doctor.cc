// kvasir doctor: what this machine, its models, its store and its port look like, and what is
// wrong. Changes nothing.
#include <boost/asio.hpp>
#include <boost/json.hpp>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <thread>

#include "engine/vocabulary_check.h"
#include "kernels/cpu/cpu_backend.h"
#include "service/backend_choice.h"
#include "service/cli/commands.h"
#include "service/cli/print.h"
#include "service/paths.h"
#include "service/service_context.h"

namespace kvasir {
namespace {

namespace json = boost::json;

struct Finding {
  std::string what, text;
  bool wrong = false;
};

std::string FieldOfFile(const char* path, const std::string& name) {
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) {
    if (!line.starts_with(name)) continue;
    const size_t colon = line.find(':');
    const size_t begin = line.find_first_not_of(" \t", colon + 1);
    return begin == std::string::npos ? "" : line.substr(begin);
  }
  return "";
}

void CheckHardware(std::vector<Finding>* findings) {
  std::string isas;
  for (const Isa isa : SupportedIsas()) {
    isas += (isas.empty() ? "" : ", ") + std::string(IsaName(isa));
  }
  const std::string cpu = FieldOfFile("/proc/cpuinfo", "model name");
  const std::string memory = FieldOfFile("/proc/meminfo", "MemAvailable");
  findings->push_back({"processor", (cpu.empty() ? "unknown" : cpu) + ", " +
                                        std::to_string(std::thread::hardware_concurrency()) +
                                        " cores"});
  findings->push_back({"instructions", isas});
  findings->push_back({"memory", memory + " available"});
}

// What engine.backend finds here. No card is nothing wrong unless one was asked for.
void CheckBackend(const Config& config, std::vector<Finding>* findings) {
  if (config.engine_backend == "cpu") return;
  const bool asked = config.engine_backend == "cuda";
  const auto cuda = MakeCudaBackend(config);
  std::string text = cuda.ok() ? NameOf(**cuda) : "cpu; " + cuda.status().message();
  const bool unusable = !cuda.ok() && cuda.status().code() != StatusCode::kNotFound;
  findings->push_back({"backend", std::move(text), !cuda.ok() && (asked || unusable)});
}

Status TryDraftModel(const Config& config, std::string* path) {
  KVASIR_ASSIGN_OR_RETURN(*path, FindDraftModel(config));
  KVASIR_ASSIGN_OR_RETURN(const std::string model_path, FindModel(config));
  KVASIR_ASSIGN_OR_RETURN(const std::unique_ptr<Backend> backend,
                          CreateCpuBackend({.threads = 1, .isa = Isa::kAuto}));
  KVASIR_ASSIGN_OR_RETURN(const auto model, LoadGgufModel(model_path, *backend));
  KVASIR_ASSIGN_OR_RETURN(const auto draft, LoadGgufModel(*path, *backend));
  return CheckSameVocabulary(*model, *draft);
}

void CheckDraftModel(const Config& config, std::vector<Finding>* findings) {
  std::string path;
  const Status status = TryDraftModel(config, &path);
  findings->push_back({"draft model", status.ok() ? path : status.message(), !status.ok()});
}

void CheckModels(const Config& config, std::vector<Finding>* findings) {
  std::string names;
  for (const std::string& name : ListModels()) names += (names.empty() ? "" : ", ") + name;
  findings->push_back({"models folder", ModelsFolder() + ": " + (names.empty() ? "empty" : names)});
  CpuOptions options;
  options.threads = 1;
  auto backend = CreateCpuBackend(options);
  const auto path = FindModel(config);
  if (!path.ok()) {
    findings->push_back({"model", path.status().message(), true});
  } else if (!backend.ok()) {
    findings->push_back({"backend", backend.status().message(), true});
  } else {
    const auto model = LoadGgufModel(*path, **backend);
    findings->push_back({"model",
                         model.ok()
                             ? *path + ": " + (*model)->config.name + ", " +
                                   std::to_string((*model)->config.layers) + " layers, context " +
                                   std::to_string((*model)->config.context)
                             : model.status().message(),
                         !model.ok()});
  }
  if (!config.engine_draft_model.empty()) CheckDraftModel(config, findings);
  const auto embedder = FindEmbedder(config);
  findings->push_back(
      {"embedder", embedder.ok() ? *embedder : embedder.status().message(), !embedder.ok()});
}

// What new collections will have, what the stored ones have, and whether that may be served.
void CheckIngestion(const Config& config, std::shared_ptr<Database> database,
                    std::vector<Finding>* findings) {
  const auto note = [&](const std::string& name, const Result<Encoding>& encoding) {
    const Status fits = encoding.ok()
                            ? CheckNeighbourAccess(*encoding, name, config.server_api_keys.size(),
                                                   /*salted=*/false)
                            : encoding.status();
    if (!fits.ok()) return findings->push_back({"ingestion", fits.message(), true});
    findings->push_back(
        {"ingestion",
         name + ": " + std::string(IngestionName(encoding->condition)) +
             (encoding->primer.empty()
                  ? ""
                  : ", primer of " + std::to_string(encoding->primer.size()) + " tokens")});
  };
  const Result<IngestionCondition> wanted = ParseIngestion(config.collection_ingestion);
  if (wanted.ok()) note("new collections", Encoding{*wanted, {}});
  if (database == nullptr) return;
  const auto records = Database::Store(std::move(database), "documents");
  const auto documents = DocumentStore::Open(*records);
  const auto collections = documents.ok() ? (*documents)->ListCollections()
                                          : Result<std::vector<Collection>>(documents.status());
  if (!collections.ok()) {
    return findings->push_back({"ingestion", collections.status().message(), true});
  }
  for (const Collection& collection : *collections) note(collection.name, EncodingOf(collection));
}

void CheckStore(const Config& config, std::vector<Finding>* findings) {
  const std::string folder = DataFolder(config);
  std::error_code error;
  if (!std::filesystem::exists(folder, error)) {
    findings->push_back({"store", folder + ": not there yet; 'kvasir ingest' makes it"});
    return CheckIngestion(config, nullptr, findings);
  }
  const auto database = Database::Open(folder);
  if (!database.ok()) {
    findings->push_back({"store", database.status().message(), true});
    return;
  }
  const bool read_only = (*database)->read_only();
  findings->push_back(
      {"store",
       folder + ": " + HumanBytes((*database)->Size().disk_bytes) +
           (read_only ? ", READ ONLY: the disk is full; free space and start again" : ""),
       read_only});
  const auto space = std::filesystem::space(folder, error);
  if (!error) {
    const bool low = space.available < (uint64_t{1} << 30);
    findings->push_back(
        {"disk", HumanBytes(space.available) + " free" + (low ? ": less than 1 GiB" : ""), low});
  }
  CheckIngestion(config, *database, findings);
}

void CheckPort(const Config& config, std::vector<Finding>* findings) {
  namespace asio = boost::asio;
  boost::system::error_code error;
  asio::io_context io;
  asio::ip::tcp::acceptor acceptor(io);
  const std::string where = config.server_host + ":" + std::to_string(config.server_port);
  const auto address = asio::ip::make_address(config.server_host, error);
  const asio::ip::tcp::endpoint endpoint(address, static_cast<uint16_t>(config.server_port));
  if (!error) acceptor.open(endpoint.protocol(), error);
  if (!error) acceptor.set_option(asio::socket_base::reuse_address(true), error);
  if (!error) acceptor.bind(endpoint, error);
  findings->push_back({"port",
                       where + (error ? ": " + error.message() +
                                            "; choose another with "
                                            "--port, or 0 for any"
                                      : " is free"),
                       static_cast<bool>(error)});
  if (!error && !address.is_loopback() && config.server_api_keys.empty()) {
    findings->push_back({"API key",
                         "needed for an address that is not loopback: set "
                         "server.api_keys",
                         true});
  }
}

}  // namespace

int RunDoctor(const CliContext& context) {
  std::vector<Finding> findings{{"version", std::string("kvasir ") + kVersion}};
  CheckHardware(&findings);
  CheckBackend(context.config(), &findings);
  CheckModels(context.config(), &findings);
  CheckStore(context.config(), &findings);
  CheckPort(context.config(), &findings);
  int wrong = 0;
  json::array list;
  for (const Finding& finding : findings) {
    wrong += finding.wrong ? 1 : 0;
    if (context.json) {
      list.push_back({{"what", finding.what}, {"text", finding.text}, {"ok", !finding.wrong}});
    } else {
      std::printf("%s %-14s %s\n", finding.wrong ? "!!" : "ok", finding.what.c_str(),
                  finding.text.c_str());
    }
  }
  if (context.json) {
    std::printf("%s\n",
                json::serialize(json::object{{"ok", wrong == 0}, {"findings", list}}).c_str());
  } else {
    std::printf("%s\n", wrong == 0 ? "Nothing is wrong."
                                   : (std::to_string(wrong) + " thing(s) need attention.").c_str());
  }
  return wrong == 0 ? kExitOk : kExitFailure;
}

}  // namespace kvasir
