// The fields by which a request names documents and chunk reuse: `documents`, `collection`,
// `top_k`, `chunk_cache`.
#pragma once

#include "service/http/field_reader.h"
#include "service/rag_request.h"

namespace kvasir {

// Reads them from `fields` into `rag`; mistakes are left in the reader.
void ReadDocumentFields(FieldReader& fields, size_t max_documents, RagRequest* rag);

// One element of a `documents` array: {id}, {id,text,title}, {text}, {id,data:{...}} or a string.
// "" or what is wrong with it.
std::string ReadDocument(const boost::json::value& value, DocumentInput* document);

}  // namespace kvasir
