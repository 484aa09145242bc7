#include "service/eval/chunk_lab.h"

#include <algorithm>
#include <chrono>
#include <span>

#include "cache/kv_codec.h"
#include "service/elapsed.h"
#include "service/engine_call.h"

namespace kvasir {
namespace {

std::vector<int32_t> Join(const std::vector<int32_t>& a, const std::vector<int32_t>& b) {
  std::vector<int32_t> all = a;
  all.insert(all.end(), b.begin(), b.end());
  return all;
}

// Tokens [begin, begin + tokens) of a capture as one of its own.
std::shared_ptr<KvCapture> Slice(const KvCapture& whole, size_t begin, int32_t tokens) {
  auto part = std::make_shared<KvCapture>(
      KvCapture::For({whole.layers, whole.kv_heads, whole.head_dim, DType::kF32}, tokens));
  const auto width = static_cast<size_t>(whole.kv_heads) * static_cast<size_t>(whole.head_dim);
  for (size_t layer = 0; layer < static_cast<size_t>(whole.layers); ++layer) {
    const size_t from = layer * whole.LayerStride() + begin * width;
    const size_t to = layer * part->LayerStride();
    std::copy_n(whole.k.begin() + std::ptrdiff_t(from), part->LayerStride(),
                part->k.begin() + std::ptrdiff_t(to));
    std::copy_n(whole.v.begin() + std::ptrdiff_t(from), part->LayerStride(),
                part->v.begin() + std::ptrdiff_t(to));
  }
  return part;
}

float Dot(std::span<const float> a, std::span<const float> b) {
  float sum = 0;
  for (size_t i = 0; i < a.size(); ++i) sum += a[i] * b[i];
  return sum;
}

}  // namespace

Status ChunkLab::Check(const std::string& ingestion, const EvalPrompt& prompt) const {
  if (ingestion == kInPlace) return Status::Ok();
  KVASIR_ASSIGN_OR_RETURN(const IngestionCondition condition, ParseIngestion(ingestion));
  if (condition != IngestionCondition::kPrimerOwn) return Status::Ok();
  const bool known = std::any_of(prompt.chunks.begin(), prompt.chunks.end(), [](const auto& chunk) {
    return !chunk.before_in_document.empty();
  });
  if (known) return Status::Ok();
  return InvalidArgument(
      "ingestion own: the documents of a questions file have no parts before them; leave "
      "`documents` out and search a collection");
}

Result<std::shared_ptr<const KvBlocks>> ChunkLab::Front(const std::vector<int32_t>& ids) {
  if (ids == front_ids_) return front_;
  front_.reset();
  front_ids_.clear();
  KVASIR_ASSIGN_OR_RETURN(const auto capture, Capture({}, ids));
  double ignored = 0;
  KVASIR_ASSIGN_OR_RETURN(front_, Load(*capture, KvCodec::kF16, &ignored));
  front_ids_ = ids;
  return front_;
}

Result<std::shared_ptr<KvCapture>> ChunkLab::Capture(const std::vector<int32_t>& front,
                                                     const std::vector<int32_t>& chunk) {
  Request request;
  if (!front.empty()) {
    SegmentPlan segment;
    segment.token_ids = front;
    KVASIR_ASSIGN_OR_RETURN(segment.blocks, Front(front));
    segment.reuse = ReuseKind::kPrefix;
    request.prompt.segments.push_back(std::move(segment));
  }
  SegmentPlan segment;
  segment.token_ids = chunk;
  request.prompt.segments.push_back(std::move(segment));
  request.max_tokens = 0;
  request.capture = std::make_shared<KvCapture>();
  std::shared_ptr<KvCapture> capture = request.capture;
  KVASIR_RETURN_IF_ERROR(RunToEnd(runtime_.engine(), std::move(request)).status());
  return capture;
}

Result<std::shared_ptr<const KvBlocks>> ChunkLab::Load(const KvCapture& capture, KvCodec codec,
                                                       double* load_ms) {
  KVASIR_ASSIGN_OR_RETURN(const EncodedChunk encoded, EncodeChunk(capture, codec));
  const auto begin = std::chrono::steady_clock::now();
  KVASIR_ASSIGN_OR_RETURN(const std::vector<KvLayerPlanes> planes, DecodePlanes(encoded));
  KVASIR_ASSIGN_OR_RETURN(auto blocks, runtime_.engine().LoadBlocks(planes));
  *load_ms += MillisecondsSince(begin);
  return blocks;
}

Result<std::vector<float>> ChunkLab::VectorOf(const std::string& text) {
  KVASIR_ASSIGN_OR_RETURN(Embedder * embedder, runtime_.embedder());
  return embedder->Embed(std::span<const std::string>(&text, 1));
}

Result<std::vector<int32_t>> ChunkLab::NeighbourOf(const EvalChunk& chunk) {
  if (corpus_vectors_.empty()) {
    for (const EvalChunk& other : corpus_) {
      KVASIR_ASSIGN_OR_RETURN(const std::vector<float> vector, VectorOf(other.text));
      corpus_vectors_.insert(corpus_vectors_.end(), vector.begin(), vector.end());
    }
  }
  KVASIR_ASSIGN_OR_RETURN(const std::vector<float> own, VectorOf(chunk.text));
  const EvalChunk* best = nullptr;
  float best_score = -2;
  for (size_t i = 0; i < corpus_.size(); ++i) {
    if (corpus_[i].token_ids == chunk.token_ids) continue;
    const float score =
        Dot(own, std::span<const float>(corpus_vectors_).subspan(i * own.size(), own.size()));
    if (score > best_score) best = &corpus_[i];
    best_score = std::max(best_score, score);
  }
  return best == nullptr ? std::vector<int32_t>() : best->token_ids;
}

Result<std::vector<int32_t>> ChunkLab::FrontOf(const EvalPrompt& prompt, const EvalChunk& chunk,
                                               const std::string& ingestion) {
  KVASIR_ASSIGN_OR_RETURN(const IngestionCondition condition, ParseIngestion(ingestion));
  if (condition == IngestionCondition::kBare) return std::vector<int32_t>();
  if (condition == IngestionCondition::kAnchor) return prompt.anchor;
  std::vector<int32_t> primer;
  if (condition == IngestionCondition::kPrimerOwn) primer = chunk.before_in_document;
  if (condition == IngestionCondition::kPrimerNeighbour) {
    KVASIR_ASSIGN_OR_RETURN(primer, NeighbourOf(chunk));
  }
  if (primer.empty()) primer = prompt.primer;
  return Join(prompt.anchor, primer);
}

Result<ChunkLab::Captures> ChunkLab::CaptureInPlace(const EvalPrompt& prompt) {
  KVASIR_ASSIGN_OR_RETURN(const auto whole, Capture({}, prompt.Flat().segments.front().token_ids));
  Captures captures;
  size_t at = prompt.anchor.size();
  for (const EvalChunk& chunk : prompt.chunks) {
    captures.push_back(Slice(*whole, at, static_cast<int32_t>(chunk.token_ids.size())));
    at += chunk.token_ids.size();
  }
  return captures;
}

Result<ChunkLab::Captures> ChunkLab::CaptureAll(const EvalPrompt& prompt,
                                                const std::string& ingestion) {
  if (ingestion == kInPlace) return CaptureInPlace(prompt);
  Captures captures;
  for (const EvalChunk& chunk : prompt.chunks) {
    KVASIR_ASSIGN_OR_RETURN(const std::vector<int32_t> front, FrontOf(prompt, chunk, ingestion));
    KVASIR_ASSIGN_OR_RETURN(auto capture, Capture(front, chunk.token_ids));
    captures.push_back(std::move(capture));
  }
  return captures;
}

Result<LabChunks> ChunkLab::Make(const EvalPrompt& prompt, const std::string& ingestion,
                                 KvCodec codec) {
  if (!captures_.contains(ingestion)) {
    KVASIR_ASSIGN_OR_RETURN(captures_[ingestion], CaptureAll(prompt, ingestion));
  }
  LabChunks made;
  if (!prompt.anchor.empty()) {
    KVASIR_ASSIGN_OR_RETURN(made.anchor, Front(prompt.anchor));
  }
  // As stored: KV at position 0 keeps 16 bits.
  const KvCodec stored_as =
      ingestion == IngestionName(IngestionCondition::kBare) ? KvCodec::kF16 : codec;
  for (const auto& capture : captures_[ingestion]) {
    KVASIR_ASSIGN_OR_RETURN(auto blocks, Load(*capture, stored_as, &made.load_ms));
    made.chunks.push_back(std::move(blocks));
  }
  return made;
}

}  // namespace kvasir
