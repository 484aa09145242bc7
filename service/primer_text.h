// The primer that is shipped: passages that stand before chunks while they are encoded, so that
// their KV looks like the middle of a context (service/encoding.h). Written for this project.
#pragma once

#include <string_view>

namespace kvasir {

// Plain encyclopaedic English, several unrelated facts a passage; four passages, about 900 tokens.
extern const std::string_view kPrimerText;

}  // namespace kvasir
