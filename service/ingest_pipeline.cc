#include "service/ingest_pipeline.h"

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <set>
#include <utility>

#include "retrieval/chunker.h"
#include "retrieval/content_digest.h"
#include "service/primer_choice.h"

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
  KVASIR_ASSIGN_OR_RETURN(encoding->primer,
                          RenderPrimer(runtime.chat_template(), *choice.primer,
                                       PrimerLimit(runtime.config().collection_primer_tokens,
                                                   runtime.engine().max_context())));
  return Status::Ok();
}

// Without the blank lines that part a primer's passages.
std::string OneParagraph(const std::string& text) {
  std::string paragraph;
  for (const char c : text) {
    if (c != '\n' || paragraph.empty() || paragraph.back() != '\n') paragraph += c;
  }
  return paragraph;
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
  KVASIR_RETURN_IF_ERROR(CheckNeighbourAccess(
      encoding, name, runtime_.config().server_api_keys.size(), /*salted=*/false));
  Collection wanted;
  wanted.name = name;
  wanted.model_digest = runtime_.model().digest;
  wanted.system_text = known.ok() ? known->system_text : runtime_.config().collection_system;
  wanted.ingestion = IngestionName(encoding.condition);
  wanted.primer = encoding.primer;
  wanted.codec = known.ok() ? known->codec : std::string(KvCodecName(runtime_.codec()));
  KVASIR_ASSIGN_OR_RETURN(Retriever * retriever, runtime_.retrieval());
  return retriever->EnsureCollection(wanted);
}

bool IngestPipeline::HasCollection(const std::string& name) const {
  return runtime_.documents().GetCollection(name).ok();
}

Result<std::string> IngestPipeline::ChoosePrimer(const std::vector<IngestInput>& documents) const {
  const bool salted = std::any_of(documents.begin(), documents.end(), [](const IngestInput& input) {
    return !input.cache_salt.empty();
  });
  if (salted || runtime_.config().server_api_keys.size() > 1) {
    return FailedPrecondition(
        "a primer chosen from documents stands before every chunk of the collection, and with "
        "cache_salt or several server.api_keys not all who use it may read them: give a primer's "
        "text instead, or leave choose_primer out");
  }
  std::vector<PrimerCandidate> all, candidates;
  for (size_t i = 0; i < documents.size(); ++i) {
    std::string title;
    const auto chunks = ChunksOf(NameOf(documents[i]), documents[i], &title);
    if (!chunks.ok()) continue;  // ingesting it says why
    for (const NewChunk& chunk : *chunks) all.push_back({i, chunk.text, {}});
  }
  if (all.empty()) {
    return InvalidArgument(
        "there is no text to choose a primer from: name documents with text, "
        "or give a primer");
  }
  KVASIR_ASSIGN_OR_RETURN(Embedder * embedder, runtime_.embedder());
  const size_t step = (all.size() + kPrimerCandidates - 1) / kPrimerCandidates;
  for (size_t i = 0; i < all.size(); i += step) {
    KVASIR_ASSIGN_OR_RETURN(all[i].vector,
                            embedder->Embed(std::span<const std::string>(&all[i].text, 1)));
    candidates.push_back(std::move(all[i]));
  }
  std::string text;
  for (const size_t index : TypicalPassages(candidates, kPrimerPassages)) {
    if (!text.empty()) text.append("\n\n");
    text.append(OneParagraph(candidates[index].text));
  }
  return text;
}

Result<std::string> IngestPipeline::ChoosePrimerOf(const std::vector<std::string>& paths) const {
  std::vector<IngestInput> documents;
  for (const std::string& path : paths) {
    Result<IngestInput> input = ReadInput(path);
    if (input.ok()) documents.push_back(std::move(*input));
  }
  return ChoosePrimer(documents);
}

Result<CollectionContext> IngestPipeline::ContextOf(const Collection& collection) const {
  CollectionContext context;
  context.name = collection.name;
  KVASIR_ASSIGN_OR_RETURN(context.anchor, AnchorOf(collection.system_text));
  KVASIR_ASSIGN_OR_RETURN(context.encoding, EncodingOf(collection));
  return context;
}

Result<CollectionContext> IngestPipeline::OpenContext(const std::string& name) {
  KVASIR_ASSIGN_OR_RETURN(const Collection collection, OpenCollection(name));
  return ContextOf(collection);
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

Status IngestPipeline::PutDocument(const CollectionContext& collection, const IngestInput& input,
                                   const std::string& digest, IngestOutcome* outcome) {
  NewDocument document;
  document.id = outcome->id;
  document.collection = collection.name;
  document.source = input.source;
  document.content_digest = digest;
  document.metadata = input.metadata;
  KVASIR_ASSIGN_OR_RETURN(document.chunks, ChunksOf(NameOf(input), input, &document.title));
  std::set<std::vector<int32_t>> texts;
  for (NewChunk& chunk : document.chunks) {
    chunk.behind_previous = collection.encoding.condition == IngestionCondition::kPrimerOwn;
    texts.insert(chunk.token_ids);
  }
  KVASIR_ASSIGN_OR_RETURN(Retriever * retriever, runtime_.retrieval());
  KvUpkeep::Parting parting;
  if (!document.id.empty()) {
    KVASIR_ASSIGN_OR_RETURN(parting, upkeep_.Begin(collection, document.id, texts));
  }
  KVASIR_ASSIGN_OR_RETURN(const PutOutcome put, retriever->Put(std::move(document)));
  outcome->id = put.id;
  outcome->version = put.version;
  if (!put.unchanged) upkeep_.End(collection, parting, put.id);
  return Status::Ok();
}

Status IngestPipeline::PrefillMissing(const CollectionContext& collection, IngestOutcome* outcome,
                                      const std::function<void(const IngestOutcome&)>& chunk_done) {
  KVASIR_RETURN_IF_ERROR(upkeep_.ChooseNeighbours(collection, outcome->id));
  KVASIR_ASSIGN_OR_RETURN(const std::vector<Chunk> chunks,
                          runtime_.documents().GetChunks(outcome->id));
  for (const Chunk& chunk : chunks) {
    outcome->tokens += static_cast<int64_t>(chunk.token_ids.size());
    ++outcome->chunks;
  }
  return prefill_.MakeStored(
      collection, chunks, /*require_disk=*/true, [&](const ChunkToMake& made) {
        ++outcome->chunks_computed;
        outcome->tokens_computed += static_cast<int64_t>(made.token_ids.size());
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

Result<IngestOutcome> IngestPipeline::StoreText(const CollectionContext& collection,
                                                const IngestInput& input) {
  KVASIR_RETURN_IF_ERROR(CheckNeighbourAccess(collection.encoding, collection.name,
                                              runtime_.config().server_api_keys.size(),
                                              !input.cache_salt.empty()));
  std::string digest;
  KVASIR_ASSIGN_OR_RETURN(IngestOutcome outcome, Identify(collection.name, input, &digest));
  if (!outcome.unchanged) {
    KVASIR_RETURN_IF_ERROR(PutDocument(collection, input, digest, &outcome));
  }
  return outcome;
}

Result<IngestOutcome> IngestPipeline::IngestOne(
    const std::string& collection, const IngestInput& input,
    const std::function<void(const IngestOutcome&)>& chunk_done) {
  KVASIR_ASSIGN_OR_RETURN(const CollectionContext context, OpenContext(collection));
  KVASIR_ASSIGN_OR_RETURN(IngestOutcome outcome, StoreText(context, input));
  KVASIR_RETURN_IF_ERROR(PrefillMissing(context, &outcome, chunk_done));
  return outcome;
}

Result<IngestOutcome> IngestPipeline::IngestFile(
    const std::string& collection, const std::string& path,
    const std::function<void(const IngestOutcome&)>& chunk_done) {
  KVASIR_ASSIGN_OR_RETURN(const IngestInput input, ReadInput(path));
  return IngestOne(collection, input, chunk_done);
}

Result<IngestOutcome> IngestPipeline::Encode(
    const CollectionContext& collection, Result<IngestOutcome> stored,
    const std::function<void(const IngestOutcome&)>& chunk_done) {
  if (!stored.ok()) return stored;
  KVASIR_RETURN_IF_ERROR(PrefillMissing(collection, &*stored, chunk_done));
  return stored;
}

std::vector<Result<IngestOutcome>> IngestPipeline::StoreTexts(const CollectionContext& collection,
                                                              const std::vector<std::string>& paths,
                                                              bool strict) {
  std::vector<Result<IngestOutcome>> stored;
  for (const std::string& path : paths) {
    const Result<IngestInput> input = ReadInput(path);
    stored.push_back(input.ok() ? StoreText(collection, *input)
                                : Result<IngestOutcome>(input.status()));
    if (strict && !stored.back().ok()) break;
  }
  upkeep_.Heal(collection);
  return stored;
}

Result<int64_t> IngestPipeline::TokensToCompute(const CollectionContext& collection,
                                                const std::string& path) const {
  KVASIR_ASSIGN_OR_RETURN(const IngestInput input, ReadInput(path));
  std::string digest, title;
  KVASIR_ASSIGN_OR_RETURN(const IngestOutcome known, Identify(collection.name, input, &digest));
  std::vector<ChunkToMake> chunks;
  if (known.unchanged) {
    KVASIR_ASSIGN_OR_RETURN(const auto stored, runtime_.documents().GetChunks(known.id));
    for (const Chunk& chunk : stored) {
      chunks.push_back(StoredChunk(runtime_.documents(), collection, chunk));
    }
  } else {
    KVASIR_ASSIGN_OR_RETURN(const std::vector<NewChunk> made, ChunksOf(path, input, &title));
    std::vector<int32_t> before;  // in the document
    for (const NewChunk& chunk : made) {
      chunks.push_back(
          {chunk.token_ids, collection.encoding.Context(collection.anchor, before), false});
      if (collection.encoding.condition == IngestionCondition::kPrimerOwn) before = chunk.token_ids;
    }
  }
  int64_t tokens = 0;
  for (const ChunkToMake& chunk : chunks) {
    if (!prefill_.IsStored(collection, chunk))
      tokens += static_cast<int64_t>(chunk.token_ids.size());
  }
  return tokens;
}

std::vector<int64_t> IngestPipeline::CountFiles(const std::string& collection,
                                                const std::vector<std::string>& paths,
                                                const ProgressSink& progress) {
  std::vector<int64_t> counts(paths.size(), 0);
  const Result<CollectionContext> context = OpenContext(collection);
  if (!context.ok()) return counts;  // the first document says why
  IngestProgress state;
  state.counting = true;
  state.documents_total = paths.size();
  for (size_t i = 0; i < paths.size(); ++i) {
    state.current = paths[i];
    if (progress) progress(state);
    const Result<int64_t> tokens = TokensToCompute(*context, paths[i]);
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
  const Result<CollectionContext> context = OpenContext(collection);
  std::vector<Result<IngestOutcome>> stored;
  if (context.ok() && context->encoding.condition == IngestionCondition::kPrimerNeighbour) {
    stored = StoreTexts(*context, paths, strict);
  }
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
    const Result<IngestOutcome> outcome = i < stored.size()
                                              ? Encode(*context, std::move(stored[i]), tell)
                                              : IngestFile(collection, paths[i], tell);
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

Status IngestPipeline::Delete(const std::string& id) {
  KVASIR_ASSIGN_OR_RETURN(const Document document, runtime_.documents().Get(id));
  KVASIR_ASSIGN_OR_RETURN(const Collection collection,
                          runtime_.documents().GetCollection(document.collection));
  KVASIR_ASSIGN_OR_RETURN(const CollectionContext context, ContextOf(collection));
  KVASIR_ASSIGN_OR_RETURN(Retriever * retriever, runtime_.retrieval());
  KVASIR_ASSIGN_OR_RETURN(const KvUpkeep::Parting parting, upkeep_.Begin(context, id, {}));
  KVASIR_RETURN_IF_ERROR(retriever->Delete(id).status());
  upkeep_.End(context, parting, id);
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
