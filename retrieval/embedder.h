// Embedder: text to unit vectors whose inner product says how alike the meanings are.
//
// Create loads a sentence-transformers BERT model (all-MiniLM-L6-v2): WordPiece, encoder, mean
// pooling, L2 norm. A text's vector never depends on the texts beside it in a call, bit for bit.
// Thread safety: Embed may be called from any thread; calls run one after the other. The backend
// must be the embedder's own: a Backend serves one thread at a time, so the engine's cannot be
// shared.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "kernels/core/backend.h"
#include "kernels/core/status.h"

namespace kvasir {

struct EmbedderOptions {
  // Word pieces a text at most, [CLS] and [SEP] included; the rest of a longer text is left out,
  // as sentence-transformers does. 256 is what all-MiniLM-L6-v2 was made for; up to the model's
  // own positions.
  int32_t max_tokens = 256;
  // Rows (word pieces of all texts) a forward pass at most; sets the activations' memory
  // (about 16 KiB a row).
  int32_t batch_rows = 1024;
};

class Embedder {
 public:
  // `folder` holds config.json, model.safetensors and vocab.txt. Errors name the file.
  static Result<std::unique_ptr<Embedder>> Create(const std::string& folder,
                                                  std::shared_ptr<Backend> backend,
                                                  const EmbedderOptions& options = {});
  virtual ~Embedder() = default;

  // [texts][dimension], each row of length 1. Invalid UTF-8 is kInvalidArgument; an empty text is
  // allowed and gives the vector of "[CLS] [SEP]".
  virtual Result<std::vector<float>> Embed(std::span<const std::string> texts) = 0;

  virtual int32_t dimension() const = 0;
  // Names model, weights and settings that change vectors: stored with a collection, which may be
  // searched only by the embedder that made it.
  virtual const std::string& identity() const = 0;
  virtual size_t weight_bytes() const = 0;  // resident
};

}  // namespace kvasir
