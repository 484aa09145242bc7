// The parsers behind ParseDocument, one a format. Input: UTF-8, checked, without NUL and byte
// order mark, line ends '\n'. Thread safety: free functions without shared state.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "kernels/core/status.h"
#include "retrieval/block_builder.h"
#include "retrieval/reader.h"

namespace kvasir {

// An empty title means that the format gave none.
ParsedDocument ParseText(std::string_view text);
Result<ParsedDocument> ParseMarkdown(std::string_view name, std::string_view text);
Result<ParsedDocument> ParseHtml(std::string_view name, std::string_view text);

// Feeds a fragment of HTML (no <html>, no <body>) into `builder`; its <title> goes to *title unless
// null.
Status AppendHtml(std::string_view name, std::string_view text, BlockBuilder* builder,
                  std::string* title);
// "&amp;", "&#8212;" or "&#x2014;" to UTF-8; what is no known entity stays as it is.
std::string DecodeEntity(std::string_view entity);

// The charset that the first bytes of an HTML file declare in a <meta> tag, lower case, or "".
std::string DeclaredCharset(std::string_view bytes);

}  // namespace kvasir
