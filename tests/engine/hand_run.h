// HandRun: what tests use to compute one prompt in one step and see the KV of every row.
#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <utility>
#include <vector>

#include "engine/block_pool.h"
#include "engine/model/forward.h"
#include "engine/sequence.h"
#include "tests/engine/engine_harness.h"

namespace kvasir::test {

// A step driven by hand: a pool, one sequence, one batch; no engine thread, no scheduler. For tests
// that look at the KV of single rows. Not thread-safe; the model must outlive it.
struct HandRun {
  HandRun(const Loaded& loaded, int32_t blocks)
      : model(*loaded.model),
        backend(*loaded.backend),
        pool(blocks),
        kv(std::move(backend.CreateKvPool(model.config.Layout(DType::kF32), blocks)).value()),
        workspace(backend) {}

  std::shared_ptr<const KvBlocks> Load(const KvCapture& capture) {
    auto handle = pool.Own(*pool.Allocate(BlocksFor(capture.tokens)), capture.tokens);
    const auto planes = PlanesOf(capture);
    for (size_t layer = 0; layer < planes.size(); ++layer) {
      const auto& rope = model.config.ropes[size_t(model.config.layer_rope[layer])];
      EXPECT_TRUE(
          backend.LoadKv(*kv, static_cast<int32_t>(layer), planes[layer], handle->ids(), &rope)
              .ok());
    }
    return handle;
  }

  // Computes all rows of a prompt in one step; captures all of them.
  KvCapture Compute(std::vector<SegmentPlan> segments) {
    Sequence sequence(1, Ask(std::move(segments)), 1 << 20);
    std::vector<BlockCopy> copies;
    own = *pool.Allocate(sequence.BlocksNeeded());
    sequence.Place(own, &copies);
    for (const BlockCopy& copy : copies) backend.CopyBlock(*kv, copy.from, copy.to);
    StepBatch batch;
    sequence.AppendRows(sequence.rows_left(), &batch);
    KvCapture capture = KvCapture::For(kv->layout(), batch.rows());
    const Status status =
        Forward(model, *kv, batch, workspace, {{{&capture, 0, batch.rows(), 0}}, {}, 0}, &logits);
    EXPECT_TRUE(status.ok()) << status.ToString();
    positions = batch.positions;
    return capture;
  }

  const Model& model;
  Backend& backend;
  BlockPool pool;
  std::unique_ptr<KvPool> kv;
  Workspace workspace;
  Ids own, positions;
  std::vector<float> logits;
};

}  // namespace kvasir::test
