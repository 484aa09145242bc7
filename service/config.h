// Config: every setting of the program, where it came from, and the rules by which layers win:
// defaults < /etc/kvasir/kvasir.toml < --config FILE < KVASIR__SECTION__KEY < command-line flag.
//
// An unknown key is an error that names the nearest known one. A plain value: copy it freely.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "kernels/core/dtype.h"
#include "kernels/core/status.h"

namespace kvasir {

inline constexpr char kAutoPolicy[] = "auto";

struct Config {
  // A GGUF file: a path, or a file name in the models folder. "" = the default model there.
  std::string model_path;
  // The folder of the sentence embedder: a path, or a name in the models folder.
  std::string model_embedder = "all-MiniLM-L6-v2";

  // Where documents and chunk KV live. "" = $XDG_DATA_HOME/kvasir or ~/.local/share/kvasir.
  std::string data_folder;

  // What the engine computes on: auto takes the first NVIDIA card that can be used, else the CPU;
  // cuda is refused at start where there is none.
  std::string engine_backend = "auto";  // auto | cpu | cuda
  int64_t engine_threads = 0;           // 0 = all cores this process may use
  int64_t engine_pool_mib = 256;
  std::string engine_kv_dtype = "bf16";  // bf16 | int8 | f32
  std::string engine_compute = "int8";   // int8 | f32: products of quantised weights
  std::string engine_isa = "auto";       // auto | scalar | avx2 | avx512
  int64_t engine_max_context = 0;        // tokens, 0 = the model's own
  int64_t engine_max_sequences = 64;
  int64_t engine_max_waiting = 256;
  std::string engine_speculation = "auto";  // auto | off
  std::string engine_schedule = "sjf";      // fcfs | sjf | lpm
  // Whether answers are kept, as token ids, to draft later ones from: on | off (and what was kept
  // is erased), and the memory that all of them may take.
  std::string engine_answer_index = "on";
  int64_t engine_answer_index_mib = 16;
  // A smaller GGUF file of the same vocabulary that drafts answers: a path, or a file name in the
  // models folder; "" = none. And the bytes of its KV pool.
  std::string engine_draft_model;
  int64_t engine_draft_pool_mib = 64;

  int64_t cache_memory_mib = 256;
  std::string cache_codec = "int8";  // int8 | fp16 | int4, of new collections
  std::string cache_load = "auto";   // auto: compute what loads more slowly than that | always
  // Of fused prompts: a policy, or "auto": what an evaluation chose for the collection, else the
  // built-in default.
  std::string cache_policy = "auto";

  int64_t chunk_tokens = 256;

  // Share of fused requests that are answered again exactly in idle time, to calibrate certify and
  // to show the damage. 0 = off.
  double audit_share = 0;

  std::string server_host = "127.0.0.1";
  int64_t server_port = 8080;  // 0 = any free port
  std::vector<std::string> server_api_keys;

  int64_t limits_body_mib = 32;
  int64_t limits_header_kib = 16;
  int64_t limits_connections = 1024;
  int64_t limits_documents = 256;  // documents in one request
  int64_t limits_drain_seconds = 30;

  // System text of the default collection, part of its anchor.
  std::string collection_system = "Answer the question using the passages. Be brief.";
  // What new collections encode chunks behind: bare | anchor | fixed | own | neighbour
  // (service/encoding.h). A collection keeps the condition that it was made with.
  std::string collection_ingestion = "fixed";
  // Text of the primer of new collections. "" = the shipped one.
  std::string collection_primer;
  int64_t collection_primer_tokens = 256;  // of new collections; passages that fit
  // Lines of `kvasir serve` on standard error: debug, info, warning, error or off.
  std::string log_level = "info";
};

// How a key's value got its present value: "default", a file, an environment variable, a flag.
struct ConfigEntry {
  std::string key, value, origin;
};

struct ConfigSources {
  std::string system_file = "/etc/kvasir/kvasir.toml";  // may be absent
  std::string file;                                     // from --config; must exist if named
  std::vector<std::pair<std::string, std::string>> environment;  // name, value
  std::vector<std::pair<std::string, std::string>> flags;        // key, value
};

// engine.kv_dtype.
DType KvDtypeOf(const Config& config);

class LoadedConfig {
 public:
  const Config& config() const { return config_; }
  // Every key in the order of the table, with its origin; API keys are masked.
  std::vector<ConfigEntry> Entries() const;

 private:
  friend Result<LoadedConfig> LoadConfig(const ConfigSources& sources);
  Status Set(const std::string& key, const std::string& value, const std::string& origin);

  Config config_;
  std::map<std::string, std::string> origins_;
};

Result<LoadedConfig> LoadConfig(const ConfigSources& sources);

// This process's environment, as ConfigSources wants it.
std::vector<std::pair<std::string, std::string>> ReadEnvironment();

// Key and value pairs of a TOML file, tables flattened to "section.key".
Result<std::vector<std::pair<std::string, std::string>>> ReadTomlFile(const std::string& path);

}  // namespace kvasir
