#include "service/ingest_pipeline.h"

#include <algorithm>
#include <chrono>
#include <filesystem>

#include "retrieval/chunker.h"
#include "retrieval/content_digest.h"

namespace kvasir {
namespace {

using Clock = std::chrono::steady_clock;

double SecondsSince(Clock::time_point begin) {
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

Result<IngestInput> ReadInput(const std::string& path) {
  IngestInput input;
  input.source = path;
  KVASIR_ASSIGN_OR_RETURN(input.bytes, ReadFileBytes(path));
  return input;
}

// What a caller chose over what is there or configured.
Status Apply(const Runtime& runtime, const CollectionChoice& choice, Encoding* encoding) {
  if (choice.condition && *choice.condition != encoding->condition) {
    encoding->condition = *choice.condition;
    if (!HasPrimer(encoding->condition)) encoding->primer.clear();
    if (HasPrimer(encoding->condition) && encoding->primer.empty()) {
      encoding->primer = runtime.configured_primer();
    }
  }
  if (!choice.primer) return Status::Ok();
  if (!HasPrimer(encoding->condition)) {
    return InvalidArgument(
        "a primer goes with the ingestion conditions fixed, own and neighbour, "
        "not with '" +
        std::string(IngestionName(encoding->condition)) + "'");
  }
  KVASIR_ASSIGN_OR_RETURN(encoding->primer, RenderPrimer(runtime.chat_template(), *choice.primer));
  return Status::Ok();
}

std::string NameOf(const IngestInput& input) {
  if (!input.source.empty()) return input.source;
  return input.id.empty() ? "document" : input.id;
}

}  // namespace

double IngestProgress::Eta() const {
  if (counting) return -1;
  if (tokens_to_compute <= tokens_computed) return documents_done == documents_total ? 0 : -1;
  const double rate = TokensPerSecond();
  return rate > 0 ? static_cast<double>(tokens_to_compute - tokens_computed) / rate : -1;
}

double IngestProgress::Share() const {
  if (tokens_to_compute > 0) {
    return std::min(1.0,
                    static_cast<double>(tokens_computed) / static_cast<double>(tokens_to_compute));
  }
  if (documents_total == 0) return 0;
  return static_cast<double>(documents_done) / static_cast<double>(documents_total);
}

Result<std::vector<int32_t>> IngestPipeline::AnchorOf(const std::string& system_text) const {
  // The anchor ends before the user's text, so any text will do.
  KVASIR_ASSIGN_OR_RETURN(
      const ChatPrompt prompt,
      runtime_.chat_template().Render({{"user", "?"}}, /*with_documents=*/true, system_text));
  return prompt.anchor;
}

Result<Collection> IngestPipeline::OpenCollection(const std::string& name,
                                                  const CollectionChoice& choice) {
  const Result<Collection> known = runtime_.documents().GetCollection(name);
  if (!known.ok() && known.status().code() != StatusCode::kNotFound) return known.status();
  Encoding encoding = runtime_.encoding();
  if (known.ok()) {
    KVASIR_ASSIGN_OR_RETURN(encoding, EncodingOf(*known));
  }
  KVASIR_RETURN_IF_ERROR(Apply(runtime_, choice, &encoding));
  Collection wanted;
  wanted.name = name;
  wanted.model_digest = runtime_.model().digest;
  wanted.system_text = known.ok() ? known->system_text : runtime_.config().collection_system;
  wanted.ingestion = IngestionName(encoding.condition);
  wanted.primer = encoding.primer;
  KVASIR_ASSIGN_OR_RETURN(Retriever * retriever, runtime_.retrieval());
  return retriever->EnsureCollection(wanted);
}

Result<IngestPipeline::Place> IngestPipeline::PlaceOf(const Collection& collection) const {
  Place place;
  place.collection = collection.name;
  KVASIR_ASSIGN_OR_RETURN(place.anchor, AnchorOf(collection.system_text));
  KVASIR_ASSIGN_OR_RETURN(place.encoding, EncodingOf(collection));
  return place;
}

ChunkToMake IngestPipeline::ToMake(const Place& place,
                                   const std::vector<int32_t>& token_ids) const {
  return {token_ids, place.encoding.Context(place.anchor), /*keep_primer=*/true};
}

bool IngestPipeline::HasKv(const Place& place, const ChunkToMake& chunk) const {
  const ChunkKey key = runtime_.KeyOf(place.collection, chunk.context, chunk.token_ids);
  return runtime_.cache().Contains(key, chunk.token_ids) != std::nullopt;
}

Result<std::vector<NewChunk>> IngestPipeline::ChunksOf(const std::string& name,
                                                       const IngestInput& input,
                                                       std::string* title) const {
  KVASIR_ASSIGN_OR_RETURN(ParsedDocument document, ParseDocument(name, input.bytes, input.format));
  if (!input.title.empty()) document.title = input.title;
  *title = document.title;
  const ChatTemplate& chat = runtime_.chat_template();
  ChunkerOptions options;
  options.target_tokens = static_cast<int32_t>(runtime_.config().chunk_tokens);
  const ChunkTokenCounter count = [&chat](std::string_view head,
                                          std::string_view text) -> Result<int32_t> {
    KVASIR_ASSIGN_OR_RETURN(const std::vector<int32_t> ids, chat.RenderDocument(head, text));
    return static_cast<int32_t>(ids.size());
  };
  KVASIR_ASSIGN_OR_RETURN(std::vector<ChunkText> texts, ChunkDocument(document, options, count));
  std::vector<NewChunk> chunks;
  for (ChunkText& text : texts) {
    NewChunk chunk;
    KVASIR_ASSIGN_OR_RETURN(chunk.token_ids, chat.RenderDocument(text.title, text.text));
    chunk.title = std::move(text.title);
    chunk.text = std::move(text.text);
    chunks.push_back(std::move(chunk));
  }
  return chunks;
}

Status IngestPipeline::PutDocument(const Place& place, const IngestInput& input,
                                   const std::string& digest, IngestOutcome* outcome) {
  NewDocument document;
  document.id = outcome->id;
  document.collection = place.collection;
  document.source = input.source;
  document.content_digest = digest;
  document.metadata = input.metadata;
  KVASIR_ASSIGN_OR_RETURN(document.chunks, ChunksOf(NameOf(input), input, &document.title));
  std::vector<Chunk> before;
  if (!document.id.empty()) {
    if (auto chunks = runtime_.documents().GetChunks(document.id); chunks.ok()) before = *chunks;
  }
  KVASIR_ASSIGN_OR_RETURN(Retriever * retriever, runtime_.retrieval());
  KVASIR_ASSIGN_OR_RETURN(const PutOutcome put, retriever->Put(std::move(document)));
  outcome->id = put.id;
  outcome->version = put.version;
  if (!put.unchanged) RemoveKv(place, before);
  return Status::Ok();
}

Status IngestPipeline::PrefillMissing(const Place& place, IngestOutcome* outcome,
                                      const std::function<void(const IngestOutcome&)>& chunk_done) {
  KVASIR_ASSIGN_OR_RETURN(const std::vector<Chunk> chunks,
                          runtime_.documents().GetChunks(outcome->id));
  std::vector<ChunkToMake> missing;
  for (const Chunk& chunk : chunks) {
    outcome->tokens += static_cast<int64_t>(chunk.token_ids.size());
    ++outcome->chunks;
    ChunkToMake wanted = ToMake(place, chunk.token_ids);
    if (!HasKv(place, wanted)) missing.push_back(std::move(wanted));
  }
  if (missing.empty()) return Status::Ok();
  KVASIR_ASSIGN_OR_RETURN(const FrontKv anchor,
                          prefill_.Anchor(place.collection, place.anchor, true));
  return prefill_.Make(place.collection, anchor, missing, /*persist=*/true, /*require_disk=*/true,
                       [&](size_t index, const Status& status) {
                         if (!status.ok()) return;
                         ++outcome->chunks_computed;
                         outcome->tokens_computed +=
                             static_cast<int64_t>(missing[index].token_ids.size());
                         if (chunk_done) chunk_done(*outcome);
                       });
}

Result<IngestOutcome> IngestPipeline::Identify(const std::string& collection,
                                               const IngestInput& input,
                                               std::string* digest) const {
  std::string metadata;
  for (const auto& [name, value] : input.metadata) metadata += ContentDigest({name, value});
  *digest =
      ContentDigest({input.bytes, input.title, input.source, metadata,
                     std::to_string(static_cast<int>(input.format)),
                     std::to_string(runtime_.config().chunk_tokens), runtime_.model().digest});
  IngestOutcome outcome;
  outcome.id = input.id.empty() ? input.source : input.id;
  if (!outcome.id.empty()) {
    KVASIR_ASSIGN_OR_RETURN(outcome.unchanged,
                            runtime_.documents().IsUnchanged(outcome.id, *digest));
  }
  if (outcome.unchanged) {
    KVASIR_ASSIGN_OR_RETURN(const Document document, runtime_.documents().Get(outcome.id));
    outcome.unchanged = document.collection == collection;
    outcome.version = document.version;
  }
  return outcome;
}

Result<IngestOutcome> IngestPipeline::IngestOne(
    const std::string& collection, const IngestInput& input,
    const std::function<void(const IngestOutcome&)>& chunk_done) {
  KVASIR_ASSIGN_OR_RETURN(const Collection stored, OpenCollection(collection));
  KVASIR_ASSIGN_OR_RETURN(const Place place, PlaceOf(stored));
  std::string digest;
  KVASIR_ASSIGN_OR_RETURN(IngestOutcome outcome, Identify(collection, input, &digest));
  if (!outcome.unchanged) {
    KVASIR_RETURN_IF_ERROR(PutDocument(place, input, digest, &outcome));
  }
  KVASIR_RETURN_IF_ERROR(PrefillMissing(place, &outcome, chunk_done));
  return outcome;
}

Result<int64_t> IngestPipeline::TokensToCompute(const Place& place, const std::string& path) const {
  KVASIR_ASSIGN_OR_RETURN(const IngestInput input, ReadInput(path));
  std::string digest, title;
  KVASIR_ASSIGN_OR_RETURN(const IngestOutcome known, Identify(place.collection, input, &digest));
  std::vector<std::vector<int32_t>> chunks;
  if (known.unchanged) {
    KVASIR_ASSIGN_OR_RETURN(std::vector<Chunk> stored, runtime_.documents().GetChunks(known.id));
    for (Chunk& chunk : stored) chunks.push_back(std::move(chunk.token_ids));
  } else {
    KVASIR_ASSIGN_OR_RETURN(std::vector<NewChunk> made, ChunksOf(path, input, &title));
    for (NewChunk& chunk : made) chunks.push_back(std::move(chunk.token_ids));
  }
  int64_t tokens = 0;
  for (const std::vector<int32_t>& ids : chunks) {
    if (!HasKv(place, ToMake(place, ids))) tokens += static_cast<int64_t>(ids.size());
  }
  return tokens;
}

std::vector<int64_t> IngestPipeline::CountFiles(const std::string& collection,
                                                const std::vector<std::string>& paths,
                                                const ProgressSink& progress) {
  std::vector<int64_t> counts(paths.size(), 0);
  const auto stored = OpenCollection(collection);
  const auto place = stored.ok() ? PlaceOf(*stored) : Result<Place>(stored.status());
  if (!place.ok()) return counts;  // the first document says why
  IngestProgress state;
  state.counting = true;
  state.documents_total = paths.size();
  for (size_t i = 0; i < paths.size(); ++i) {
    state.current = paths[i];
    if (progress) progress(state);
    const Result<int64_t> tokens = TokensToCompute(*place, paths[i]);
    counts[i] = tokens.ok() ? *tokens : 0;
    ++state.documents_done;
  }
  return counts;
}

IngestReport IngestPipeline::IngestFiles(const std::string& collection,
                                         const std::vector<std::string>& paths, bool strict,
                                         const ProgressSink& progress) {
  const auto begin = Clock::now();
  IngestReport report;
  IngestProgress state;
  state.documents_total = paths.size();
  const std::vector<int64_t> counts = CountFiles(collection, paths, progress);
  for (const int64_t count : counts) state.tokens_to_compute += count;
  const auto begin_storing = Clock::now();
  auto tell = [&](const IngestOutcome& outcome) {
    state.seconds = SecondsSince(begin_storing);
    IngestProgress shown = state;
    shown.tokens_computed += outcome.tokens_computed;
    if (progress) progress(shown);
  };
  for (size_t i = 0; i < paths.size(); ++i) {
    state.current = paths[i];
    tell({});
    const Result<IngestInput> input = ReadInput(paths[i]);
    const Result<IngestOutcome> outcome =
        input.ok() ? IngestOne(collection, *input, tell) : Result<IngestOutcome>(input.status());
    ++state.documents_done;
    // What was counted and not computed is no work left: a failure, or a chunk that is here twice.
    state.tokens_to_compute += (outcome.ok() ? outcome->tokens_computed : 0) - counts[i];
    if (!outcome.ok()) {
      report.failures.push_back({paths[i], outcome.status().message()});
      if (strict) break;
      continue;
    }
    ++report.documents;
    report.unchanged += outcome->unchanged ? 1 : 0;
    report.chunks += outcome->chunks;
    report.tokens += outcome->tokens;
    report.chunks_computed += outcome->chunks_computed;
    report.tokens_computed += outcome->tokens_computed;
    state.chunks = report.chunks;
    state.tokens = report.tokens;
    state.tokens_computed = report.tokens_computed;
  }
  state.current.clear();
  tell({});
  report.seconds = SecondsSince(begin);
  return report;
}

DryRunReport IngestPipeline::DryRun(const std::vector<std::string>& paths) {
  DryRunReport report;
  const ModelConfig& model = runtime_.model().config;
  for (const std::string& path : paths) {
    IngestInput input;
    std::string title;
    Result<std::string> bytes = ReadFileBytes(path);
    if (bytes.ok()) input.bytes = std::move(*bytes);
    const auto chunks =
        bytes.ok() ? ChunksOf(path, input, &title) : Result<std::vector<NewChunk>>(bytes.status());
    if (!chunks.ok()) {
      report.failures.push_back({path, chunks.status().message()});
      continue;
    }
    ++report.documents;
    for (const NewChunk& chunk : *chunks) {
      const auto tokens = static_cast<int32_t>(chunk.token_ids.size());
      ++report.chunks;
      report.tokens += tokens;
      ChunkShape shape{model.layers, tokens, model.kv_heads, model.head_dim, KvCodec::kInt8};
      report.kv_bytes_int8 += EncodedBytes(shape);
      shape.codec = KvCodec::kInt4;
      report.kv_bytes_int4 += EncodedBytes(shape);
      shape.codec = KvCodec::kF16;
      report.kv_bytes_fp16 += EncodedBytes(shape);
    }
  }
  return report;
}

void IngestPipeline::RemoveKv(const Place& place, const std::vector<Chunk>& chunks) {
  for (const Chunk& chunk : chunks) {
    const ChunkToMake made = ToMake(place, chunk.token_ids);
    const ChunkKey key = runtime_.KeyOf(place.collection, made.context, made.token_ids);
    // A failed removal leaves unreachable bytes, never a wrong answer: keys name the text itself.
    const Result<bool> removed = runtime_.cache().Remove(key);
    if (removed.ok()) runtime_.statistics().Forget(key);
  }
}

Status IngestPipeline::Delete(const std::string& id) {
  KVASIR_ASSIGN_OR_RETURN(const Document document, runtime_.documents().Get(id));
  KVASIR_ASSIGN_OR_RETURN(const Collection collection,
                          runtime_.documents().GetCollection(document.collection));
  KVASIR_ASSIGN_OR_RETURN(const Place place, PlaceOf(collection));
  KVASIR_ASSIGN_OR_RETURN(const std::vector<Chunk> chunks, runtime_.documents().GetChunks(id));
  KVASIR_ASSIGN_OR_RETURN(Retriever * retriever, runtime_.retrieval());
  KVASIR_RETURN_IF_ERROR(retriever->Delete(id).status());
  RemoveKv(place, chunks);
  return Status::Ok();
}

Result<std::vector<std::string>> ListFiles(const std::vector<std::string>& paths) {
  namespace fs = std::filesystem;
  std::vector<std::string> files;
  for (const std::string& path : paths) {
    std::error_code error;
    if (!fs::is_directory(path, error)) {
      files.push_back(path);  // a missing file is reported when it is read
      continue;
    }
    std::vector<std::string> found;
    fs::recursive_directory_iterator it(path, fs::directory_options::skip_permission_denied, error);
    for (const fs::recursive_directory_iterator end; !error && it != end; it.increment(error)) {
      const bool hidden = it->path().filename().string().starts_with('.');
      if (hidden && it->is_directory()) it.disable_recursion_pending();
      if (!hidden && it->is_regular_file()) found.push_back(it->path().string());
    }
    if (error) return InvalidArgument(path + ": " + error.message());
    std::sort(found.begin(), found.end());
    files.insert(files.end(), found.begin(), found.end());
  }
  return files;
}

}  // namespace kvasir
