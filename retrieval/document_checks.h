// What a caller may put into DocumentStore. Every message names the field and the limit.
// Thread safety: free functions without state.
#pragma once

#include <string_view>

#include "kernels/core/status.h"
#include "retrieval/document_store.h"

namespace kvasir {

// 1-64 of [A-Za-z0-9_.-].
Status CheckCollectionName(std::string_view name);
// 1-256 bytes of UTF-8 without control characters.
Status CheckDocumentId(std::string_view id);
Status CheckNewDocument(const NewDocument& document, const Collection& collection);
// kFailedPrecondition names the first field that differs.
Status CheckSameCollection(const Collection& stored, const Collection& wanted);

}  // namespace kvasir
