// Checkpoint: finished (row, item) results of a running evaluation, so that it goes on where it was
// stopped.
//
// An append-only file of JSON lines. The first line holds what decides the results: name and value
// of each setting, and a digest over them. A line is written whole and synced before Append
// returns; a torn last line (the process died in it) is cut off. The file is locked while it is
// open, so that two evaluations never write the same one. Not thread-safe.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "kernels/core/status.h"
#include "service/eval/result.h"

namespace kvasir {

// Everything that decides a result: model digest, questions digest, seed, settings.
using EvalIdentity = std::vector<std::pair<std::string, std::string>>;

// What names a row in the file: its ingestion, policy and codec.
std::string CheckpointRow(const EvalRow& row);

class Checkpoint {
 public:
  // Opens or creates `path`. kFailedPrecondition: it belongs to another evaluation (names the
  // settings that differ, and --restart), is in use, or is no checkpoint at all; kDataLoss: a line
  // before the last is broken. `restart` drops what a checkpoint holds, but never another file.
  static Result<std::unique_ptr<Checkpoint>> Open(const std::string& path,
                                                  const EvalIdentity& identity, bool restart);
  ~Checkpoint();
  Checkpoint(const Checkpoint&) = delete;
  Checkpoint& operator=(const Checkpoint&) = delete;

  // The finished result, null if there is none. Valid until the next Append of the same.
  const ItemResult* Find(const std::string& row, int64_t item) const;
  // Question and full answer of an item; null if there is none.
  const EvalQuestionText* FindQuestion(int64_t item) const;

  Status Append(const std::string& row, const ItemResult& result);
  Status AppendQuestion(int64_t item, const EvalQuestionText& question);

  int64_t results() const { return static_cast<int64_t>(results_.size()); }
  const std::string& path() const { return path_; }
  bool cut_torn_line() const { return cut_torn_line_; }  // at Open

  // Deletes the file: the report is written and nothing is left to resume.
  Status Remove();

 private:
  Checkpoint(std::string path, int file) : path_(std::move(path)), file_(file) {}
  Status Load(const EvalIdentity& identity, bool restart);
  Status LoadLines(const std::string& text);
  Status LoadLine(std::string_view line);
  Status StartAnew(const EvalIdentity& identity);
  Status WriteLine(std::string line);

  std::string path_;
  int file_;
  bool cut_torn_line_ = false;
  std::map<std::pair<std::string, int64_t>, ItemResult> results_;
  std::map<int64_t, EvalQuestionText> questions_;
};

}  // namespace kvasir
