#include "service/eval/eval.h"

#include <algorithm>
#include <chrono>
#include <ctime>
#include <utility>

#include "cache/digest.h"

namespace kvasir {
namespace {

// One row and how an item of it is run.
struct RowTask {
  EvalRow row;
  std::function<Result<ItemResult>(ItemRunner&, const EvalPrompt&)> run;
};

std::string NowUtc() {
  const std::time_t now = std::time(nullptr);
  std::tm parts{};
  gmtime_r(&now, &parts);
  char text[32];
  std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &parts);
  return text;
}

RowTask PolicyTask(const std::string& ingestion, KvCodec codec, const FusionPolicy& policy) {
  RowTask task;
  task.row = {ingestion, policy.Name(), std::string(KvCodecName(codec)), "", {}};
  task.run = [=](ItemRunner& runner, const EvalPrompt& prompt) {
    return runner.RunPolicy(prompt, ingestion, codec, policy);
  };
  return task;
}

// All rows but the exact one.
std::vector<RowTask> TasksOf(const EvalOptions& options) {
  std::vector<RowTask> tasks;
  tasks.push_back(
      {{"", kNoiseFloorRow, "", "", {}},
       [](ItemRunner& runner, const EvalPrompt& prompt) { return runner.RunNoiseFloor(prompt); }});
  tasks.push_back(
      {{"", kNoContextRow, "", "", {}},
       [](ItemRunner& runner, const EvalPrompt& prompt) { return runner.RunNoContext(prompt); }});
  for (const std::string& ingestion : options.ingestions) {
    for (const KvCodec codec : options.codecs) {
      tasks.push_back(PolicyTask(ingestion, codec, FusionPolicy::Concat()));
      for (const FusionPolicy& policy : options.policies) {
        if (policy != FusionPolicy::Concat()) tasks.push_back(PolicyTask(ingestion, codec, policy));
      }
    }
  }
  return tasks;
}

class Evaluation {
 public:
  Evaluation(Runtime& runtime, const QuestionFile& questions, const EvalOptions& options,
             Checkpoint* checkpoint, const std::function<bool(const EvalProgress&)>& progress)
      : runtime_(runtime),
        options_(options),
        checkpoint_(checkpoint),
        progress_(progress),
        lab_(runtime),
        runner_(runtime, lab_, options.runner),
        tasks_(TasksOf(options)),
        questions_(questions.questions),
        questions_digest_(questions.digest) {
    if (options.items > 0 && static_cast<size_t>(options.items) < questions_.size()) {
      questions_.resize(static_cast<size_t>(options.items));
    }
  }

  Result<EvalReport> Run() {
    KVASIR_RETURN_IF_ERROR(GatherCorpus());
    EvalReport report = Header();
    exact_.policy = kExactRow;
    state_.items_total = static_cast<int64_t>(questions_.size());
    state_.rows_total = state_.items_total * static_cast<int64_t>(tasks_.size() + 1);
    for (size_t i = 0; i < questions_.size(); ++i) {
      const Status status = RunItem(static_cast<int64_t>(i), &report);
      if (!status.ok()) {
        if (status.code() == StatusCode::kCancelled) return status;
        return Status(status.code(), "question '" + questions_[i].id + "': " + status.message());
      }
      ++state_.items_done;
    }
    KVASIR_RETURN_IF_ERROR(AddCalibrations(&report));
    report.rows.push_back(std::move(exact_));
    for (RowTask& task : tasks_) report.rows.push_back(std::move(task.row));
    return report;
  }

 private:
  bool NeedsCorpus() const {
    return std::find(options_.ingestions.begin(), options_.ingestions.end(), "neighbour") !=
           options_.ingestions.end();
  }

  Status GatherCorpus() {
    if (!NeedsCorpus()) return Status::Ok();
    std::vector<EvalChunk> corpus;
    for (const EvalQuestion& question : questions_) {
      KVASIR_ASSIGN_OR_RETURN(EvalPrompt prompt,
                              MakeEvalPrompt(runtime_, question, options_.prompt));
      for (EvalChunk& chunk : prompt.chunks) corpus.push_back(std::move(chunk));
    }
    lab_.SetCorpus(std::move(corpus));
    return Status::Ok();
  }

  EvalReport Header() const {
    EvalReport report;
    report.model = runtime_.model_name();
    report.model_digest = runtime_.model().digest;
    report.isa = std::string(runtime_.backend().name());
    report.seed = options_.seed;
    report.steps = options_.runner.steps;
    report.system_text = runtime_.config().collection_system;
    report.chunk_tokens = options_.prompt.document_tokens;
    report.started = NowUtc();
    report.config = {{"threads", std::to_string(runtime_.config().engine_threads)},
                     {"kv dtype of the pool", runtime_.config().engine_kv_dtype}};
    return report;
  }

  bool Tell(const std::string& row) {
    state_.row = row;
    state_.seconds = std::chrono::duration<double>(Clock::now() - begin_).count();
    return !progress_ || progress_(state_);
  }

  // Whether all of the item's results are in the checkpoint already.
  bool Restore(int64_t item, EvalReport* report) {
    if (checkpoint_ == nullptr) return false;
    const EvalQuestionText* question = checkpoint_->FindQuestion(item);
    const ItemResult* exact = checkpoint_->Find(CheckpointRow(exact_), item);
    if (question == nullptr || exact == nullptr) return false;
    for (const RowTask& task : tasks_) {
      if (checkpoint_->Find(CheckpointRow(task.row), item) == nullptr) return false;
    }
    report->questions.push_back(*question);
    exact_.items.push_back(*exact);
    for (RowTask& task : tasks_) {
      task.row.items.push_back(*checkpoint_->Find(CheckpointRow(task.row), item));
    }
    state_.rows_total -= static_cast<int64_t>(tasks_.size() + 1);  // no time goes into these
    return true;
  }

  Status Keep(EvalRow* row, ItemResult result, int64_t item) {
    result.item = item;
    ++state_.rows_done;
    if (checkpoint_ != nullptr) {
      KVASIR_RETURN_IF_ERROR(checkpoint_->Append(CheckpointRow(*row), result));
    }
    row->items.push_back(std::move(result));
    return Status::Ok();
  }

  Status RunItem(int64_t item, EvalReport* report) {
    if (Restore(item, report)) return Status::Ok();
    if (!Tell(kExactRow)) return Cancelled("the evaluation was stopped; run it again to go on");
    const EvalQuestion& question = questions_[static_cast<size_t>(item)];
    KVASIR_ASSIGN_OR_RETURN(const EvalPrompt prompt,
                            MakeEvalPrompt(runtime_, question, options_.prompt));
    for (const std::string& ingestion : options_.ingestions) {
      KVASIR_RETURN_IF_ERROR(lab_.Check(ingestion, prompt));
    }
    KVASIR_ASSIGN_OR_RETURN(ItemResult exact, runner_.RunExact(prompt, question.answers));
    const EvalQuestionText text{question.id, question.question, runner_.full_answer(),
                                question.answers};
    if (checkpoint_ != nullptr) KVASIR_RETURN_IF_ERROR(checkpoint_->AppendQuestion(item, text));
    report->questions.push_back(text);
    KVASIR_RETURN_IF_ERROR(Keep(&exact_, std::move(exact), item));
    for (RowTask& task : tasks_) {
      if (!Tell(task.row.policy)) {
        return Cancelled("the evaluation was stopped; run it again to go on");
      }
      KVASIR_ASSIGN_OR_RETURN(ItemResult result, task.run(runner_, prompt));
      KVASIR_RETURN_IF_ERROR(Keep(&task.row, std::move(result), item));
    }
    KVASIR_RETURN_IF_ERROR(Calibrate(prompt));
    lab_.Clear();
    return Status::Ok();
  }

  // A sample of every kind of rows. After the item's rows, so that certify is not calibrated by the
  // question that it answers.
  Status Calibrate(const EvalPrompt& prompt) {
    if (!options_.calibrate) return Status::Ok();
    const uint64_t question = DigestTokens(prompt.Flat().segments.front().token_ids).low | 1;
    for (const std::string& ingestion : options_.ingestions) {
      for (const KvCodec codec : options_.codecs) {
        if (!Tell("calibration")) {
          return Cancelled("the evaluation was stopped; run it again to go on");
        }
        KVASIR_ASSIGN_OR_RETURN(CalibrationSample sample,
                                runner_.MeasureRungs(prompt, ingestion, codec));
        sample.group = Digest64Of(questions_digest_);
        KVASIR_RETURN_IF_ERROR(runtime_.audits().Add(
            EvalScope(runtime_, prompt.primer, ingestion, codec), sample, question));
      }
    }
    return Status::Ok();
  }

  Status AddCalibrations(EvalReport* report) {
    std::vector<FusionPolicy> certified;
    for (const FusionPolicy& policy : options_.policies) {
      if (policy.kind == PolicyKind::kCertify) certified.push_back(policy);
    }
    if (certified.empty() && options_.calibrate) certified.emplace_back();
    for (const FusionPolicy& policy : certified) {
      for (const std::string& ingestion : options_.ingestions) {
        for (const KvCodec codec : options_.codecs) {
          KVASIR_ASSIGN_OR_RETURN(report->calibrations.emplace_back(),
                                  CalibrationOf(policy, ingestion, codec));
        }
      }
    }
    return Status::Ok();
  }

  Result<EvalCalibration> CalibrationOf(const FusionPolicy& policy, const std::string& ingestion,
                                        KvCodec codec) {
    constexpr size_t kPoints = 20;
    const std::vector<int32_t> primer =
        FixedPrimerOf(runtime_, questions_.front(), options_.prompt.collection);
    KVASIR_ASSIGN_OR_RETURN(const AuditStore::Samples samples,
                            runtime_.audits().Load(EvalScope(runtime_, primer, ingestion, codec)));
    EvalCalibration calibration{
        ingestion, std::string(KvCodecName(codec)), policy.epsilon, policy.alpha, 0, {}, {}};
    calibration.samples = static_cast<int64_t>(samples->size());
    calibration.lambda = CalibrateLambda(*samples, policy.epsilon, policy.alpha);
    calibration.curve = CalibrationCurve(*samples, policy.epsilon, kPoints, calibration.lambda);
    return calibration;
  }

  using Clock = std::chrono::steady_clock;

  Runtime& runtime_;
  const EvalOptions& options_;
  Checkpoint* checkpoint_;
  const std::function<bool(const EvalProgress&)>& progress_;
  ChunkLab lab_;
  ItemRunner runner_;
  std::vector<RowTask> tasks_;
  std::vector<EvalQuestion> questions_;
  const std::string questions_digest_;
  EvalRow exact_;
  EvalProgress state_;
  Clock::time_point begin_ = Clock::now();
};

}  // namespace

EvalIdentity IdentityOf(const Runtime& runtime, const EvalOptions& options,
                        const std::string& questions_digest) {
  const std::vector<int32_t> searched = FixedPrimerOf(runtime, {}, options.prompt.collection);
  EvalIdentity identity = {{"model", runtime.model().digest},
                           {"questions", questions_digest},
                           {"items", std::to_string(options.items)},
                           {"steps", std::to_string(options.runner.steps)},
                           {"free answers", options.runner.free_answers ? "yes" : "no"},
                           {"collection", options.prompt.collection},
                           {"top_k", std::to_string(options.prompt.top_k)},
                           {"documents", std::to_string(options.prompt.max_documents)},
                           {"document tokens", std::to_string(options.prompt.document_tokens)},
                           {"system text", runtime.config().collection_system},
                           {"primer", DigestTokens(runtime.configured_primer()).Hex()},
                           {"collection's primer", DigestTokens(searched).Hex()},
                           {"kv dtype", runtime.config().engine_kv_dtype}};
  if (options.calibrate) identity.emplace_back("calibrate", "yes");
  std::string names;
  for (const RowTask& task : TasksOf(options)) names += CheckpointRow(task.row) + "; ";
  identity.emplace_back("rows", names);
  return identity;
}

Result<EvalReport> RunEvaluation(Runtime& runtime, const QuestionFile& questions,
                                 const EvalOptions& options, Checkpoint* checkpoint,
                                 const std::function<bool(const EvalProgress&)>& progress) {
  if (!runtime.model().config.reuse.movable) {
    return Unimplemented("this model's KV cannot be moved (" +
                         runtime.model().config.reuse.why_not +
                         "): there is nothing to evaluate; exact and prefix work");
  }
  return Evaluation(runtime, questions, options, checkpoint, progress).Run();
}

}  // namespace kvasir
