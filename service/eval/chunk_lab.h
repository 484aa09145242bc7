// ChunkLab: chunk KV under any ingestion condition and codec, made for one question and thrown
// away. The same passes, codecs and loads as ingestion and request time, without the store, so that
// an evaluation leaves no trace there.
//
// Conditions are those of service/encoding.h and `in_place`: the exact KV of the whole prompt, cut
// at the chunks and put through the codec (what the codec alone costs). One question at a time; not
// thread-safe.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "service/encoding.h"
#include "service/eval/eval_prompt.h"
#include "service/runtime.h"

namespace kvasir {

inline constexpr char kInPlace[] = "in_place";

struct LabChunks {
  std::shared_ptr<const KvBlocks> anchor;               // null if the anchor is empty
  std::vector<std::shared_ptr<const KvBlocks>> chunks;  // one a chunk of the prompt
  double load_ms = 0;                                   // records to pool
};

class ChunkLab {
 public:
  explicit ChunkLab(Runtime& runtime) : runtime_(runtime) {}

  // Whether a question's chunks can be encoded so; kInvalidArgument says why not.
  Status Check(const std::string& ingestion, const EvalPrompt& prompt) const;
  Result<LabChunks> Make(const EvalPrompt& prompt, const std::string& ingestion, KvCodec codec);
  // Texts that may stand as neighbours: those of all questions. Embedded at first use.
  void SetCorpus(std::vector<EvalChunk> corpus) { corpus_ = std::move(corpus); }
  // The question is done: captured KV goes.
  void Clear() { captures_.clear(); }

 private:
  using Captures = std::vector<std::shared_ptr<KvCapture>>;

  Result<std::shared_ptr<KvCapture>> Capture(const std::vector<int32_t>& front,
                                             const std::vector<int32_t>& chunk);
  Result<std::shared_ptr<const KvBlocks>> Front(const std::vector<int32_t>& ids);
  Result<std::shared_ptr<const KvBlocks>> Load(const KvCapture& capture, KvCodec codec,
                                               double* load_ms);
  Result<Captures> CaptureAll(const EvalPrompt& prompt, const std::string& ingestion);
  Result<Captures> CaptureInPlace(const EvalPrompt& prompt);
  Result<std::vector<int32_t>> FrontOf(const EvalPrompt& prompt, const EvalChunk& chunk,
                                       const std::string& ingestion);
  Result<std::vector<int32_t>> NeighbourOf(const EvalChunk& chunk);
  Result<std::vector<float>> VectorOf(const std::string& text);

  Runtime& runtime_;
  std::map<std::string, Captures> captures_;  // of the question at hand, by condition
  std::vector<int32_t> front_ids_;
  std::shared_ptr<const KvBlocks> front_;  // of front_ids_
  std::vector<EvalChunk> corpus_;
  std::vector<float> corpus_vectors_;  // [corpus][dimension]
};

}  // namespace kvasir
