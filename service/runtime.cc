#include "service/runtime.h"

#include <chrono>
#include <cmath>
#include <filesystem>
#include <string>
#include <utility>

#include "cache/fusion_policy.h"
#include "service/backend_choice.h"
#include "service/certifier.h"
#include "service/elapsed.h"
#include "service/log.h"
#include "service/paths.h"
#include "service/primer_text.h"

namespace kvasir {
namespace {

EngineOptions EngineOptionsOf(const Config& config, std::shared_ptr<const Model> draft_model) {
  EngineOptions options;
  options.pool_bytes = static_cast<size_t>(config.engine_pool_mib) << 20;
  options.kv_dtype = KvDtypeOf(config);
  options.max_sequences = static_cast<int32_t>(config.engine_max_sequences);
  options.max_waiting = static_cast<int32_t>(config.engine_max_waiting);
  const Result<ScheduleOrder> order = ParseScheduleOrder(config.engine_schedule);
  if (order.ok()) options.order = *order;  // the configuration has checked it
  options.draft_tokens = config.engine_speculation == "auto" ? kDraftWhatPays : 0;
  options.max_context = static_cast<int32_t>(config.engine_max_context);
  options.draft_model = std::move(draft_model);
  options.draft_pool_bytes = static_cast<size_t>(config.engine_draft_pool_mib) << 20;
  return options;
}

Result<RuntimeParts> LoadParts(const Config& config, std::unique_ptr<Backend> backend) {
  KVASIR_ASSIGN_OR_RETURN(const std::string path, FindModel(config));
  RuntimeParts parts;
  parts.backend = std::move(backend);
  KVASIR_ASSIGN_OR_RETURN(parts.model, LoadGgufModel(path, *parts.backend));
  if (config.engine_draft_model.empty() || config.engine_speculation == "off") return parts;
  KVASIR_ASSIGN_OR_RETURN(const std::string draft, FindDraftModel(config));
  KVASIR_ASSIGN_OR_RETURN(parts.draft_model, LoadGgufModel(draft, *parts.backend));
  return parts;
}

Result<std::unique_ptr<Runtime>> StartOn(std::unique_ptr<Backend> backend, const Config& config) {
  KVASIR_ASSIGN_OR_RETURN(RuntimeParts parts, LoadParts(config, std::move(backend)));
  return Runtime::Create(config, std::move(parts));
}

Result<std::unique_ptr<Runtime>> StartOnCpu(const Config& config) {
  KVASIR_ASSIGN_OR_RETURN(std::unique_ptr<Backend> backend, MakeCpuBackend(config));
  return StartOn(std::move(backend), config);
}

void LogPreparation(double seconds) {
  if (seconds < 1) return;
  std::string line = "timing the ways to compute the model's products took ";
  LogInfo(line.append(std::to_string(std::lround(seconds))).append(" s"));
}

Status WithRemedy(const Status& status) {
  std::string message = status.message();
  const bool memory = status.code() == StatusCode::kResourceExhausted;
  message.append(memory ? "; give the pool less (--pool-mib), or use --backend cpu"
                        : "; or use --backend cpu");
  return {status.code(), std::move(message)};
}

Result<std::unique_ptr<Runtime>> StartOnCard(const Config& config) {
  auto backend = MakeCudaBackend(config);
  if (!backend.ok()) return WithRemedy(backend.status());
  auto runtime = StartOn(std::move(*backend), config);
  if (runtime.ok() || !MayBeTheCards(runtime.status())) return runtime;
  return WithRemedy(runtime.status());
}

// A card that is there and cannot be used is worth a warning; none at all is how most machines are.
Result<std::unique_ptr<Runtime>> StartOnCardOrCpu(const Config& config) {
  auto backend = MakeCudaBackend(config);
  Status why = backend.status();
  if (backend.ok()) {
    auto runtime = StartOn(std::move(*backend), config);
    if (runtime.ok() || !MayBeTheCards(runtime.status())) return runtime;
    why = runtime.status();
  }
  const std::string line = "computing on the CPU: " + why.message();
  why.code() == StatusCode::kNotFound ? LogDebug(line) : LogWarning(line);
  return StartOnCpu(config);
}

}  // namespace

Result<std::unique_ptr<Runtime>> Runtime::Create(const Config& config) {
  const auto begin = std::chrono::steady_clock::now();
  const std::string& device = config.engine_backend;
  KVASIR_ASSIGN_OR_RETURN(std::unique_ptr<Runtime> runtime, device == "cpu" ? StartOnCpu(config)
                                                            : device == "cuda"
                                                                ? StartOnCard(config)
                                                                : StartOnCardOrCpu(config));
  runtime->start_ms_ = MillisecondsSince(begin);
  return runtime;
}

Result<std::unique_ptr<Runtime>> Runtime::Create(const Config& config, RuntimeParts parts) {
  std::unique_ptr<Runtime> runtime(new Runtime);
  runtime->config_ = config;
  KVASIR_RETURN_IF_ERROR(runtime->Build(std::move(parts)));
  return runtime;
}

Status Runtime::Build(RuntimeParts parts) {
  if (config_.cache_policy != kAutoPolicy) {
    KVASIR_RETURN_IF_ERROR(ParsePolicy(config_.cache_policy).status());
  }
  KVASIR_ASSIGN_OR_RETURN(codec_, ParseKvCodec(config_.cache_codec));
  backend_ = std::move(parts.backend);
  model_ = std::move(parts.model);
  draft_model_ = std::move(parts.draft_model);
  embedder_ = std::move(parts.embedder);
  model_name_ = std::filesystem::path(model_->path).stem().string();
  if (model_name_.empty()) model_name_ = model_->config.name;
  KVASIR_ASSIGN_OR_RETURN(tokenizer_, MakeTokenizer(model_->vocabulary));
  template_ = std::make_unique<ChatTemplate>(ChatTemplate::Detect(model_->vocabulary, *tokenizer_));
  KVASIR_RETURN_IF_ERROR(BuildStore());
  EngineOptions engine_options = EngineOptionsOf(config_, draft_model_);
  if (engine_options.kv_dtype == DType::kI8) {
    KVASIR_ASSIGN_OR_RETURN(engine_options.balance_ids, tokenizer_->Encode(kPrimerText));
  }
  KVASIR_ASSIGN_OR_RETURN(engine_, Engine::Create(model_, backend_, engine_options));
  LogPreparation(engine_->stats().prepare_seconds);
  KVASIR_RETURN_IF_ERROR(BuildEncoding());
  prefix_index_ = std::make_unique<PrefixIndex>();
  TieredCacheOptions options;
  options.memory_bytes = static_cast<size_t>(config_.cache_memory_mib) << 20;
  Engine* engine = engine_.get();
  options.opener = [engine](int32_t tokens) { return engine->BeginLoad(tokens); };
  cache_ = std::make_unique<TieredCache>(
      chunk_store_,
      [engine](std::span<const KvLayerPlanes> layers) { return engine->LoadBlocks(layers); },
      options);
  ConnectReclaimer();
  return Status::Ok();
}

Status Runtime::BuildStore() {
  const std::string folder = DataFolder(config_);
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  if (error) {
    return FailedPrecondition("data folder " + folder + ": " + error.message() +
                              "; name another with --data");
  }
  KVASIR_ASSIGN_OR_RETURN(database_, Database::Open(folder));
  KVASIR_ASSIGN_OR_RETURN(std::unique_ptr<ChunkStore> store, ChunkStore::Open(database_));
  chunk_store_ = std::move(store);
  document_records_ = Database::Store(database_, "documents");
  KVASIR_ASSIGN_OR_RETURN(documents_, DocumentStore::Open(*document_records_));
  audit_records_ = Database::Store(database_, "audits");
  audits_ = std::make_unique<AuditStore>(*audit_records_);
  choice_records_ = Database::Store(database_, "choices");
  choices_ = std::make_unique<PolicyChoices>(*choice_records_);
  statistics_ = Statistics::Open(database_);
  return BuildAnswers();
}

// Without speculation nothing would read them: none are kept, and what was kept stays.
Status Runtime::BuildAnswers() {
  answer_records_ = Database::Store(database_, "answers");
  if (config_.engine_answer_index == "off") return AnswerStore::EraseAll(*answer_records_);
  if (config_.engine_speculation == "off") return Status::Ok();
  AnswerStoreOptions options;
  options.bytes = static_cast<size_t>(config_.engine_answer_index_mib) << 20;
  answers_ = std::make_unique<AnswerStore>(*answer_records_, options);
  return Status::Ok();
}

Status Runtime::BuildEncoding() {
  KVASIR_ASSIGN_OR_RETURN(encoding_.condition, ParseIngestion(config_.collection_ingestion));
  const std::string& own = config_.collection_primer;
  Result<std::vector<int32_t>> primer =
      RenderPrimer(*template_, own.empty() ? kPrimerText : own,
                   PrimerLimit(config_.collection_primer_tokens, engine_->max_context()));
  if (!primer.ok()) return InvalidArgument("collection.primer: " + primer.status().message());
  configured_primer_ = std::move(*primer);
  if (HasPrimer(encoding_.condition)) encoding_.primer = configured_primer_;
  return Status::Ok();
}

void Runtime::ConnectReclaimer() {
  engine_->SetReclaimer([this](int32_t blocks) {
    const int32_t chunks = cache_->ReclaimBlocks(blocks);
    return chunks >= blocks ? chunks : chunks + prefix_index_->ReclaimBlocks(blocks - chunks);
  });
}

Runtime::~Runtime() {
  if (cache_) cache_->FinishLoads();  // they write into the engine's pool
}

Status Runtime::OpenEmbedderLocked() {
  if (embedder_ != nullptr) return Status::Ok();
  KVASIR_ASSIGN_OR_RETURN(const std::string folder, FindEmbedder(config_));
  // On the CPU whatever the engine's device: it is small, and works for ingestion while the engine
  // computes. Its weights are plain, and distances are compared closely: fp32.
  Config config = config_;
  config.engine_compute = "f32";
  KVASIR_ASSIGN_OR_RETURN(std::unique_ptr<Backend> backend, MakeCpuBackend(config));
  KVASIR_ASSIGN_OR_RETURN(embedder_,
                          Embedder::Create(folder, std::shared_ptr<Backend>(std::move(backend))));
  return Status::Ok();
}

Status Runtime::OpenRetrievalLocked() {
  if (retriever_ != nullptr) return Status::Ok();
  KVASIR_RETURN_IF_ERROR(OpenEmbedderLocked());
  KVASIR_ASSIGN_OR_RETURN(retriever_, Retriever::Open(*documents_, *embedder_));
  return Status::Ok();
}

Result<Embedder*> Runtime::embedder() {
  std::lock_guard lock(retrieval_mutex_);
  KVASIR_RETURN_IF_ERROR(OpenEmbedderLocked());
  return embedder_.get();
}

Result<Retriever*> Runtime::retrieval() {
  std::lock_guard lock(retrieval_mutex_);
  KVASIR_RETURN_IF_ERROR(OpenRetrievalLocked());
  return retriever_.get();
}

Retriever* Runtime::retrieval_if_open() {
  std::lock_guard lock(retrieval_mutex_);
  return retriever_.get();
}

// What is encoded at position 0 begins with the attention sink, whose outliers would set the INT8
// scales of all its channels: anchors and bare chunks are kept in 16 bits.
KvCodec Runtime::CodecOf(const ChunkContext& context) const {
  return context.empty() ? KvCodec::kF16 : CodecOf(context.codec);
}

ChunkKey Runtime::KeyOf(const std::string& name_space, const ChunkContext& context,
                        const std::vector<int32_t>& token_ids) const {
  return MakeKey(name_space, context, token_ids, CodecOf(context));
}

ChunkKey Runtime::PrimerKeyOf(const std::string& name_space, const std::vector<int32_t>& anchor,
                              const std::vector<int32_t>& primer) const {
  return MakeKey(name_space, {anchor, {}}, primer, KvCodec::kF16);
}

ChunkKey Runtime::MakeKey(const std::string& name_space, const ChunkContext& context,
                          const std::vector<int32_t>& token_ids, KvCodec codec) const {
  const ModelConfig& model = model_->config;
  FingerprintFields fields;
  fields.model_digest = model_->digest;
  fields.tokenizer = model_->vocabulary.model + "/" + model_->vocabulary.pre + "/" +
                     std::string(template_->family());
  fields.context = !context.primer.empty()  ? EncodingContext::kPrimer
                   : context.anchor.empty() ? EncodingContext::kBare
                                            : EncodingContext::kAnchor;
  fields.anchor_ids = context.anchor;
  if (!context.primer.empty()) fields.primer_id = DigestTokens(context.primer).Bytes();
  fields.layout = model.Layout(engine_->options().kv_dtype);
  fields.ropes = model.ropes;
  fields.layer_rope = model.layer_rope;
  fields.layer_window = model.layer_window;
  fields.codec = codec;
  fields.numerics = "matmul=f32";
  return MakeChunkKey(name_space, Fingerprint(fields), token_ids);
}

namespace {

// A condition and the fixed primer that belongs to it, in words.
std::string EncodedAs(const std::string& ingestion, const std::vector<int32_t>& primer) {
  return primer.empty() ? ingestion : ingestion + " " + DigestTokens(primer).Hex();
}

}  // namespace

ChoiceScope Runtime::ChoiceScopeOf(const std::string& collection, const Encoding& encoding,
                                   KvCodec codec) const {
  return {model_->digest, collection,
          EncodedAs(std::string(IngestionName(encoding.condition)), encoding.primer),
          std::string(KvCodecName(codec))};
}

AuditScope Runtime::AuditScopeOf(const std::string& ingestion, const std::vector<int32_t>& primer,
                                 KvCodec codec) const {
  return {model_->digest, EncodedAs(ingestion, primer), std::string(KvCodecName(codec)),
          LadderName()};
}

void Runtime::SamplePrefill() const {
  const EngineStats stats = engine_->stats();
  cache_->load_policy().SamplePrefill(stats.prefill_rows, stats.prefill_seconds);
}

void Runtime::DropUpperTiers(bool memory_too) {
  cache_->DropUpperTiers(memory_too);
  prefix_index_->ReclaimBlocks(1 << 30);
}

}  // namespace kvasir
