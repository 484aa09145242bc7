// The fields by which a request names documents and chunk reuse: `documents`, `collection`,
// `top_k`, `filters`, `cache_salt`, `chunk_cache`.
#pragma once

#include "service/http/field_reader.h"
#include "service/rag_request.h"

namespace kvasir {

// Reads them from `fields` into `rag`; mistakes are left in the reader.
void ReadDocumentFields(FieldReader& fields, size_t max_documents, RagRequest* rag);

// `filters`: an object of strings, each a metadata value of the document that must be equal;
// "document_id" is the document's own id.
void ReadFilters(FieldReader& fields, SearchFilter* filter);

// One element of a `documents` array: {id}, {id,text,title}, {text}, {id,data:{...}} or a string.
// "" or what is wrong with it.
std::string ReadDocument(const boost::json::value& value, DocumentInput* document);

}  // namespace kvasir
