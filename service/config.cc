#include "service/config.h"

#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <cstdio>
#include <filesystem>
#include <functional>

#include "service/did_you_mean.h"

namespace kvasir {
namespace {

struct Key {
  std::string name;
  std::function<Status(Config&, const std::string&)> set;
  std::function<std::string(const Config&)> get;
};

Key Text(std::string name, std::string Config::*field) {
  return {std::move(name),
          [field](Config& config, const std::string& value) {
            config.*field = value;
            return Status::Ok();
          },
          [field](const Config& config) { return config.*field; }};
}

Key Integer(std::string name, int64_t Config::*field, int64_t low, int64_t high) {
  auto set = [field, low, high](Config& config, const std::string& value) -> Status {
    int64_t number = 0;
    const auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), number);
    if (error != std::errc() || end != value.data() + value.size() || number < low ||
        number > high) {
      return InvalidArgument("'" + value + "' is not an integer in " + std::to_string(low) + "..." +
                             std::to_string(high));
    }
    config.*field = number;
    return Status::Ok();
  };
  return {std::move(name), std::move(set),
          [field](const Config& config) { return std::to_string(config.*field); }};
}

Key Share(std::string name, double Config::*field) {
  auto set = [field](Config& config, const std::string& value) -> Status {
    double number = 0;
    const auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), number);
    if (error != std::errc() || end != value.data() + value.size() ||
        !(number >= 0 && number <= 1)) {
      return InvalidArgument("'" + value + "' is not a share from 0 to 1");
    }
    config.*field = number;
    return Status::Ok();
  };
  return {std::move(name), std::move(set), [field](const Config& config) {
            char text[32];
            std::snprintf(text, sizeof text, "%.9g", config.*field);
            return std::string(text);
          }};
}

Key Choice(std::string name, std::string Config::*field, std::vector<std::string> options) {
  auto set = [field, options](Config& config, const std::string& value) -> Status {
    if (std::find(options.begin(), options.end(), value) == options.end()) {
      std::string list;
      for (const std::string& option : options) {
        if (!list.empty()) list += ", ";
        list += option;
      }
      return InvalidArgument("'" + value + "' is not one of " + list);
    }
    config.*field = value;
    return Status::Ok();
  };
  return {std::move(name), std::move(set), [field](const Config& config) { return config.*field; }};
}

// A comma-separated list, shown masked.
Key Secrets(std::string name, std::vector<std::string> Config::*field) {
  auto set = [field](Config& config, const std::string& value) {
    (config.*field).clear();
    for (size_t begin = 0; begin <= value.size();) {
      const size_t end = std::min(value.find(',', begin), value.size());
      if (end > begin) (config.*field).push_back(value.substr(begin, end - begin));
      begin = end + 1;
    }
    return Status::Ok();
  };
  auto get = [field](const Config& config) {
    const size_t count = (config.*field).size();
    return count == 0 ? std::string() : std::to_string(count) + " set";
  };
  return {std::move(name), std::move(set), std::move(get)};
}

const std::vector<Key>& Keys() {
  static const std::vector<Key> keys = {
      Text("model.path", &Config::model_path),
      Text("model.embedder", &Config::model_embedder),
      Text("data.folder", &Config::data_folder),
      Choice("engine.backend", &Config::engine_backend, {"auto", "cpu", "cuda"}),
      Integer("engine.threads", &Config::engine_threads, 0, 1024),
      Integer("engine.pool_mib", &Config::engine_pool_mib, 1, 1 << 24),
      Choice("engine.kv_dtype", &Config::engine_kv_dtype, {"bf16", "int8", "f32"}),
      Choice("engine.compute", &Config::engine_compute, {"int8", "f32"}),
      Choice("engine.isa", &Config::engine_isa, {"auto", "scalar", "avx2", "avx512"}),
      Integer("engine.max_context", &Config::engine_max_context, 0, 1 << 24),
      Integer("engine.max_sequences", &Config::engine_max_sequences, 1, 4096),
      Integer("engine.max_waiting", &Config::engine_max_waiting, 0, 1 << 20),
      Choice("engine.speculation", &Config::engine_speculation, {"auto", "off"}),
      Choice("engine.schedule", &Config::engine_schedule, {"fcfs", "sjf", "lpm"}),
      Choice("engine.answer_index", &Config::engine_answer_index, {"on", "off"}),
      Integer("engine.answer_index_mib", &Config::engine_answer_index_mib, 1, 2048),
      Text("engine.draft_model", &Config::engine_draft_model),
      Integer("engine.draft_pool_mib", &Config::engine_draft_pool_mib, 1, 1 << 20),
      Integer("cache.memory_mib", &Config::cache_memory_mib, 0, 1 << 24),
      Choice("cache.codec", &Config::cache_codec, {"int8", "fp16", "int4"}),
      Choice("cache.load", &Config::cache_load, {"auto", "always"}),
      Text("cache.policy", &Config::cache_policy),
      Integer("chunk.tokens", &Config::chunk_tokens, 16, 1 << 16),
      Share("audit.share", &Config::audit_share),
      Text("server.host", &Config::server_host),
      Integer("server.port", &Config::server_port, 0, 65535),
      Secrets("server.api_keys", &Config::server_api_keys),
      Integer("limits.body_mib", &Config::limits_body_mib, 1, 1 << 14),
      Integer("limits.header_kib", &Config::limits_header_kib, 1, 1 << 10),
      Integer("limits.connections", &Config::limits_connections, 1, 1 << 16),
      Integer("limits.documents", &Config::limits_documents, 1, 1 << 16),
      Integer("limits.drain_seconds", &Config::limits_drain_seconds, 0, 3600),
      Text("collection.system", &Config::collection_system),
      Choice("collection.ingestion", &Config::collection_ingestion,
             {"bare", "anchor", "fixed", "primer", "own", "neighbour"}),
      Text("collection.primer", &Config::collection_primer),
      Integer("collection.primer_tokens", &Config::collection_primer_tokens, 16, 2048),
      Choice("log.level", &Config::log_level, {"debug", "info", "warning", "error", "off"}),
  };
  return keys;
}

const Key* FindKey(const std::string& name) {
  for (const Key& key : Keys()) {
    if (key.name == name) return &key;
  }
  return nullptr;
}

std::vector<std::string> KeyNames() {
  std::vector<std::string> names;
  for (const Key& key : Keys()) names.push_back(key.name);
  return names;
}

constexpr std::string_view kEnvironmentPrefix = "KVASIR__";

// "KVASIR__ENGINE__POOL_MIB" -> "engine.pool_mib".
std::string KeyOfVariable(std::string_view variable) {
  std::string key(variable.substr(kEnvironmentPrefix.size()));
  std::transform(key.begin(), key.end(), key.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  const size_t split = key.find("__");
  if (split != std::string::npos) key = key.substr(0, split) + "." + key.substr(split + 2);
  return key;
}

}  // namespace

Status LoadedConfig::Set(const std::string& key, const std::string& value,
                         const std::string& origin) {
  const Key* known = FindKey(key);
  if (known == nullptr) {
    return InvalidArgument(origin + ": unknown setting '" + key + "'" +
                           DidYouMean(key, KeyNames()));
  }
  const Status status = known->set(config_, value);
  if (!status.ok()) return InvalidArgument(origin + ": " + key + ": " + status.message());
  origins_[key] = origin;
  return Status::Ok();
}

std::vector<ConfigEntry> LoadedConfig::Entries() const {
  std::vector<ConfigEntry> entries;
  for (const Key& key : Keys()) {
    const auto origin = origins_.find(key.name);
    entries.push_back(
        {key.name, key.get(config_), origin == origins_.end() ? "default" : origin->second});
  }
  return entries;
}

Result<LoadedConfig> LoadConfig(const ConfigSources& sources) {
  LoadedConfig loaded;
  auto apply_file = [&loaded](const std::string& path) -> Status {
    KVASIR_ASSIGN_OR_RETURN(const auto pairs, ReadTomlFile(path));
    for (const auto& [key, value] : pairs) {
      KVASIR_RETURN_IF_ERROR(loaded.Set(key, value, path));
    }
    return Status::Ok();
  };
  std::error_code ignored;
  if (std::filesystem::exists(sources.system_file, ignored)) {
    KVASIR_RETURN_IF_ERROR(apply_file(sources.system_file));
  }
  if (!sources.file.empty()) KVASIR_RETURN_IF_ERROR(apply_file(sources.file));
  for (const auto& [name, value] : sources.environment) {
    if (!name.starts_with(kEnvironmentPrefix)) continue;
    KVASIR_RETURN_IF_ERROR(loaded.Set(KeyOfVariable(name), value, "environment variable " + name));
  }
  for (const auto& [key, value] : sources.flags) {
    KVASIR_RETURN_IF_ERROR(loaded.Set(key, value, "command line"));
  }
  return loaded;
}

std::vector<std::pair<std::string, std::string>> ReadEnvironment() {
  std::vector<std::pair<std::string, std::string>> variables;
  for (char** entry = environ; entry != nullptr && *entry != nullptr; ++entry) {
    const std::string_view text(*entry);
    const size_t split = text.find('=');
    if (split != std::string_view::npos) {
      variables.emplace_back(text.substr(0, split), text.substr(split + 1));
    }
  }
  return variables;
}

DType KvDtypeOf(const Config& config) {
  if (config.engine_kv_dtype == "f32") return DType::kF32;
  return config.engine_kv_dtype == "int8" ? DType::kI8 : DType::kBF16;
}

}  // namespace kvasir
