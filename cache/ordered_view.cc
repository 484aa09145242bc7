// Database::Store: views of `meta` as OrderedStore.
#include <rocksdb/write_batch.h>

#include "cache/byte_io.h"
#include "cache/rocks.h"

namespace kvasir {
namespace {

class OrderedView : public OrderedStore {
 public:
  OrderedView(std::shared_ptr<Database> database, std::string_view prefix)
      : database_(std::move(database)), space_(1, meta_domain::kStore) {
    AppendBigEndian(space_, static_cast<uint32_t>(prefix.size()));
    space_ += prefix;
  }

  Result<std::optional<std::string>> Get(std::string_view key) const override {
    std::string value;
    const rocksdb::Status status =
        rocks().db->Get(rocksdb::ReadOptions(), rocks().meta, space_ + std::string(key), &value);
    if (status.IsNotFound()) return std::optional<std::string>();
    KVASIR_RETURN_IF_ERROR(FromRocks(status, "cannot read the store"));
    return std::optional<std::string>(std::move(value));
  }

  Status Write(const WriteOperations& operations) override {
    rocksdb::WriteBatch batch;
    for (const auto& [key, value] : operations.puts) batch.Put(rocks().meta, space_ + key, value);
    for (const std::string& key : operations.deletes) batch.Delete(rocks().meta, space_ + key);
    return WriteSynced(rocks(), batch, "cannot write the store");
  }

  Status Scan(std::string_view prefix,
              const std::function<bool(std::string_view, std::string_view)>& visit) const override {
    const std::string begin = space_ + std::string(prefix);
    const std::string end = PrefixEnd(begin);
    const rocksdb::Slice upper = ToSlice(end);
    rocksdb::ReadOptions options;
    options.iterate_upper_bound = &upper;  // never empty: begins with kStore
    const std::unique_ptr<rocksdb::Iterator> it(rocks().db->NewIterator(options, rocks().meta));
    for (it->Seek(begin); it->Valid(); it->Next()) {
      if (!visit(ToView(it->key()).substr(space_.size()), ToView(it->value()))) break;
    }
    return FromRocks(it->status(), "cannot scan the store");
  }

 private:
  const Database::Rocks& rocks() const { return database_->rocks(); }
  std::shared_ptr<Database> database_;
  std::string space_;  // key prefix of this view
};

}  // namespace

std::unique_ptr<OrderedStore> Database::Store(std::shared_ptr<Database> database,
                                              std::string_view prefix) {
  return std::make_unique<OrderedView>(std::move(database), prefix);
}

}  // namespace kvasir
