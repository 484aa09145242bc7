// Key balance: how large the dimensions of a model's keys are, so that a KV pool of kI8 can give
// each its share of the steps.
//
// Keys have dimensions that are far larger than the rest (a bias of Qwen2's, low frequencies of
// SmolLM2's), and with one scale a token they would leave the rest a few steps. What is kept is
// key / balance with balance = sqrt(typical magnitude); queries are multiplied instead (as
// SmoothQuant does for weights, Xiao et al. 2022). Mean KL against bf16 keys, one scale a token and
// 32 dimensions: SmolLM2-135M 4.9e-4 -> 1.7e-4 nats, Qwen2.5-Coder-0.5B 2.7e-2 -> 1.6e-3.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "engine/model/model.h"
#include "kernels/core/backend.h"

namespace kvasir {

// Runs the model over `ids` (a text of some hundred tokens) and returns [L][G][D] > 0; the
// dimensions of a rotary pair, whose magnitude no position changes, get the same.
Result<std::vector<float>> MeasureKeyBalance(const Model& model, Backend& backend,
                                             std::span<const int32_t> ids);

// A pool for `model`; of kI8 with keys balanced over `ids`. Empty: ids from all over the
// vocabulary.
Result<std::unique_ptr<KvPool>> MakeKvPool(const Model& model, Backend& backend, DType dtype,
                                           int32_t blocks, std::span<const int32_t> ids);

}  // namespace kvasir
