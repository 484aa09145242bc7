// Chunker: a parsed document to chunks of bounded token count that follow its structure.
//
// Chunks begin at headings; neighbouring small sections under one parent share a chunk, long ones
// are parted at paragraphs, then sentences and lines, then words, last at characters. No text is
// lost, repeated or reordered. The heading path is the chunk's title, so it never has to be
// repeated in the text. Deterministic: equal input gives equal chunks.
// Cost: every byte is tokenised a small constant number of times.
// Thread safety: free function; the counter is called on the caller's thread.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/core/status.h"
#include "retrieval/reader.h"

namespace kvasir {

struct ChunkText {
  std::string title;  // "Document title > 2. Heading > 2.1. Sub-heading"
  std::string text;   // never empty; blocks parted by a blank line

  friend bool operator==(const ChunkText&, const ChunkText&) = default;
};

struct ChunkerOptions {
  // Most tokens a chunk may have as it stands in a prompt (title, text and the words around them,
  // as the counter says): a hard limit. Range 48 to 8192. Shorter chunks are found more precisely
  // and fused less well; longer ones the other way round.
  int32_t target_tokens = 256;
  // Sections of fewer tokens than this join their neighbour where both fit one chunk.
  int32_t merge_below_tokens = 96;
};

// Tokens of one chunk as it will stand in a prompt, e.g. ChatTemplate::RenderDocument's size.
using ChunkTokenCounter =
    std::function<Result<int32_t>(std::string_view title, std::string_view text)>;

// Fails only with the counter's own error or kInvalidArgument for options out of range. A document
// without blocks gives no chunks.
Result<std::vector<ChunkText>> ChunkDocument(const ParsedDocument& document,
                                             const ChunkerOptions& options,
                                             const ChunkTokenCounter& count);

}  // namespace kvasir
