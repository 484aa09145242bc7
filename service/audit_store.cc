#include "service/audit_store.h"

#include <algorithm>
#include <iterator>
#include <span>
#include <utility>

#include "cache/digest.h"
#include "retrieval/record.h"

namespace kvasir {
namespace {

// Beside the kinds of documents and choices (0xD2): records of this store alone. The older ones
// have no group.
constexpr RecordKind kSampleWithoutGroup{0xD1}, kSampleRecord{0xD3};

// Ascending numbers are ascending keys.
std::string BigEndian(uint64_t number) {
  std::string bytes;
  for (int shift = 56; shift >= 0; shift -= 8) bytes += static_cast<char>(number >> shift);
  return bytes;
}

uint64_t NumberOf(std::string_view bytes) {
  uint64_t number = 0;
  for (const char c : bytes) number = number << 8 | static_cast<uint8_t>(c);
  return number;
}

std::string Encode(uint64_t question, const CalibrationSample& sample) {
  RecordWriter writer(kSampleRecord);
  writer.Int(static_cast<int64_t>(question));
  writer.Int(static_cast<int64_t>(sample.group));
  for (const auto* values : {&sample.movement, &sample.kl, &sample.charged}) {
    writer.Array(std::span<const double>(*values));
  }
  return writer.Finish();
}

Status DecodeAs(RecordKind kind, std::string_view bytes, uint64_t* question,
                CalibrationSample* sample) {
  KVASIR_ASSIGN_OR_RETURN(RecordReader reader,
                          RecordReader::Open(kind, bytes, "a calibration sample"));
  *question = static_cast<uint64_t>(reader.Int());
  if (kind == kSampleRecord) sample->group = static_cast<uint64_t>(reader.Int());
  for (auto* values : {&sample->movement, &sample->kl, &sample->charged}) {
    *values = reader.Array<double>();
  }
  KVASIR_RETURN_IF_ERROR(reader.Finish());
  return Fits(*sample, std::size(kCertifyRungs)) ? Status::Ok() : DataLoss("of another ladder");
}

Status Decode(std::string_view bytes, uint64_t* question, CalibrationSample* sample) {
  const Status status = DecodeAs(kSampleRecord, bytes, question, sample);
  if (status.ok()) return status;
  *sample = {};
  return DecodeAs(kSampleWithoutGroup, bytes, question, sample);
}

}  // namespace

std::string AuditScope::Key() const {
  DigestBuilder digest("audit scope");
  digest.Add("model", model_digest).Add("ingestion", ingestion);
  return digest.Add("codec", codec).Add("ladder", ladder).Finish().Bytes();
}

Result<AuditStore::Shelf*> AuditStore::OpenLocked(const std::string& key) {
  const auto found = shelves_.find(key);
  if (found != shelves_.end()) return &found->second;
  Shelf shelf;
  const Status status = store_.Scan(key, [&](std::string_view name, std::string_view value) {
    Entry entry;
    entry.number = NumberOf(name.substr(key.size()));
    if (Decode(value, &entry.question, &entry.sample).ok()) {
      shelf.entries.push_back(std::move(entry));
    } else {
      ++unreadable_;
    }
    return true;
  });
  KVASIR_RETURN_IF_ERROR(status);
  return &shelves_.emplace(key, std::move(shelf)).first->second;
}

Result<AuditStore::Samples> AuditStore::Load(const AuditScope& scope) {
  const std::lock_guard lock(mutex_);
  KVASIR_ASSIGN_OR_RETURN(Shelf * shelf, OpenLocked(scope.Key()));
  if (shelf->samples == nullptr) {
    auto samples = std::make_shared<std::vector<CalibrationSample>>();
    for (const Entry& entry : shelf->entries) samples->push_back(entry.sample);
    shelf->samples = std::move(samples);
  }
  return shelf->samples;
}

Status AuditStore::Add(const AuditScope& scope, const CalibrationSample& sample,
                       uint64_t question) {
  KVASIR_CHECK(Fits(sample, std::size(kCertifyRungs)));
  const std::lock_guard lock(mutex_);
  const std::string key = scope.Key();
  KVASIR_ASSIGN_OR_RETURN(Shelf * shelf, OpenLocked(key));
  std::vector<Entry>& entries = shelf->entries;
  auto same = std::find_if(entries.begin(), entries.end(), [question](const Entry& entry) {
    return question != 0 && entry.question == question;
  });
  if (same == entries.end() && entries.size() >= kMaxAuditSamples) same = entries.begin();
  const uint64_t number = entries.empty() ? 1 : entries.back().number + 1;
  WriteOperations write;
  write.puts.emplace_back(key + BigEndian(number), Encode(question, sample));
  if (same != entries.end()) write.deletes.push_back(key + BigEndian(same->number));
  KVASIR_RETURN_IF_ERROR(store_.Write(write));
  if (same != entries.end()) entries.erase(same);
  entries.push_back({number, question, sample});
  shelf->samples.reset();
  return Status::Ok();
}

int64_t AuditStore::unreadable() const {
  const std::lock_guard lock(mutex_);
  return unreadable_;
}

}  // namespace kvasir
