// A file system that can be told to be full: every write, and every new file, then fails.
#pragma once

#include <rocksdb/env.h>
#include <rocksdb/file_system.h>

#include <atomic>
#include <memory>
#include <string>
#include <utility>

namespace kvasir {

class FillableFile : public rocksdb::FSWritableFileOwnerWrapper {
 public:
  FillableFile(std::unique_ptr<rocksdb::FSWritableFile> file, const std::atomic<bool>& full)
      : FSWritableFileOwnerWrapper(std::move(file)), full_(full) {}
  using FSWritableFileOwnerWrapper::Append;
  rocksdb::IOStatus Append(const rocksdb::Slice& data, const rocksdb::IOOptions& options,
                           rocksdb::IODebugContext* debug) override {
    if (full_) return rocksdb::IOStatus::NoSpace("No space left on device");
    return FSWritableFileOwnerWrapper::Append(data, options, debug);
  }

 private:
  const std::atomic<bool>& full_;
};

class FillableFileSystem : public rocksdb::FileSystemWrapper {
 public:
  FillableFileSystem() : FileSystemWrapper(rocksdb::FileSystem::Default()) {}
  const char* Name() const override { return "FillableFileSystem"; }
  rocksdb::IOStatus NewWritableFile(const std::string& name, const rocksdb::FileOptions& options,
                                    std::unique_ptr<rocksdb::FSWritableFile>* file,
                                    rocksdb::IODebugContext* debug) override {
    if (full) return rocksdb::IOStatus::NoSpace("No space left on device");
    std::unique_ptr<rocksdb::FSWritableFile> inner;
    rocksdb::IOStatus status = FileSystemWrapper::NewWritableFile(name, options, &inner, debug);
    if (status.ok()) *file = std::make_unique<FillableFile>(std::move(inner), full);
    return status;
  }
  std::atomic<bool> full{false};
};

}  // namespace kvasir
