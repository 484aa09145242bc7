// Where models and data lie: KVASIR_MODEL_DIR, XDG folders, and the files in them.
#pragma once

#include <string>
#include <vector>

#include "kernels/core/status.h"
#include "service/config.h"

namespace kvasir {

inline constexpr char kDefaultModelFile[] = "SmolLM2-135M-Instruct.Q4_1.gguf";

// $KVASIR_MODEL_DIR, else $XDG_CACHE_HOME/kvasir/models, else ~/.cache/kvasir/models.
std::string ModelsFolder();
// config.data_folder, else $XDG_DATA_HOME/kvasir, else ~/.local/share/kvasir.
std::string DataFolder(const Config& config);
// The model's file and the embedder's folder; kNotFound says where was looked and how to get it.
Result<std::string> FindModel(const Config& config);
Result<std::string> FindEmbedder(const Config& config);
// Of the draft model, which must be configured.
Result<std::string> FindDraftModel(const Config& config);
// File names of *.gguf in the models folder, sorted.
std::vector<std::string> ListModels();

}  // namespace kvasir
