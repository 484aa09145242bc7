#include "engine/model/bert.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>
#include <utility>

#include "engine/model/digest.h"
#include "engine/model/mapped_file.h"
#include "engine/model/safetensors.h"

namespace kvasir {
namespace {

struct BertLinear {
  std::unique_ptr<PackedWeight> weight;  // [N][K]
  std::unique_ptr<Buffer> bias;          // [N]
};
struct BertNorm {
  std::unique_ptr<Buffer> weight, bias;  // [E]
};
struct BertLayer {
  BertLinear q, k, v, attention_out;  // [E][E]
  BertNorm attention_norm;
  BertLinear up, down;  // [F][E], [E][F]
  BertNorm output_norm;
};

// Uses of the workspace's slots.
enum Slot : size_t { kHidden, kDelta, kQuery, kKey, kValue, kInner };

std::string_view AsText(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

// Packs named tensors for the backend and counts their bytes; the first error sticks.
class WeightLoader {
 public:
  WeightLoader(const SafetensorsFile& file, Backend& backend) : file_(file), backend_(backend) {
    // Some exports put every name below "bert.".
    if (!file.Find("embeddings.word_embeddings.weight")) prefix_ = "bert.";
  }

  const Status& status() const { return status_; }
  size_t bytes() const { return bytes_; }

  std::unique_ptr<PackedWeight> Matrix(const std::string& name, int64_t n, int64_t k) {
    const auto values = Read(name, std::array{n, k});
    if (!status_.ok()) return nullptr;
    auto packed = backend_.Pack(DType::kF32, values.data(), n, k);
    if (!packed.ok()) return Fail(packed.status());
    bytes_ += (*packed)->bytes();
    return std::move(packed).value();
  }

  std::unique_ptr<Buffer> Vector(const std::string& name, int64_t n) {
    const auto values = Read(name, std::array{n});
    if (!status_.ok()) return nullptr;
    auto buffer = backend_.Allocate(values.size() * sizeof(float));
    if (!buffer.ok()) return Fail(buffer.status());
    backend_.Upload(values.data(), (*buffer)->data(), values.size() * sizeof(float));
    bytes_ += values.size() * sizeof(float);
    return std::move(buffer).value();
  }

  BertLinear Linear(const std::string& name, int64_t n, int64_t k) {
    return {Matrix(name + ".weight", n, k), Vector(name + ".bias", n)};
  }
  BertNorm Norm(const std::string& name, int64_t n) {
    return {Vector(name + ".weight", n), Vector(name + ".bias", n)};
  }

 private:
  std::vector<float> Read(const std::string& name, std::span<const int64_t> shape) {
    if (!status_.ok()) return {};
    auto values = file_.ReadF32(prefix_ + name, shape);
    if (values.ok()) return std::move(values).value();
    Fail(values.status());
    return {};
  }
  std::nullptr_t Fail(Status status) {
    if (status_.ok()) status_ = std::move(status);
    return nullptr;
  }

  const SafetensorsFile& file_;
  Backend& backend_;
  std::string prefix_;
  Status status_;
  size_t bytes_ = 0;
};

BertLayer LoadLayer(WeightLoader& load, const BertConfig& c, int32_t index) {
  const std::string at = "encoder.layer." + std::to_string(index) + ".";
  BertLayer layer;
  layer.q = load.Linear(at + "attention.self.query", c.width, c.width);
  layer.k = load.Linear(at + "attention.self.key", c.width, c.width);
  layer.v = load.Linear(at + "attention.self.value", c.width, c.width);
  layer.attention_out = load.Linear(at + "attention.output.dense", c.width, c.width);
  layer.attention_norm = load.Norm(at + "attention.output.LayerNorm", c.width);
  layer.up = load.Linear(at + "intermediate.dense", c.ffn_width, c.width);
  layer.down = load.Linear(at + "output.dense", c.width, c.ffn_width);
  layer.output_norm = load.Norm(at + "output.LayerNorm", c.width);
  return layer;
}

// Every row stands at its sequence's last position, so that the mask (key <= query) hides nothing.
// *position_ids are the places in the sequences, for the position embeddings.
StepBatch MakeBatch(std::span<const std::vector<int32_t>> sequences,
                    std::vector<int32_t>* position_ids) {
  StepBatch batch;
  int32_t block = 0;
  for (const std::vector<int32_t>& ids : sequences) {
    const auto length = static_cast<int32_t>(ids.size());
    const int32_t row = batch.rows(), segment = static_cast<int32_t>(batch.segments.size());
    batch.segments.push_back({0, length, block});
    batch.sequences.push_back({row, row + length, segment, segment + 1});
    batch.token_ids.insert(batch.token_ids.end(), ids.begin(), ids.end());
    for (int32_t i = 0; i < length; ++i) {
      batch.positions.push_back(length - 1);
      batch.local_positions.push_back(i);
      batch.slots.push_back(block * kBlockTokens + i);
      position_ids->push_back(i);
    }
    for (int32_t end = block + BlocksFor(length); block < end; ++block) {
      batch.block_table.push_back(block);
    }
  }
  return batch;
}

Status CheckSequence(const BertConfig& config, const std::vector<int32_t>& ids) {
  if (ids.empty() || ids.size() > static_cast<size_t>(config.positions)) {
    return InvalidArgument("a text to encode must have 1 to " + std::to_string(config.positions) +
                           " tokens, found " + std::to_string(ids.size()));
  }
  for (const int32_t id : ids) {
    if (id < 0 || id >= config.vocab) {
      return InvalidArgument("token id " + std::to_string(id) + " is outside the vocabulary of " +
                             std::to_string(config.vocab));
    }
  }
  return Status::Ok();
}

}  // namespace

struct Bert::State {
  explicit State(Backend& b) : backend(b), workspace(b) {}

  Backend& backend;
  BertConfig config;
  std::string digest;
  size_t weight_bytes = 0;
  std::unique_ptr<PackedWeight> words, positions, types;  // [V][E], [positions][E], [types][E]
  BertNorm embedding_norm;
  std::vector<BertLayer> layers;
  Workspace workspace;
  std::unique_ptr<KvPool> pool;  // one layer, overwritten by each

  Status LoadWeights(const SafetensorsFile& file);
  Status EnsurePool(int32_t blocks);
  void Linear(const TensorView& x, const BertLinear& linear, const TensorView& out) {
    backend.MatMul(x, *linear.weight, linear.bias->f32(), false, out);
  }
  // x = norm(x + delta).
  void AddNorm(const TensorView& x, const TensorView& delta, const BertNorm& norm) {
    backend.Add(x, delta);
    backend.Norm(NormKind::kLayer, x, config.width, norm.weight->f32(), norm.bias->f32(),
                 config.norm_eps, x);
  }
  Status Run(const StepBatch& batch, const std::vector<int32_t>& position_ids, TensorView* out);
};

Status Bert::State::LoadWeights(const SafetensorsFile& file) {
  WeightLoader load(file, backend);
  const BertConfig& c = config;
  words = load.Matrix("embeddings.word_embeddings.weight", c.vocab, c.width);
  positions = load.Matrix("embeddings.position_embeddings.weight", c.positions, c.width);
  types = load.Matrix("embeddings.token_type_embeddings.weight", c.types, c.width);
  embedding_norm = load.Norm("embeddings.LayerNorm", c.width);
  for (int32_t i = 0; i < c.layers && load.status().ok(); ++i) {
    layers.push_back(LoadLayer(load, c, i));
  }
  weight_bytes = load.bytes();
  return load.status().ok() ? backend.status() : load.status();
}

Status Bert::State::EnsurePool(int32_t blocks) {
  if (pool && pool->blocks() >= blocks) return Status::Ok();
  pool.reset();
  const KvLayout layout{1, config.heads, config.head_dim(), DType::kF32};
  KVASIR_ASSIGN_OR_RETURN(pool, backend.CreateKvPool(layout, blocks));
  return Status::Ok();
}

Status Bert::State::Run(const StepBatch& batch, const std::vector<int32_t>& position_ids,
                        TensorView* out) {
  const int64_t rows = batch.rows(), width = config.width;
  KVASIR_ASSIGN_OR_RETURN(const TensorView x, workspace.Get(kHidden, rows, width));
  KVASIR_ASSIGN_OR_RETURN(const TensorView delta, workspace.Get(kDelta, rows, width));
  KVASIR_ASSIGN_OR_RETURN(const TensorView q, workspace.Get(kQuery, rows, width));
  KVASIR_ASSIGN_OR_RETURN(const TensorView k, workspace.Get(kKey, rows, width));
  KVASIR_ASSIGN_OR_RETURN(const TensorView v, workspace.Get(kValue, rows, width));
  KVASIR_ASSIGN_OR_RETURN(const TensorView inner, workspace.Get(kInner, rows, config.ffn_width));
  backend.BeginStep();
  const std::unique_ptr<AttentionPlan> plan = backend.PlanAttention(batch);

  backend.Embed(*words, batch.token_ids, 1.0f, x);
  backend.Embed(*types, std::vector<int32_t>(batch.token_ids.size(), 0), 1.0f, delta);
  backend.Add(x, delta);
  backend.Embed(*positions, position_ids, 1.0f, delta);
  AddNorm(x, delta, embedding_norm);
  for (const BertLayer& layer : layers) {
    Linear(x, layer.q, q);
    Linear(x, layer.k, k);
    Linear(x, layer.v, v);
    backend.AppendKv(*pool, 0, k, v, batch, nullptr);
    AttentionArgs attention;
    attention.pool = pool.get();
    attention.q = q;
    attention.scale = 1.0f / std::sqrt(static_cast<float>(config.head_dim()));
    attention.batch = &batch;
    attention.plan = plan.get();
    attention.out = k;  // the keys lie in the pool by now
    backend.Attention(attention);
    Linear(k, layer.attention_out, delta);
    AddNorm(x, delta, layer.attention_norm);
    Linear(x, layer.up, inner);
    backend.Activate(ActivationKind::kGeluErf, inner, TensorView{}, inner);
    Linear(inner, layer.down, delta);
    AddNorm(x, delta, layer.output_norm);
  }
  backend.EndStep();
  *out = x;
  return Status::Ok();
}

Bert::Bert(std::unique_ptr<State> state) : state_(std::move(state)) {}
Bert::~Bert() = default;
const BertConfig& Bert::config() const { return state_->config; }
const std::string& Bert::digest() const { return state_->digest; }
size_t Bert::weight_bytes() const { return state_->weight_bytes; }

Result<std::unique_ptr<Bert>> Bert::Load(const std::string& folder, Backend& backend) {
  const std::string config_path = folder + "/config.json";
  const std::string weights_path = folder + "/model.safetensors";
  auto state = std::make_unique<State>(backend);
  KVASIR_ASSIGN_OR_RETURN(const MappedFile config_file, MappedFile::Open(config_path));
  KVASIR_ASSIGN_OR_RETURN(state->config, ParseBertConfig(AsText(config_file.bytes()), config_path));
  KVASIR_ASSIGN_OR_RETURN(const SafetensorsFile weights, SafetensorsFile::Open(weights_path));
  KVASIR_RETURN_IF_ERROR(state->LoadWeights(weights));
  KVASIR_ASSIGN_OR_RETURN(const MappedFile weights_file, MappedFile::Open(weights_path));
  state->digest = DigestOf(weights_file.bytes(), DigestOf(config_file.bytes()).low).Hex();
  return std::unique_ptr<Bert>(new Bert(std::move(state)));
}

Status Bert::Encode(std::span<const std::vector<int32_t>> sequences, std::vector<float>* hidden) {
  hidden->clear();
  if (sequences.empty()) return Status::Ok();
  for (const std::vector<int32_t>& ids : sequences) {
    KVASIR_RETURN_IF_ERROR(CheckSequence(state_->config, ids));
  }
  std::vector<int32_t> position_ids;
  const StepBatch batch = MakeBatch(sequences, &position_ids);
  KVASIR_RETURN_IF_ERROR(state_->EnsurePool(static_cast<int32_t>(batch.block_table.size())));
  TensorView out;
  KVASIR_RETURN_IF_ERROR(state_->Run(batch, position_ids, &out));
  hidden->resize(static_cast<size_t>(out.rows * out.cols));
  state_->backend.Download(out.data, hidden->data(), hidden->size() * sizeof(float));
  return state_->backend.status();
}

}  // namespace kvasir
