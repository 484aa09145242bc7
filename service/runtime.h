// Runtime: everything that answers questions, built from a Config: backend, model, tokenizer,
// template, engine, store, cache tiers, and, when first asked for, embedder and retrieval.
//
// The server and the embedded command line share it. Thread safety: after Create every method may
// be called from any thread. The engine dies before cache and prefix index, into which its thread
// calls; their block handles may outlive its pool.
// Limit: one process a data folder (the store is locked).
#pragma once

#include <atomic>
#include <memory>
#include <mutex>
#include <string>

#include "cache/database.h"
#include "cache/prefix_index.h"
#include "cache/statistics.h"
#include "cache/tiered_cache.h"
#include "engine/engine.h"
#include "engine/tokenizer/chat_template.h"
#include "engine/tokenizer/tokenizer.h"
#include "retrieval/retriever.h"
#include "service/answer_store.h"
#include "service/audit_store.h"
#include "service/config.h"
#include "service/encoding.h"
#include "service/policy_choice.h"

namespace kvasir {

// The collection that documents go to when none is named.
inline constexpr char kDefaultCollection[] = "default";

// Model and engine without a store: what `bench`, `doctor` and tests can start from.
struct RuntimeParts {
  std::shared_ptr<Backend> backend;
  std::shared_ptr<const Model> model;
  std::shared_ptr<Embedder> embedder;  // null: the configured one, when first asked for
  std::shared_ptr<const Model> draft_model = nullptr;  // packed for the same backend; null: none
};

class Runtime {
 public:
  static Result<std::unique_ptr<Runtime>> Create(const Config& config);
  // With a backend and a model that exist already (tests).
  static Result<std::unique_ptr<Runtime>> Create(const Config& config, RuntimeParts parts);
  ~Runtime();

  const Config& config() const { return config_; }
  const Model& model() const { return *model_; }
  const Tokenizer& tokenizer() const { return *tokenizer_; }
  const ChatTemplate& chat_template() const { return *template_; }
  Backend& backend() const { return *backend_; }
  Engine& engine() const { return *engine_; }
  TieredCache& cache() const { return *cache_; }
  PrefixIndex& prefix_index() const { return *prefix_index_; }
  Statistics& statistics() const { return *statistics_; }
  Database& database() const { return *database_; }
  DocumentStore& documents() const { return *documents_; }
  // What evaluations chose for `auto`.
  PolicyChoices& choices() const { return *choices_; }
  ChoiceScope ChoiceScopeOf(const std::string& collection, const Encoding& encoding,
                            KvCodec codec) const;
  // What certify is calibrated by.
  AuditStore& audits() const { return *audits_; }
  // Of prompts whose chunks were encoded under one condition (or one that only an evaluation
  // knows).
  AuditScope AuditScopeOf(const std::string& ingestion, const std::vector<int32_t>& primer,
                          KvCodec codec) const;
  // What answers are drafted from; null: none are kept.
  AnswerStore* answers() const { return answers_.get(); }
  // Of requests of a tenant and salt over a collection.
  AnswerScope AnswerScopeOf(const std::string& collection, const std::string& salt,
                            const std::string& tenant) const {
    return {model_->digest, collection, salt, tenant};
  }
  KvCodec codec() const { return codec_; }
  const std::string& model_name() const { return model_name_; }
  double start_ms() const { return start_ms_; }
  RuntimeParts parts() const { return {backend_, model_, nullptr, draft_model_}; }

  // Loads the embedder and the vectors at the first call.
  Result<Retriever*> retrieval();
  Result<Embedder*> embedder();
  // The same if loaded already, else null.
  Retriever* retrieval_if_open();

  // Key of a chunk's KV encoded behind `context`, or (context empty) of an anchor's own.
  ChunkKey KeyOf(const std::string& name_space, const ChunkContext& context,
                 const std::vector<int32_t>& token_ids) const;
  KvCodec CodecOf(const ChunkContext& context) const;
  KvCodec CodecOf(KvCodec codec) const { return codec == kConfiguredCodec ? codec_ : codec; }
  // Of a primer's own KV behind an anchor, in 16 bits: chunks are computed from it.
  ChunkKey PrimerKeyOf(const std::string& name_space, const std::vector<int32_t>& anchor,
                       const std::vector<int32_t>& primer) const;

  // Of new collections, and of documents that a request gives as text: as configured.
  const Encoding& encoding() const { return encoding_; }
  // The fixed primer of new collections, whatever the configured condition.
  const std::vector<int32_t>& configured_primer() const { return configured_primer_; }

  // Tells the load policy of the prompts that the engine has computed since the last call.
  void SamplePrefill() const;

  // Drops pool and memory tiers and prefixes, as a restart would (benchmarks).
  void DropUpperTiers(bool memory_too);

 private:
  Runtime() = default;
  Status Build(RuntimeParts parts);
  Status BuildStore();
  Status BuildAnswers();
  void ConnectReclaimer();
  Status BuildEncoding();
  ChunkKey MakeKey(const std::string& name_space, const ChunkContext& context,
                   const std::vector<int32_t>& token_ids, KvCodec codec) const;
  Status OpenRetrievalLocked();
  Status OpenEmbedderLocked();

  Config config_;
  KvCodec codec_ = KvCodec::kInt8;
  Encoding encoding_;
  std::vector<int32_t> configured_primer_;
  std::string model_name_;
  double start_ms_ = 0;
  std::shared_ptr<Backend> backend_;
  std::shared_ptr<const Model> model_, draft_model_;
  std::unique_ptr<Tokenizer> tokenizer_;
  std::unique_ptr<ChatTemplate> template_;
  std::shared_ptr<Database> database_;
  std::shared_ptr<ChunkStore> chunk_store_;
  std::unique_ptr<OrderedStore> document_records_;
  std::unique_ptr<DocumentStore> documents_;
  std::unique_ptr<OrderedStore> audit_records_;
  std::unique_ptr<AuditStore> audits_;
  std::unique_ptr<OrderedStore> choice_records_;
  std::unique_ptr<PolicyChoices> choices_;
  std::unique_ptr<OrderedStore> answer_records_;
  std::unique_ptr<AnswerStore> answers_;
  std::unique_ptr<Statistics> statistics_;
  std::unique_ptr<PrefixIndex> prefix_index_;
  std::unique_ptr<TieredCache> cache_;
  std::unique_ptr<Engine> engine_;  // its thread calls into cache, index and answers: ends first

  std::mutex retrieval_mutex_;
  std::shared_ptr<Embedder> embedder_;
  std::unique_ptr<Retriever> retriever_;
};

}  // namespace kvasir
