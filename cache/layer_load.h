// LayerLoad: one chunk on its way from its record into the pool, a layer at a time; LoadByLayers:
// many of them side by side, so that a request's first layers are there before its last chunk.
// Private to cache/. One thread at a time.
#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "cache/kv_codec.h"
#include "kernels/core/kv_readiness.h"
#include "kernels/core/status.h"

namespace kvasir {

class LayerLoad {
 public:
  using GroupReader = std::function<Result<RecordBytes>(size_t group)>;

  LayerLoad(const ChunkShape& shape, GroupReader read, std::unique_ptr<KvFill> fill)
      : chunk_{shape, {}}, read_(std::move(read)), fill_(std::move(fill)) {}

  // Loads the next layer, after its group if that is not read yet.
  Status Next();
  // Gives up the fill: a load that is not complete has failed then.
  void Close() { fill_.reset(); }

  int32_t layers() const { return chunk_.shape.layers; }
  const EncodedChunk& chunk() const { return chunk_; }  // as far as it is read
  double read_seconds() const { return read_seconds_; }
  double fill_seconds() const { return fill_seconds_; }

 private:
  Status ReadGroup();

  EncodedChunk chunk_;
  GroupReader read_;
  std::unique_ptr<KvFill> fill_;
  std::vector<KvLayerPlanes> planes_;  // of the groups that are read
  size_t next_ = 0;
  double read_seconds_ = 0, fill_seconds_ = 0;
};

// Layer 0 of all, then layer 1 of all, ... `finished` is called once for each, when it is complete
// and closed or with the error at which it stopped.
void LoadByLayers(std::span<LayerLoad> loads,
                  const std::function<void(size_t index, const Status&)>& finished);

}  // namespace kvasir
