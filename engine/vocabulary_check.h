// Whether a draft model speaks the model's tokens. Pure function, any thread.
#pragma once

#include "engine/model/model.h"
#include "kernels/core/status.h"

namespace kvasir {

// kInvalidArgument names both files and what differs: the number of tokens, the first token with
// another text, the ids of begin and end.
Status CheckSameVocabulary(const Model& model, const Model& draft);

}  // namespace kvasir
