#include "retrieval/embedder.h"

#include <algorithm>
#include <cmath>
#include <mutex>
#include <numeric>
#include <utility>

#include "engine/model/bert.h"
#include "engine/tokenizer/wordpiece.h"

namespace kvasir {
namespace {

// Mean of `rows` vectors, then length 1. Summed in double: the order of rows is fixed.
void PoolMean(const float* hidden, size_t rows, size_t width, float* out) {
  std::vector<double> sum(width, 0.0);
  for (size_t row = 0; row < rows; ++row) {
    for (size_t i = 0; i < width; ++i) sum[i] += hidden[row * width + i];
  }
  double square = 0;
  for (const double value : sum) square += value * value;
  const double scale = square > 0 ? 1.0 / std::sqrt(square) : 0.0;
  for (size_t i = 0; i < width; ++i) out[i] = static_cast<float>(sum[i] * scale);
}

class BertEmbedder : public Embedder {
 public:
  BertEmbedder(std::shared_ptr<Backend> backend, std::unique_ptr<Bert> bert,
               std::unique_ptr<WordPieceTokenizer> tokenizer, const EmbedderOptions& options)
      : backend_(std::move(backend)),
        bert_(std::move(bert)),
        tokenizer_(std::move(tokenizer)),
        options_(options),
        identity_("bert-mean:" + bert_->digest() + ":" + std::to_string(options.max_tokens)) {}

  int32_t dimension() const override { return bert_->config().width; }
  const std::string& identity() const override { return identity_; }
  size_t weight_bytes() const override { return bert_->weight_bytes(); }

  Result<std::vector<float>> Embed(std::span<const std::string> texts) override {
    std::vector<std::vector<int32_t>> ids;
    ids.reserve(texts.size());
    for (const std::string& text : texts) {
      KVASIR_ASSIGN_OR_RETURN(std::vector<int32_t> encoded,
                              tokenizer_->Encode(text, options_.max_tokens));
      ids.push_back(std::move(encoded));
    }
    std::vector<size_t> order(ids.size());
    std::iota(order.begin(), order.end(), size_t{0});
    std::stable_sort(order.begin(), order.end(),
                     [&](size_t a, size_t b) { return ids[a].size() < ids[b].size(); });
    std::vector<float> out(ids.size() * static_cast<size_t>(dimension()));
    for (size_t begin = 0; begin < order.size();) {
      const size_t end = BatchEnd(ids, order, begin);
      KVASIR_RETURN_IF_ERROR(RunBatch(&ids, std::span(order).subspan(begin, end - begin), &out));
      begin = end;
    }
    return out;
  }

 private:
  size_t BatchEnd(const std::vector<std::vector<int32_t>>& ids, const std::vector<size_t>& order,
                  size_t begin) const {
    size_t end = begin, rows = 0;
    while (end < order.size()) {
      rows += ids[order[end]].size();
      if (end > begin && rows > static_cast<size_t>(options_.batch_rows)) break;
      ++end;
    }
    return end;
  }

  // One forward pass; the vector of text `batch[i]` goes to its own place in *out.
  Status RunBatch(std::vector<std::vector<int32_t>>* ids, std::span<const size_t> batch,
                  std::vector<float>* out) {
    std::vector<std::vector<int32_t>> sequences;
    for (const size_t text : batch) sequences.push_back(std::move((*ids)[text]));
    const auto width = static_cast<size_t>(dimension());
    std::lock_guard lock(mutex_);
    KVASIR_RETURN_IF_ERROR(bert_->Encode(sequences, &hidden_));
    size_t row = 0;
    for (size_t i = 0; i < batch.size(); ++i) {
      PoolMean(hidden_.data() + row * width, sequences[i].size(), width,
               out->data() + batch[i] * width);
      row += sequences[i].size();
    }
    return Status::Ok();
  }

  std::shared_ptr<Backend> backend_;  // outlives bert_
  std::mutex mutex_;                  // one pass at a time: guards bert_ and hidden_
  std::unique_ptr<Bert> bert_;
  std::unique_ptr<WordPieceTokenizer> tokenizer_;
  EmbedderOptions options_;
  std::string identity_;
  std::vector<float> hidden_;
};

}  // namespace

Result<std::unique_ptr<Embedder>> Embedder::Create(const std::string& folder,
                                                   std::shared_ptr<Backend> backend,
                                                   const EmbedderOptions& options) {
  KVASIR_ASSIGN_OR_RETURN(std::unique_ptr<Bert> bert, Bert::Load(folder, *backend));
  KVASIR_ASSIGN_OR_RETURN(std::unique_ptr<WordPieceTokenizer> tokenizer,
                          WordPieceTokenizer::Load(folder + "/vocab.txt"));
  const BertConfig& config = bert->config();
  if (tokenizer->VocabularySize() != config.vocab) {
    return InvalidArgument(folder + ": vocab.txt has " +
                           std::to_string(tokenizer->VocabularySize()) +
                           " words and config.json says " + std::to_string(config.vocab));
  }
  if (options.max_tokens < 3 || options.max_tokens > config.positions || options.batch_rows < 1) {
    return InvalidArgument("embedder: max_tokens must be 3 to " + std::to_string(config.positions) +
                           " and batch_rows at least 1");
  }
  return std::unique_ptr<Embedder>(std::make_unique<BertEmbedder>(
      std::move(backend), std::move(bert), std::move(tokenizer), options));
}

}  // namespace kvasir
