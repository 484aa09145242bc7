#include "tests/engine/tiny_model.h"

#include <cmath>
#include <vector>

namespace kvasir::test {
namespace {

// SplitMix64: the same numbers on every machine, unlike the standard library's distributions.
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed * 0x9E3779B97F4A7C15 + 1) {}
  uint64_t Next() {
    uint64_t x = state_ += 0x9E3779B97F4A7C15;
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9;
    x = (x ^ x >> 27) * 0x94D049BB133111EB;
    return x ^ x >> 31;
  }
  float Uniform() { return static_cast<float>(Next() >> 40) * 0x1p-23F - 1.0F; }  // [-1, 1)

 private:
  uint64_t state_;
};

// Where a block format keeps fp16 factors, and what they must be for values of deviation 1.
struct BlockScales {
  int scale_at;
  float scale;
  int minimum_at = -1;  // none
  float minimum = 0.0F;
};

// Levels are uniform: n steps have a deviation of n / sqrt(12). K-quants multiply by a random
// 6-bit (or int8) group scale, whose root mean square is 36.4 (73.9).
BlockScales ScalesOf(DType dtype) {
  switch (dtype) {
    case DType::kQ4_0:
      return {0, 1 / 4.62F};
    case DType::kQ4_1:
      return {0, 1 / 4.62F, 2, -7.5F / 4.62F};
    case DType::kQ5_0:
      return {0, 1 / 9.24F};
    case DType::kQ5_1:
      return {0, 1 / 9.24F, 2, -15.5F / 9.24F};
    case DType::kQ8_0:
      return {0, 1 / 73.9F};
    case DType::kQ4_K:
      return {0, 1 / (4.62F * 50), 2, 7.5F / (4.62F * 50)};
    case DType::kQ5_K:
      return {0, 1 / (9.24F * 50), 2, 15.5F / (9.24F * 50)};
    case DType::kQ6_K:
      return {208, 1 / (18.5F * 73.9F)};
    default:
      return {-1, 1.0F};
  }
}

void PutF16(std::string* block, int at, float value) {
  const uint16_t bits = F32ToF16(value);
  std::memcpy(block->data() + at, &bits, sizeof bits);
}

std::string RandomBlock(DType dtype, float deviation, Random& random) {
  std::string block(static_cast<size_t>(TraitsOf(dtype).block_bytes), '\0');
  for (char& byte : block) byte = static_cast<char>(random.Next());
  const BlockScales scales = ScalesOf(dtype);
  PutF16(&block, scales.scale_at, scales.scale * deviation);
  if (scales.minimum_at >= 0) PutF16(&block, scales.minimum_at, scales.minimum * deviation);
  return block;
}

void AppendElement(DType dtype, float value, std::string* out) {
  if (dtype == DType::kF32) return AppendRaw(out, value);
  AppendRaw(out, dtype == DType::kF16 ? F32ToF16(value) : F32ToBF16(value));
}

// GPT-2's spelling of a byte: printable ones as themselves, others from U+0100 on.
std::string ByteSpelling(int byte) {
  const auto plain = [](int b) {
    return (b >= '!' && b <= '~') || (b >= 0xA1 && b <= 0xAC) || (b >= 0xAE && b <= 0xFF);
  };
  int code = byte;
  if (!plain(byte)) {
    code = 256;
    for (int b = 0; b < byte; ++b) code += plain(b) ? 0 : 1;
  }
  if (code < 0x80) return std::string(1, static_cast<char>(code));
  return {static_cast<char>(0xC0 | code >> 6), static_cast<char>(0x80 | (code & 0x3F))};
}

void AddVocabulary(GgufBuilder& file) {
  std::vector<std::string> tokens = {"<|endoftext|>", "<|im_start|>", "<|im_end|>"};
  std::vector<std::string> merges;
  for (int byte = 0; byte < 256; ++byte) tokens.push_back(ByteSpelling(byte));
  const std::string letters = "etaoinshrdlu";
  for (size_t i = 0; tokens.size() < kTinyVocabulary; ++i) {
    const std::string left =
        i < letters.size() ? ByteSpelling(' ') : std::string(1, letters[i / letters.size() - 1]);
    const std::string right(1, letters[i % letters.size()]);
    merges.push_back(left + " " + right);
    tokens.push_back(left + right);
  }
  std::vector<int32_t> types(tokens.size(), 1);
  types[0] = types[1] = types[2] = 3;
  file.String("tokenizer.ggml.model", "gpt2");
  file.String("tokenizer.ggml.pre", "gpt-2");
  file.Strings("tokenizer.ggml.tokens", tokens);
  file.Array("tokenizer.ggml.token_type", GgufType::kInt32, types);
  file.Strings("tokenizer.ggml.merges", merges);
  file.Uint32("tokenizer.ggml.bos_token_id", 1);
  file.Uint32("tokenizer.ggml.eos_token_id", 2);
  file.Bool("tokenizer.ggml.add_bos_token", false);
  file.String("tokenizer.chat_template",
              "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + "
              "message['content'] + '<|im_end|>' + '\n'}}{% endfor %}");
}

std::string ArchitectureName(Architecture architecture) {
  switch (architecture) {
    case Architecture::kLlama:
      return "llama";
    case Architecture::kQwen2:
      return "qwen2";
    case Architecture::kQwen3:
      return "qwen3";
    case Architecture::kGemma3:
      return "gemma3";
  }
  return "";
}

// Adds tensors with seeds of their own, so that one more tensor does not change the others.
class TensorWriter {
 public:
  TensorWriter(GgufBuilder& file, uint64_t seed) : file_(file), seed_(seed * 1000) {}

  void Matrix(const std::string& name, DType dtype, int64_t n, int64_t k, float gain = 1.0F) {
    const float deviation = gain / std::sqrt(static_cast<float>(k));
    file_.Tensor(name, dtype, {k, n}, RandomTensorData(dtype, n * k, deviation, ++seed_));
  }
  // center + uniform noise of the given deviation.
  void Vector(const std::string& name, int64_t n, float center, float deviation) {
    std::string data;
    Random random(++seed_);
    for (int64_t i = 0; i < n; ++i) {
      AppendRaw(&data, center + deviation * std::sqrt(3.0F) * random.Uniform());
    }
    file_.Tensor(name, DType::kF32, {n}, data);
  }

 private:
  GgufBuilder& file_;
  uint64_t seed_;
};

void AddAttention(const TinyModelOptions& o, const std::string& prefix, TensorWriter& write) {
  const int64_t q = int64_t{o.heads} * o.head_dim;
  const int64_t kv = int64_t{o.kv_heads} * o.head_dim;
  write.Vector(prefix + "attn_norm.weight", o.width, 1.0F, 0.1F);
  write.Matrix(prefix + "attn_q.weight", o.weights, q, o.width, 1.5F);
  write.Matrix(prefix + "attn_k.weight", o.weights, kv, o.width, 1.5F);
  write.Matrix(prefix + "attn_v.weight", o.weights, kv, o.width);
  write.Matrix(prefix + "attn_output.weight", o.weights, o.width, q);
  if (o.architecture == Architecture::kQwen2) {
    write.Vector(prefix + "attn_q.bias", q, 0.0F, 0.3F);
    write.Vector(prefix + "attn_k.bias", kv, 0.0F, 0.3F);
    write.Vector(prefix + "attn_v.bias", kv, 0.0F, 0.3F);
  }
  if (o.architecture == Architecture::kQwen3 || o.architecture == Architecture::kGemma3) {
    write.Vector(prefix + "attn_q_norm.weight", o.head_dim, 1.2F, 0.1F);
    write.Vector(prefix + "attn_k_norm.weight", o.head_dim, 1.2F, 0.1F);
  }
}

void AddLayer(const TinyModelOptions& o, const std::string& prefix, TensorWriter& write) {
  AddAttention(o, prefix, write);
  write.Vector(prefix + "ffn_norm.weight", o.width, 1.0F, 0.1F);
  write.Matrix(prefix + "ffn_gate.weight", o.weights, o.ffn_width, o.width);
  write.Matrix(prefix + "ffn_up.weight", o.weights, o.ffn_width, o.width);
  write.Matrix(prefix + "ffn_down.weight", o.weights, o.width, o.ffn_width);
  if (o.architecture == Architecture::kGemma3) {
    write.Vector(prefix + "post_attention_norm.weight", o.width, 0.5F, 0.05F);
    write.Vector(prefix + "post_ffw_norm.weight", o.width, 0.5F, 0.05F);
  }
}

}  // namespace

std::string RandomTensorData(DType dtype, int64_t elements, float deviation, uint64_t seed) {
  Random random(seed);
  std::string data;
  const DTypeTraits& traits = TraitsOf(dtype);
  for (int64_t i = 0; i < elements; i += traits.block_elements) {
    if (traits.block_elements > 1) {
      data += RandomBlock(dtype, deviation, random);
    } else {
      AppendElement(dtype, random.Uniform() * std::sqrt(3.0F) * deviation, &data);
    }
  }
  return data;
}

GgufBuilder TinyModelBuilder(const TinyModelOptions& o) {
  GgufBuilder file;
  const std::string arch = ArchitectureName(o.architecture);
  const auto uint32 = [&](const std::string& key, int32_t value) {
    file.Uint32(arch + "." + key, static_cast<uint32_t>(value));
  };
  file.String("general.architecture", arch);
  file.String("general.name", "tiny " + arch);
  uint32("block_count", o.layers);
  uint32("context_length", o.context);
  uint32("embedding_length", o.width);
  uint32("feed_forward_length", o.ffn_width);
  uint32("attention.head_count", o.heads);
  uint32("attention.head_count_kv", o.kv_heads);
  uint32("attention.key_length", o.head_dim);
  uint32("attention.value_length", o.head_dim);
  file.Float(arch + ".rope.freq_base", o.theta);
  file.Float(arch + ".attention.layer_norm_rms_epsilon", 1e-5F);
  if (o.architecture == Architecture::kGemma3) {
    uint32("attention.sliding_window", o.window);
    if (o.window_pattern > 0) uint32("attention.sliding_window_pattern", o.window_pattern);
  }
  AddVocabulary(file);
  return file;
}

void AddTinyTensors(const TinyModelOptions& o, GgufBuilder& file) {
  TensorWriter write(file, o.seed);
  // Rows of deviation 1 whatever the width, before gemma's factor of sqrt(E).
  const float gain = o.architecture == Architecture::kGemma3 ? 1.0F : std::sqrt(1.0F * o.width);
  write.Matrix("token_embd.weight", o.embedding, kTinyVocabulary, o.width, gain);
  write.Vector("output_norm.weight", o.width, 1.0F, 0.1F);
  for (int32_t i = 0; i < o.layers; ++i) {
    AddLayer(o, "blk." + std::to_string(i) + ".", write);
  }
  if (!o.tied) write.Matrix("output.weight", o.embedding, kTinyVocabulary, o.width, 3.0F);
  if (o.llama3_factors) {
    std::string factors;
    for (int32_t j = 0; j < o.head_dim / 2; ++j) {
      AppendRaw(&factors, j < o.head_dim / 4 ? 1.0F : 8.0F);
    }
    file.Tensor("rope_freqs.weight", DType::kF32, {o.head_dim / 2}, factors);
  }
}

std::string TinyModelBytes(const TinyModelOptions& options) {
  GgufBuilder file = TinyModelBuilder(options);
  AddTinyTensors(options, file);
  return file.Bytes();
}

std::string WriteTinyModel(const TinyModelOptions& options) {
  return WriteTempFile("tiny-" + ArchitectureName(options.architecture) + ".gguf",
                       TinyModelBytes(options));
}

}  // namespace kvasir::test
