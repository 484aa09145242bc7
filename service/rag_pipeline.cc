#include "service/rag_pipeline.h"

#include <algorithm>
#include <map>
#include <unordered_map>

#include "cache/digest.h"
#include "service/elapsed.h"
#include "service/name_space.h"

namespace kvasir {
namespace {

using Clock = std::chrono::steady_clock;

// The question that retrieval looks for: the last user message.
std::string QuestionOf(const RagRequest& request) {
  for (auto it = request.messages.rbegin(); it != request.messages.rend(); ++it) {
    if (it->role == "user") return it->content;
  }
  return "";
}

std::string StatusOf(const ChunkLookup& lookup) {
  if (lookup.hit()) return "hit_" + std::string(TierName(lookup.tier));
  return lookup.miss == MissReason::kSlower ? "computed_sooner" : "computed";
}

// These are computed in their place in the prompt; other misses are made and stored first.
bool StaysInPrompt(const ChunkLookup& lookup) {
  return lookup.miss == MissReason::kPoolFull || lookup.miss == MissReason::kSlower;
}

// Rows of a segment that came to the prompt as blocks computed for this very request: no saved
// work, so they count as computed.
void CountAsComputed(const SegmentPlan& segment, PromptAccount* account) {
  const int64_t kept = segment.kept();
  (segment.reuse == ReuseKind::kPrefix ? account->prefix : account->fused) -= kept;
  account->computed += kept;
}

}  // namespace

// What Prepare knows so far; gains a field at each step.
struct RagPipeline::Draft {
  std::string salt;
  std::string name_space;   // of anchor, prefixes and documents given as text
  std::string system_text;  // the default one, "" = the template's own
  Encoding encoding;        // of documents given as text and of retrieved chunks
  bool has_documents = false;
  std::vector<Piece> pieces;
  std::vector<int32_t> anchor_ids, tail_ids;
  FusionPolicy policy;
  bool optimistic = false;  // chunk KV serves the answer's draft only
  FrontKv anchor;
  bool anchor_made = false;          // for this very request
  std::vector<ChunkLookup> lookups;  // one a piece, with blocks once there are any
  std::vector<ChunkKey> keys;
};

Status RagPipeline::AddNamed(const DocumentInput& document, Draft* draft) {
  Piece piece;
  piece.name_space = draft->name_space;
  piece.encoding = draft->encoding;
  if (document.has_text) {
    KVASIR_ASSIGN_OR_RETURN(piece.token_ids,
                            runtime_.chat_template().RenderDocument(document.title, document.text));
    piece.report.id = document.id;
    piece.report.title = document.title;
    draft->pieces.push_back(std::move(piece));
    return Status::Ok();
  }
  KVASIR_ASSIGN_OR_RETURN(const Document stored, runtime_.documents().Get(document.id));
  KVASIR_ASSIGN_OR_RETURN(const Collection collection,
                          runtime_.documents().GetCollection(stored.collection));
  KVASIR_ASSIGN_OR_RETURN(piece.encoding, EncodingOf(collection));
  KVASIR_RETURN_IF_ERROR(CheckAccess(piece.encoding, collection.name, draft->salt));
  KVASIR_ASSIGN_OR_RETURN(const std::vector<Chunk> chunks,
                          runtime_.documents().GetChunks(document.id));
  for (const Chunk& chunk : chunks) {
    piece.token_ids = chunk.token_ids;
    piece.own_primer = OwnPrimer(runtime_.documents(), chunk);
    piece.chunk = chunk.id;
    piece.name_space = SaltedNamespace(stored.collection, draft->salt);
    piece.report = {stored.id, chunk.title, stored.source, "", 0, 0};
    draft->pieces.push_back(piece);
  }
  return Status::Ok();
}

Status RagPipeline::CheckAccess(const Encoding& encoding, const std::string& collection,
                                const std::string& salt) const {
  return CheckNeighbourAccess(encoding, collection, runtime_.config().server_api_keys.size(),
                              !salt.empty());
}

Status RagPipeline::AddRetrieved(const RagRequest& request, Draft* draft) {
  KVASIR_ASSIGN_OR_RETURN(Retriever * retriever, runtime_.retrieval());
  SearchRequest search;
  search.collection = request.collection;
  search.query = QuestionOf(request);
  search.top_k = request.top_k;
  search.filter = request.filter;
  KVASIR_ASSIGN_OR_RETURN(const std::vector<SearchHit> hits, retriever->Search(search));
  for (const SearchHit& hit : hits) {
    Piece piece;
    piece.token_ids = hit.chunk.token_ids;
    piece.encoding = draft->encoding;
    piece.own_primer = OwnPrimer(runtime_.documents(), hit.chunk);
    piece.chunk = hit.chunk.id;
    piece.name_space = draft->name_space;
    piece.report = {hit.chunk.document_id, hit.chunk.title, hit.source, "", 0, hit.score};
    draft->pieces.push_back(std::move(piece));
  }
  return Status::Ok();
}

Status RagPipeline::CollectPieces(const RagRequest& request, Draft* draft) {
  draft->salt = request.cache_salt;
  draft->encoding = runtime_.encoding();
  draft->name_space = SaltedNamespace(
      request.collection.empty() ? kDefaultCollection : request.collection, draft->salt);
  if (!request.collection.empty()) {
    KVASIR_ASSIGN_OR_RETURN(const Collection collection,
                            runtime_.documents().GetCollection(request.collection));
    if (collection.model_digest != runtime_.model().digest) {
      return FailedPrecondition("collection '" + request.collection +
                                "' was made with another model: load that model, or ingest the "
                                "documents into another collection");
    }
    draft->system_text = collection.system_text;
    KVASIR_ASSIGN_OR_RETURN(draft->encoding, EncodingOf(collection));
    KVASIR_RETURN_IF_ERROR(CheckAccess(draft->encoding, collection.name, draft->salt));
  }
  for (const DocumentInput& document : request.documents) {
    KVASIR_RETURN_IF_ERROR(AddNamed(document, draft));
  }
  if (!request.collection.empty() && request.documents.empty()) {
    KVASIR_RETURN_IF_ERROR(AddRetrieved(request, draft));
  }
  std::erase_if(draft->pieces, [](const Piece& piece) { return piece.token_ids.empty(); });
  draft->has_documents = !draft->pieces.empty();
  if (draft->has_documents && draft->system_text.empty()) {
    draft->system_text = runtime_.config().collection_system;
  }
  return Status::Ok();
}

Status RagPipeline::Render(const RagRequest& request, Draft* draft) {
  if (request.raw) {
    if (!request.raw_prompt.empty()) {
      draft->tail_ids = request.raw_prompt;
    } else {
      KVASIR_ASSIGN_OR_RETURN(draft->tail_ids, runtime_.tokenizer().Encode(request.raw_text));
      const Tokenizer& tokenizer = runtime_.tokenizer();
      if (tokenizer.adds_bos() && tokenizer.bos() >= 0) {
        draft->tail_ids.insert(draft->tail_ids.begin(), tokenizer.bos());
      }
    }
    const int32_t vocabulary = runtime_.tokenizer().VocabularySize();
    for (const int32_t id : draft->tail_ids) {
      if (id < 0 || id >= vocabulary) {
        return InvalidArgument("prompt: token id " + std::to_string(id) +
                               " is not in the vocabulary of " + std::to_string(vocabulary));
      }
    }
    return Status::Ok();
  }
  KVASIR_ASSIGN_OR_RETURN(
      ChatPrompt prompt,
      runtime_.chat_template().Render(request.messages, draft->has_documents, draft->system_text));
  draft->anchor_ids = std::move(prompt.anchor);
  draft->tail_ids = std::move(prompt.tail);
  return Status::Ok();
}

void RagPipeline::ComputeMissing(const RagRequest& request, Draft* draft,
                                 const std::vector<size_t>& missing) {
  // One list a namespace, each chunk once however often the prompt holds it.
  std::map<std::string, std::vector<size_t>> groups;
  std::unordered_map<ChunkKey, size_t, ChunkKeyHash> first;
  for (const size_t index : missing) {
    if (!first.emplace(draft->keys[index], index).second) continue;
    groups[draft->pieces[index].name_space].push_back(index);
  }
  for (const auto& [name_space, indices] : groups) {
    std::vector<ChunkToMake> chunks;
    for (const size_t index : indices) {
      const Piece& piece = draft->pieces[index];
      chunks.push_back({piece.token_ids, piece.Context(draft->anchor_ids),
                        /*keep_primer=*/piece.own_primer.empty()});
    }
    // Whatever goes wrong with a chunk, it can still be computed inside the prompt.
    [[maybe_unused]] const Status made = prefill_.Make(
        name_space, draft->anchor, chunks, request.cache.store,
        /*require_disk=*/false, [&](size_t i, const Status& status) {
          if (!status.ok()) return;
          draft->lookups[indices[i]].blocks =
              runtime_.cache().Lookup(draft->keys[indices[i]], chunks[i].token_ids).blocks;
          prefill_.RemoveIfOutdated(draft->keys[indices[i]], draft->pieces[indices[i]].chunk,
                                    chunks[i]);
        });
  }
  for (const size_t index : missing) {
    draft->lookups[index].blocks = draft->lookups[first.at(draft->keys[index])].blocks;
  }
}

Status RagPipeline::LoadKv(const RagRequest& request, Draft* draft) {
  if (!draft->policy.fused()) return Status::Ok();
  KVASIR_ASSIGN_OR_RETURN(draft->anchor, prefill_.Anchor(draft->name_space, draft->anchor_ids,
                                                         request.cache.store, &draft->anchor_made));
  const bool may_compute = runtime_.config().cache_load == "auto";
  runtime_.SamplePrefill();
  std::vector<ChunkRequest> requests;
  for (const Piece& piece : draft->pieces) {
    draft->keys.push_back(
        runtime_.KeyOf(piece.name_space, piece.Context(draft->anchor_ids), piece.token_ids));
    requests.push_back({draft->keys.back(), piece.token_ids, may_compute});
  }
  draft->lookups = runtime_.cache().LookupMany(requests);
  std::vector<size_t> missing;
  for (size_t i = 0; i < draft->pieces.size(); ++i) {
    const ChunkLookup& lookup = draft->lookups[i];
    draft->pieces[i].report.status = StatusOf(lookup);
    if (lookup.hit() || StaysInPrompt(lookup)) continue;
    missing.push_back(i);
    if (!request.cache.compute_missing) {
      return FailedPrecondition("document '" + draft->pieces[i].report.id + "' has no stored KV (" +
                                std::string(MissReasonName(lookup.miss)) +
                                ") and chunk_cache.on_missing is 'error': ingest it first");
    }
  }
  ComputeMissing(request, draft, missing);
  return Status::Ok();
}

void RagPipeline::Count(const Draft& draft, const Assembly& assembly, CacheReport* report) {
  report->policy = assembly.policy.Name();
  report->account = assembly.account;
  // In a fused plan segments are: the anchor if it is not empty, the pieces, the tail.
  const std::vector<SegmentPlan>& segments = assembly.plan.segments;
  size_t segment = draft.anchor_ids.empty() ? 0 : 1;
  if (draft.anchor_made && segment == 1) CountAsComputed(segments[0], &report->account);
  const bool flat = segments.size() < draft.pieces.size() + segment;  // certify went to exact
  for (size_t i = 0; i < draft.pieces.size(); ++i, ++segment) {
    DocumentReport document = draft.pieces[i].report;
    document.tokens = static_cast<int32_t>(draft.pieces[i].token_ids.size());
    if (document.status.empty()) document.status = "computed";
    report->documents.push_back(document);
    if (draft.lookups.empty()) continue;
    const bool hit = document.status.starts_with("hit_");
    ++(hit ? report->hits : report->misses);
    int64_t kept = 0;
    if (!flat) {
      const SegmentPlan& plan = segments[segment];
      kept = plan.kept();
      if (!hit) CountAsComputed(plan, &report->account);
    }
    const bool saved = hit && !draft.optimistic;
    runtime_.statistics().RecordChunk(draft.keys[i], draft.lookups[i], saved ? kept : 0);
  }
  if (draft.optimistic) {
    report->draft = {report->policy, report->account, ""};
    report->policy = FusionPolicy::Exact().Name();
    report->account = {};
    report->account.requested = report->account.computed = report->draft->account.requested;
  }
  runtime_.statistics().RecordRequest(report->account);
}

// Chunks of several conditions in one prompt are a kind of their own.
AuditScope RagPipeline::ScopeOf(const Draft& draft) const {
  const Encoding& first = draft.pieces.front().encoding;
  const bool alike = std::all_of(draft.pieces.begin(), draft.pieces.end(), [&](const Piece& piece) {
    return piece.encoding.condition == first.condition && piece.encoding.primer == first.primer &&
           piece.encoding.codec == first.codec;
  });
  if (!alike) return runtime_.AuditScopeOf("mixed", {}, runtime_.codec());
  return runtime_.AuditScopeOf(std::string(IngestionName(first.condition)), first.primer,
                               runtime_.CodecOf(first.codec));
}

// Chooses the rows to compute again and counts what choosing cost.
Status RagPipeline::RepairRows(const Draft& draft, Assembly* assembly, CacheReport* report) {
  RepairReport repair;
  if (assembly->policy.kind == PolicyKind::kCertify && draft.has_documents) {
    KVASIR_ASSIGN_OR_RETURN(const AuditStore::Samples samples,
                            runtime_.audits().Load(ScopeOf(draft)));
    KVASIR_ASSIGN_OR_RETURN(repair, certifier_.Certify(assembly->policy, *samples, &assembly->plan,
                                                       &report->certificate.emplace()));
  } else if (assembly->policy.looks()) {
    KVASIR_ASSIGN_OR_RETURN(repair, repair_.Choose(assembly->policy, &assembly->plan));
  } else {
    return Status::Ok();
  }
  assembly->account = AccountOf(assembly->plan);
  assembly->account.looked = repair.looked_rows;
  report->repair_ms = repair.ms;
  return Status::Ok();
}

// What an evaluation chose for these documents; "" = nothing: the built-in default.
std::string RagPipeline::ChosenPolicy(const RagRequest& request, const Draft& draft,
                                      CacheReport* report) const {
  report->chosen_by = "default";
  if (draft.pieces.empty()) return "";
  const std::string collection =
      request.collection.empty() ? kDefaultCollection : request.collection;
  const Encoding& encoding = draft.pieces.front().encoding;
  const auto choice = runtime_.choices().Find(
      runtime_.ChoiceScopeOf(collection, encoding, runtime_.CodecOf(encoding.codec)));
  if (!choice) return "";
  report->chosen_by = "eval";
  return choice->policy;
}

// Before any document is read: once a document is erased, no answer that has seen it is kept.
std::shared_ptr<AnswerShelf> RagPipeline::OpenAnswers(const RagRequest& request) const {
  if (runtime_.answers() == nullptr || request.cache.mode == CacheMode::kOff) return nullptr;
  return runtime_.answers()->Open(
      runtime_.AnswerScopeOf(request.collection.empty() ? kDefaultCollection : request.collection,
                             request.cache_salt, request.tenant));
}

// The answer's prompt is exact; what was assembled is that of its draft, if it is much less work.
void RagPipeline::SplitDraft(Assembly* assembly, PreparedPrompt* prompt) {
  PromptPlan exact = FlatPlan(assembly->plan);
  if (2 * assembly->plan.rows() <= exact.rows()) {
    prompt->draft = std::make_shared<PromptPlan>(std::move(assembly->plan));
  } else {
    prompt->report.draft->problem = "more than half of the prompt would be computed for it";
  }
  assembly->plan = std::move(exact);
}

Result<PreparedPrompt> RagPipeline::Prepare(const RagRequest& request) {
  PreparedPrompt prompt;
  prompt.begin = Clock::now();
  prompt.past_answers = OpenAnswers(request);
  Draft draft;
  KVASIR_RETURN_IF_ERROR(CollectPieces(request, &draft));
  KVASIR_RETURN_IF_ERROR(Render(request, &draft));
  PolicyRequest wanted;
  wanted.mode = request.cache.mode;
  wanted.has_documents = draft.has_documents;
  wanted.movable = runtime_.model().config.reuse.movable;
  wanted.why_not_movable = runtime_.model().config.reuse.why_not;
  const bool may_fuse =
      wanted.mode == CacheMode::kFused || (wanted.mode == CacheMode::kAuto && wanted.movable);
  std::string policy = request.cache.policy;
  if (policy.empty() && may_fuse && draft.has_documents) policy = runtime_.config().cache_policy;
  if (policy == kAutoPolicy) policy = may_fuse ? ChosenPolicy(request, draft, &prompt.report) : "";
  if (!policy.empty()) {
    KVASIR_ASSIGN_OR_RETURN(wanted.policy, ParsePolicy(policy));
  }
  KVASIR_ASSIGN_OR_RETURN(draft.policy, ResolvePolicy(wanted));
  if (wanted.mode == CacheMode::kOptimistic) {
    draft.optimistic = draft.policy.fused() && draft.has_documents;
    if (!draft.optimistic) {
      draft.policy = FusionPolicy::Exact();
      prompt.report.draft.emplace().problem =
          draft.has_documents ? wanted.why_not_movable : "there are no documents";
    }
  }
  prompt.report.mode = CacheModeName(request.cache.mode);
  prompt.report.lookup_ms = MillisecondsSince(prompt.begin);

  const auto load_begin = Clock::now();
  KVASIR_RETURN_IF_ERROR(LoadKv(request, &draft));
  prompt.report.load_ms = MillisecondsSince(load_begin);

  AssemblyInput input;
  input.name_space = draft.name_space;
  input.anchor_ids = draft.anchor_ids;
  input.anchor_blocks = draft.anchor.blocks;
  for (size_t i = 0; i < draft.pieces.size(); ++i) {
    input.chunks.push_back(
        {draft.pieces[i].token_ids, draft.lookups.empty() ? nullptr : draft.lookups[i].blocks});
  }
  input.tail_ids = draft.tail_ids;
  input.policy = draft.policy;
  KVASIR_ASSIGN_OR_RETURN(Assembly assembly, assembler_.Assemble(std::move(input)));
  // The ladder that audits measure is of chunks one after the other.
  const bool audited = auditor_.on() && assembly.policy.fused() && !assembly.policy.parallel &&
                       draft.has_documents && !draft.optimistic;
  AuditJob audit;
  if (audited) audit.stored = StoredPlan(assembly.plan);
  KVASIR_RETURN_IF_ERROR(RepairRows(draft, &assembly, &prompt.report));
  Count(draft, assembly, &prompt.report);
  if (draft.optimistic) SplitDraft(&assembly, &prompt);
  prompt.plan = std::move(assembly.plan);
  prompt.name_space = draft.name_space;
  prompt.publish_prefix = draft.policy.kind == PolicyKind::kPrefix;
  // Answers are erased by collection: one over documents of another than its own is not kept.
  const bool at_home =
      std::all_of(draft.pieces.begin(), draft.pieces.end(),
                  [&](const Piece& piece) { return piece.name_space == draft.name_space; });
  prompt.keep_answer = prompt.past_answers != nullptr && request.cache.store && at_home;
  if (audited) {
    audit.served = prompt.plan;
    audit.scope = ScopeOf(draft);
    audit.group = Digest64Of(draft.name_space);
    audit.policy = draft.policy.Name();
    audit.epsilon = draft.policy.epsilon;
    auditor_.Offer(std::move(audit));
  }
  return prompt;
}

}  // namespace kvasir
