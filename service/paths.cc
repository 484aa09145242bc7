#include "service/paths.h"

#include <algorithm>
#include <cstdlib>
#include <filesystem>

namespace kvasir {
namespace {

namespace fs = std::filesystem;

std::string Environment(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? std::string() : std::string(value);
}

std::string HomeFolder(const char* below) {
  const std::string home = Environment("HOME");
  return (home.empty() ? std::string(".") : home) + below;
}

// `name` itself if it exists, else the same in the models folder.
Result<std::string> FindInModels(const std::string& name, const std::string& what,
                                 const std::string& key) {
  std::error_code ignored;
  if (fs::exists(name, ignored)) return name;
  const fs::path in_folder = fs::path(ModelsFolder()) / name;
  const bool plain_name = name.find('/') == std::string::npos;
  if (plain_name && fs::exists(in_folder, ignored)) return in_folder.string();
  return NotFound(what + " '" + name + "' is neither a path nor in the models folder " +
                  ModelsFolder() + ": run examples/setup/models.sh, or set " + key +
                  " to a path that exists");
}

}  // namespace

std::string ModelsFolder() {
  if (const std::string folder = Environment("KVASIR_MODEL_DIR"); !folder.empty()) return folder;
  const std::string cache = Environment("XDG_CACHE_HOME");
  return (cache.empty() ? HomeFolder("/.cache") : cache) + "/kvasir/models";
}

std::string DataFolder(const Config& config) {
  if (!config.data_folder.empty()) return config.data_folder;
  const std::string data = Environment("XDG_DATA_HOME");
  return (data.empty() ? HomeFolder("/.local/share") : data) + "/kvasir";
}

Result<std::string> FindModel(const Config& config) {
  const std::string name = config.model_path.empty() ? kDefaultModelFile : config.model_path;
  return FindInModels(name, "model", "model.path");
}

Result<std::string> FindEmbedder(const Config& config) {
  return FindInModels(config.model_embedder, "embedder", "model.embedder");
}

Result<std::string> FindDraftModel(const Config& config) {
  return FindInModels(config.engine_draft_model, "draft model", "engine.draft_model");
}

std::vector<std::string> ListModels() {
  std::vector<std::string> names;
  std::error_code error;
  for (fs::directory_iterator it(ModelsFolder(), error), end; !error && it != end;
       it.increment(error)) {
    if (it->path().extension() == ".gguf") names.push_back(it->path().filename().string());
  }
  std::sort(names.begin(), names.end());
  return names;
}

}  // namespace kvasir
