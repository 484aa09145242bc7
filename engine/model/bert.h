// Bert: the encoder of sentence embedders (model type "bert", absolute positions), on Backend
// operators.
//
// Thread safety: Encode from one thread at a time, as its backend asks. Must not outlive the
// backend it was loaded for. Files are hostile input: shapes, counts and dtypes are checked.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "engine/model/forward.h"
#include "kernels/core/backend.h"
#include "kernels/core/status.h"

namespace kvasir {

struct BertConfig {
  int32_t layers = 0;     // L
  int32_t width = 0;      // E
  int32_t heads = 0;      // H
  int32_t ffn_width = 0;  // F
  int32_t vocab = 0;      // V
  int32_t positions = 0;  // longest sequence
  int32_t types = 0;      // token types; type 0 is used
  float norm_eps = 1e-12f;

  int32_t head_dim() const { return width / heads; }
};

// The fields of a Hugging Face config.json that matter; kUnimplemented names a model type,
// activation or position kind that is not supported, kInvalidArgument a bad value. `name` is used
// in messages.
Result<BertConfig> ParseBertConfig(std::string_view json, const std::string& name);

class Bert {
 public:
  // Reads folder/config.json and folder/model.safetensors (F32, F16 or BF16 tensors).
  static Result<std::unique_ptr<Bert>> Load(const std::string& folder, Backend& backend);
  ~Bert();

  const BertConfig& config() const;
  const std::string& digest() const;  // 32 hex digits over the config and the weights' bytes
  size_t weight_bytes() const;        // resident

  // Last hidden states of several sequences: host [T][E], sequences one after the other, T = the
  // sum of their lengths. A sequence attends to all of itself and to nothing else. Each needs 1 to
  // config().positions ids, each id in [0, vocab): else kInvalidArgument.
  Status Encode(std::span<const std::vector<int32_t>> sequences, std::vector<float>* hidden);

 private:
  struct State;
  explicit Bert(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace kvasir
