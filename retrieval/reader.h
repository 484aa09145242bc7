// Reader: the bytes of a text, Markdown or HTML file to a title and a list of structured blocks.
//
// Input is hostile: size, encoding and nesting are checked, nothing is fetched from the network,
// scripts, styles, navigation and forms are dropped. All text that comes out is valid UTF-8 with
// '\n' line ends and no NUL. Thread safety: free functions without state.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/core/status.h"

namespace kvasir {

enum class BlockKind : uint8_t {
  kHeading,    // one line, no mark-up
  kParagraph,  // one line, white space collapsed
  kList,       // an item a line: "- item" or "1. item", nested items indented by two spaces
  kCode,       // lines as they were
  kTable,      // a row a line, cells parted by " | "
};

struct TextBlock {
  BlockKind kind = BlockKind::kParagraph;
  int32_t level = 0;  // 1-6 for headings, else 0
  std::string text;   // never empty

  friend bool operator==(const TextBlock&, const TextBlock&) = default;
};

struct ParsedDocument {
  std::string title;  // <title>, the first heading, or the name without folder and extension
  std::vector<TextBlock> blocks;
};

enum class DocumentFormat : uint8_t { kAuto, kText, kMarkdown, kHtml };

struct ReaderOptions {
  // Longest document in bytes; a longer one is kInvalidArgument. Guards memory: parsing takes
  // about ten times the input.
  size_t max_bytes = size_t{32} << 20;
};

// By extension (.txt .text .log .md .markdown .html .htm .xhtml), else by a look at the first
// bytes: an HTML tag or doctype is HTML, everything else text.
DocumentFormat DetectFormat(std::string_view name, std::string_view bytes);

// `name` is used in messages, for the format and as the last choice of a title. A UTF-8 or UTF-16
// byte order mark and, for HTML, a declared charset are honoured.
// kInvalidArgument: too long, binary (NUL or many control bytes, PDF, zip, images by their magic),
// not valid in its encoding, or no text at all; the message names the document and what to do.
Result<ParsedDocument> ParseDocument(std::string_view name, std::string_view bytes,
                                     DocumentFormat format = DocumentFormat::kAuto,
                                     const ReaderOptions& options = {});

// The same from a file. kNotFound: no such file; kInvalidArgument: a folder, a device or
// unreadable.
Result<ParsedDocument> ReadDocumentFile(const std::string& path,
                                        DocumentFormat format = DocumentFormat::kAuto,
                                        const ReaderOptions& options = {});

// The whole file after the same checks of kind and size, unparsed: for hashing before parsing.
Result<std::string> ReadFileBytes(const std::string& path, const ReaderOptions& options = {});

}  // namespace kvasir
