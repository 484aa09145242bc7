#include "service/eval/checkpoint.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <system_error>

#include "retrieval/content_digest.h"
#include "service/eval/item_json.h"

namespace kvasir {
namespace {

namespace json = boost::json;

constexpr int64_t kVersion = 1;
constexpr char kMagic[] = "kvasir_eval_checkpoint";

std::string ErrnoText() { return std::system_category().message(errno); }

Status FileError(const std::string& path, const std::string& doing) {
  return Unavailable(path + ": cannot " + doing + ": " + ErrnoText());
}

std::string DigestOf(const EvalIdentity& identity) {
  std::string all;
  for (const auto& [name, value] : identity) all += ContentDigest({name, value});
  return ContentDigest({all});
}

std::string HeaderLine(const EvalIdentity& identity) {
  json::object settings;
  for (const auto& [name, value] : identity) settings[name] = value;
  return json::serialize(json::object{
      {kMagic, kVersion}, {"digest", DigestOf(identity)}, {"settings", std::move(settings)}});
}

std::string Shown(const std::string& value) {
  constexpr size_t kLongest = 60;
  return value.size() <= kLongest ? "'" + value + "'" : "'" + value.substr(0, kLongest) + "...'";
}

// "seed (1 there, 2 now)" for each setting that is not the same on both sides.
std::string Differences(const json::object& there, const EvalIdentity& now) {
  std::string text;
  auto add = [&text](const std::string& one) { text += (text.empty() ? "" : ", ") + one; };
  for (const auto& [name, value] : now) {
    const json::value* other = there.if_contains(name);
    if (other == nullptr || !other->is_string()) {
      add(name + " (not there, " + Shown(value) + " now)");
    } else if (std::string_view(other->get_string()) != value) {
      add(name + " (" + Shown(std::string(std::string_view(other->get_string()))) + " there, " +
          Shown(value) + " now)");
    }
  }
  for (const auto& field : there) {
    const std::string name(std::string_view(field.key()));
    const bool known = std::any_of(now.begin(), now.end(),
                                   [&name](const auto& setting) { return setting.first == name; });
    if (!known) add(name + " (there alone)");
  }
  return text.empty() ? "its digest" : text;
}

Status NoCheckpoint(const std::string& path) {
  return FailedPrecondition(
      path +
      " is not a checkpoint of kvasir eval, so it is left alone: name another "
      "output, or move it away");
}

// Whether the header is a checkpoint's (else kFailedPrecondition), and of this evaluation.
Status CheckHeader(const std::string& path, std::string_view line, const EvalIdentity& identity,
                   bool restart) {
  Result<json::value> header = ParseJsonText(line);
  const json::object* object = header.ok() ? header->if_object() : nullptr;
  const json::value* version = object == nullptr ? nullptr : object->if_contains(kMagic);
  if (version == nullptr) return NoCheckpoint(path);
  if (restart) return Status::Ok();
  const json::value* digest = object->if_contains("digest");
  const json::value* settings = object->if_contains("settings");
  if (*version != kVersion || digest == nullptr || settings == nullptr || !settings->is_object()) {
    return FailedPrecondition(path + " is a checkpoint of another version: --restart begins anew");
  }
  if (*digest == json::value(DigestOf(identity))) return Status::Ok();
  return FailedPrecondition(path + " is the checkpoint of another evaluation; what differs: " +
                            Differences(settings->get_object(), identity) +
                            ". --restart drops it and begins anew");
}

Result<std::string> ReadAll(const std::string& path, int file) {
  std::string text;
  char buffer[1 << 16];
  for (off_t offset = 0;;) {
    const ssize_t got = pread(file, buffer, sizeof buffer, offset);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return FileError(path, "read");
    if (got == 0) return text;
    text.append(buffer, static_cast<size_t>(got));
    offset += got;
  }
}

}  // namespace

std::string CheckpointRow(const EvalRow& row) {
  return row.ingestion + " | " + row.policy + " | " + row.codec;
}

Result<std::unique_ptr<Checkpoint>> Checkpoint::Open(const std::string& path,
                                                     const EvalIdentity& identity, bool restart) {
  const int file = open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
  if (file < 0) return FileError(path, "open for writing");
  std::unique_ptr<Checkpoint> checkpoint(new Checkpoint(path, file));
  struct stat facts {};
  if (fstat(file, &facts) != 0) return FileError(path, "look at");
  if (!S_ISREG(facts.st_mode)) return NoCheckpoint(path);
  if (flock(file, LOCK_EX | LOCK_NB) != 0) {
    if (errno != EWOULDBLOCK) return FileError(path, "lock");
    return FailedPrecondition(path +
                              " is in use by another kvasir eval: wait for its end, or name "
                              "another output");
  }
  KVASIR_RETURN_IF_ERROR(checkpoint->Load(identity, restart));
  return checkpoint;
}

Checkpoint::~Checkpoint() { close(file_); }

Status Checkpoint::Load(const EvalIdentity& identity, bool restart) {
  KVASIR_ASSIGN_OR_RETURN(std::string text, ReadAll(path_, file_));
  if (text.empty()) return StartAnew(identity);
  const size_t end = text.rfind('\n');
  if (end == std::string::npos) {  // no whole line: the process died writing its first
    const std::string opening = std::string("{\"") + kMagic;
    if (!text.starts_with(opening) && !opening.starts_with(text)) return NoCheckpoint(path_);
    return StartAnew(identity);
  }
  const std::string_view first = std::string_view(text).substr(0, text.find('\n'));
  KVASIR_RETURN_IF_ERROR(CheckHeader(path_, first, identity, restart));
  if (restart) return StartAnew(identity);
  if (end + 1 < text.size()) {
    cut_torn_line_ = true;
    text.resize(end + 1);
    if (ftruncate(file_, static_cast<off_t>(text.size())) != 0) return FileError(path_, "shorten");
  }
  return LoadLines(text);
}

Status Checkpoint::LoadLines(const std::string& text) {
  int64_t number = 2;
  for (size_t begin = text.find('\n') + 1; begin < text.size(); ++number) {
    const size_t end = text.find('\n', begin);
    const Status status = LoadLine(std::string_view(text).substr(begin, end - begin));
    if (!status.ok()) {
      return DataLoss(path_ + " line " + std::to_string(number) + ": " + status.message() +
                      ". --restart drops the checkpoint and begins anew");
    }
    begin = end + 1;
  }
  return Status::Ok();
}

Status Checkpoint::LoadLine(std::string_view line) {
  KVASIR_ASSIGN_OR_RETURN(const json::value value, ParseJsonText(line));
  ObjectReader reader(value, "");
  if (value.is_object() && value.get_object().contains("question")) {
    const int64_t item = reader.Integer("item");
    const json::value* question = reader.Value("question");
    KVASIR_RETURN_IF_ERROR(reader.status());
    KVASIR_ASSIGN_OR_RETURN(questions_[item], QuestionFromJson(*question, "question"));
    return Status::Ok();
  }
  const std::string row = reader.Text("row");
  const json::value* result = reader.Value("result");
  KVASIR_RETURN_IF_ERROR(reader.status());
  KVASIR_ASSIGN_OR_RETURN(ItemResult read, ItemFromJson(*result, "result"));
  results_[{row, read.item}] = std::move(read);
  return Status::Ok();
}

Status Checkpoint::StartAnew(const EvalIdentity& identity) {
  if (ftruncate(file_, 0) != 0) return FileError(path_, "empty");
  return WriteLine(HeaderLine(identity));
}

Status Checkpoint::WriteLine(std::string line) {
  line += '\n';
  if (lseek(file_, 0, SEEK_END) < 0) return FileError(path_, "seek in");
  for (size_t done = 0; done < line.size();) {
    const ssize_t put = write(file_, line.data() + done, line.size() - done);
    if (put < 0 && errno == EINTR) continue;
    if (put < 0) return FileError(path_, "write to");
    done += static_cast<size_t>(put);
  }
  if (fdatasync(file_) != 0) return FileError(path_, "sync");
  return Status::Ok();
}

const ItemResult* Checkpoint::Find(const std::string& row, int64_t item) const {
  const auto found = results_.find({row, item});
  return found == results_.end() ? nullptr : &found->second;
}

const EvalQuestionText* Checkpoint::FindQuestion(int64_t item) const {
  const auto found = questions_.find(item);
  return found == questions_.end() ? nullptr : &found->second;
}

Status Checkpoint::Append(const std::string& row, const ItemResult& result) {
  KVASIR_RETURN_IF_ERROR(
      WriteLine(json::serialize(json::object{{"row", row}, {"result", ItemToJson(result)}})));
  results_[{row, result.item}] = result;
  return Status::Ok();
}

Status Checkpoint::AppendQuestion(int64_t item, const EvalQuestionText& question) {
  KVASIR_RETURN_IF_ERROR(WriteLine(
      json::serialize(json::object{{"item", item}, {"question", QuestionToJson(question)}})));
  questions_[item] = question;
  return Status::Ok();
}

Status Checkpoint::Remove() {
  if (unlink(path_.c_str()) != 0) return FileError(path_, "remove");
  return Status::Ok();
}

}  // namespace kvasir
