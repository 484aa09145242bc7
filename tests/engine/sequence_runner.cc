#include "tests/engine/sequence_runner.h"

#include <gtest/gtest.h>

#include <numeric>

#include "engine/key_balance.h"

namespace kvasir::test {

SequenceRunner::SequenceRunner(std::shared_ptr<const Model> model, Backend& backend,
                               int32_t sequences, int32_t max_tokens, DType kv_dtype,
                               std::span<const int32_t> balance_ids)
    : model_(std::move(model)),
      blocks_each_(BlocksFor(max_tokens)),
      lengths_(static_cast<size_t>(sequences), 0),
      pool_(MakeKvPool(*model_, backend, kv_dtype, sequences * blocks_each_, balance_ids).value()),
      workspace_(backend) {}

std::vector<int32_t> SequenceRunner::BlocksOf(int32_t sequence) const {
  // Neighbouring sequences lie interleaved and backwards: nothing may rely on their order.
  std::vector<int32_t> blocks(static_cast<size_t>(blocks_each_));
  const auto sequences = static_cast<int32_t>(lengths_.size());
  for (int32_t i = 0; i < blocks_each_; ++i) {
    blocks[static_cast<size_t>(i)] = (blocks_each_ - 1 - i) * sequences + sequence;
  }
  return blocks;
}

StepBatch SequenceRunner::BatchOf(const std::vector<RunSlice>& slices) {
  StepBatch batch;
  for (const RunSlice& slice : slices) {
    const std::vector<int32_t> blocks = BlocksOf(slice.sequence);
    int32_t& length = lengths_[static_cast<size_t>(slice.sequence)];
    const int32_t row_begin = batch.rows();
    const auto segment = static_cast<int32_t>(batch.segments.size());
    for (const int32_t id : slice.ids) {
      const int32_t block = blocks.at(static_cast<size_t>(length / kBlockTokens));
      batch.token_ids.push_back(id);
      batch.positions.push_back(length);
      batch.local_positions.push_back(length);
      batch.slots.push_back(block * kBlockTokens + length % kBlockTokens);
      ++length;
      if (slice.all_logits) batch.logit_rows.push_back(batch.rows() - 1);
    }
    if (!slice.all_logits && !slice.no_logits) batch.logit_rows.push_back(batch.rows() - 1);
    batch.sequences.push_back({row_begin, batch.rows(), segment, segment + 1});
    batch.segments.push_back({0, length, static_cast<int32_t>(batch.block_table.size())});
    batch.block_table.insert(batch.block_table.end(), blocks.begin(),
                             blocks.begin() + BlocksFor(length));
  }
  return batch;
}

std::vector<std::vector<float>> SequenceRunner::Step(const std::vector<RunSlice>& slices,
                                                     const std::vector<CaptureRange>& captures) {
  const StepBatch batch = BatchOf(slices);
  std::vector<float> logits;
  const Status status = Forward(*model_, *pool_, batch, workspace_, {captures, {}, 0}, &logits);
  EXPECT_TRUE(status.ok()) << status.ToString();
  const auto vocab = static_cast<size_t>(model_->config.vocab);
  EXPECT_EQ(logits.size(), vocab * batch.logit_rows.size());
  std::vector<std::vector<float>> rows;
  for (size_t at = 0; at + vocab <= logits.size(); at += vocab) {
    rows.emplace_back(logits.begin() + static_cast<std::ptrdiff_t>(at),
                      logits.begin() + static_cast<std::ptrdiff_t>(at + vocab));
  }
  return rows;
}

std::vector<float> SequenceRunner::Last(const std::vector<int32_t>& ids, int32_t sequence) {
  auto rows = Step({{sequence, ids}});
  return rows.empty() ? std::vector<float>() : rows.back();
}

}  // namespace kvasir::test
