// IngestPipeline: documents to stored text, vectors and chunk KV.
//
//   read -> chunk -> embed -> store the document (one atomic write) -> prefill each chunk's KV
//   behind the collection's anchor and primer (service/encoding.h) -> encode -> store
// Resumable: an unchanged document is not read again, and chunks whose KV is stored are skipped,
// so running an interrupted ingestion again finishes it. Thread-safe; calls block; one caller at a
// time gets the best speed.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "retrieval/reader.h"
#include "service/chunk_prefill.h"
#include "service/kv_upkeep.h"
#include "service/runtime.h"

namespace kvasir {

struct IngestInput {
  std::string id;      // "" = the source, or a random one
  std::string title;   // "" = what the reader finds
  std::string source;  // path or URI, may be empty
  std::string bytes;
  DocumentFormat format = DocumentFormat::kAuto;
  Metadata metadata;
  // Documents are stored without one; a collection that depends on others' texts refuses it.
  std::string cache_salt;
};

struct IngestOutcome {
  std::string id;
  int64_t version = 0;
  bool unchanged = false;
  int64_t chunks = 0, tokens = 0;
  int64_t chunks_computed = 0, tokens_computed = 0;  // KV made now
};

// First all documents are read and counted, then they are stored; `documents_done` and `seconds`
// are of the part at work.
struct IngestProgress {
  bool counting = false;
  size_t documents_done = 0, documents_total = 0;
  int64_t chunks = 0, tokens = 0;
  int64_t tokens_computed = 0, tokens_to_compute = 0;  // done, and all; 0: none, or not known yet
  double seconds = 0;
  std::string current;  // the document at work

  double TokensPerSecond() const {
    return seconds > 0 ? static_cast<double>(tokens_computed) / seconds : 0;
  }
  // 0 to 1, by tokens, or by documents if there is no token to compute.
  double Share() const;
  // Seconds left, from the tokens left and the mean rate so far; -1 while unknown.
  double Eta() const;
};

struct IngestFailure {
  std::string name, message;
};

struct IngestReport {
  int64_t documents = 0, unchanged = 0, chunks = 0, tokens = 0;
  int64_t chunks_computed = 0, tokens_computed = 0;
  double seconds = 0;
  std::vector<IngestFailure> failures;
};

// What ingesting would make, without storing anything.
struct DryRunReport {
  int64_t documents = 0, chunks = 0, tokens = 0;
  uint64_t kv_bytes_int8 = 0, kv_bytes_fp16 = 0, kv_bytes_int4 = 0;
  std::vector<IngestFailure> failures;
};

// What a caller asks of a collection. Unset: as it was made, or (a new one) as configured.
struct CollectionChoice {
  std::optional<IngestionCondition> condition;
  std::optional<std::string> primer;  // text; only with a condition that has a primer
};

class IngestPipeline {
 public:
  explicit IngestPipeline(Runtime& runtime)
      : runtime_(runtime), prefill_(runtime), upkeep_(runtime) {}

  Result<IngestOutcome> IngestOne(
      const std::string& collection, const IngestInput& input,
      const std::function<void(const IngestOutcome&)>& chunk_done = nullptr);

  using ProgressSink = std::function<void(const IngestProgress&)>;
  // Files, one after the other. A file that fails is named in the report and does not stop the
  // others, unless `strict`.
  IngestReport IngestFiles(const std::string& collection, const std::vector<std::string>& paths,
                           bool strict, const ProgressSink& progress);
  DryRunReport DryRun(const std::vector<std::string>& paths);

  // Deletes a document with its chunks' KV.
  Status Delete(const std::string& id);

  // The collection's record; made now if it is not there yet. kFailedPrecondition: it is there and
  // was made with another choice.
  Result<Collection> OpenCollection(const std::string& name, const CollectionChoice& choice = {});
  // Passages of the documents as text for CollectionChoice::primer (service/primer_choice.h).
  // kInvalidArgument: there is no text; kFailedPrecondition: not all who use the collection may
  // read the documents (cache_salt, several API keys), as for the condition neighbour.
  Result<std::string> ChoosePrimer(const std::vector<IngestInput>& documents) const;
  // The same of files; what cannot be read is left out.
  Result<std::string> ChoosePrimerOf(const std::vector<std::string>& paths) const;
  bool HasCollection(const std::string& name) const;
  // The token ids of the anchor behind which chunks of a system text are encoded.
  Result<std::vector<int32_t>> AnchorOf(const std::string& system_text) const;

 private:
  Result<CollectionContext> ContextOf(const Collection& collection) const;
  Result<CollectionContext> OpenContext(const std::string& collection);
  // Id, version and whether the very same document is stored in this collection; its digest.
  Result<IngestOutcome> Identify(const std::string& collection, const IngestInput& input,
                                 std::string* digest) const;
  // Tokens whose KV ingesting a file would compute.
  Result<int64_t> TokensToCompute(const CollectionContext& collection,
                                  const std::string& path) const;
  // The same for each of the files, 0 for one that cannot be read or taken.
  std::vector<int64_t> CountFiles(const std::string& collection,
                                  const std::vector<std::string>& paths,
                                  const ProgressSink& progress);
  Result<std::vector<NewChunk>> ChunksOf(const std::string& name, const IngestInput& input,
                                         std::string* title) const;
  // The document in the store, without KV of what is new in it.
  Result<IngestOutcome> StoreText(const CollectionContext& collection, const IngestInput& input);
  Status PutDocument(const CollectionContext& collection, const IngestInput& input,
                     const std::string& digest, IngestOutcome* outcome);
  // Texts of files, each stored before the first is encoded: neighbours are found among all.
  std::vector<Result<IngestOutcome>> StoreTexts(const CollectionContext& collection,
                                                const std::vector<std::string>& paths, bool strict);
  Status PrefillMissing(const CollectionContext& collection, IngestOutcome* outcome,
                        const std::function<void(const IngestOutcome&)>& chunk_done);
  // What was stored, with the KV that it lacks.
  Result<IngestOutcome> Encode(const CollectionContext& collection, Result<IngestOutcome> stored,
                               const std::function<void(const IngestOutcome&)>& chunk_done);
  Result<IngestOutcome> IngestFile(const std::string& collection, const std::string& path,
                                   const std::function<void(const IngestOutcome&)>& chunk_done);

  Runtime& runtime_;
  ChunkPrefill prefill_;
  KvUpkeep upkeep_;
};

// The files below the given paths, folders walked, sorted within each; hidden files left out.
Result<std::vector<std::string>> ListFiles(const std::vector<std::string>& paths);

}  // namespace kvasir
