// ModelConfig and VocabularyData out of a GGUF file's metadata.
#pragma once

#include "engine/model/gguf.h"
#include "engine/model/model.h"
#include "engine/model/model_config.h"
#include "kernels/core/status.h"

namespace kvasir {

// Geometry and numerics; every value within bounds and consistent with the others. Errors name
// the file and the field; kUnimplemented names what was found and what is supported.
Result<ModelConfig> ReadModelConfig(const GgufFile& file);

// Tokenizer tables; ids lie in the vocabulary, arrays are as long as it.
Result<VocabularyData> ReadVocabulary(const GgufFile& file);

}  // namespace kvasir
