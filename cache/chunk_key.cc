#include "cache/chunk_key.h"

#include "cache/byte_io.h"

namespace kvasir {
namespace {

// Part of every fingerprint: raised when the meaning of stored values changes.
constexpr int64_t kFingerprintVersion = 1;
constexpr size_t kDigestBytes = 16;

void AddRope(DigestBuilder& builder, const RopeTable& rope) {
  builder.Add("rope.pairing", static_cast<int64_t>(rope.pairing))
      .Add("rope.dims", int64_t{rope.rotary_dims})
      .Add("rope.magnitude", static_cast<double>(rope.magnitude));
  for (const double frequency : rope.inv_freq) builder.Add("rope.inv_freq", frequency);
}

void AddGeometry(DigestBuilder& builder, const KvLayout& layout) {
  builder.Add("layers", int64_t{layout.layers})
      .Add("kv_heads", int64_t{layout.kv_heads})
      .Add("head_dim", int64_t{layout.head_dim})
      .Add("pool_dtype", TraitsOf(layout.dtype).name);
}

}  // namespace

std::string_view KvCodecName(KvCodec codec) {
  switch (codec) {
    case KvCodec::kInt8:
      return "int8";
    case KvCodec::kF16:
      return "f16";
    case KvCodec::kF32:
      return "f32";
    case KvCodec::kInt4:
      return "int4";
  }
  return "unknown";
}

Result<KvCodec> ParseKvCodec(std::string_view name) {
  if (name == "fp16") return KvCodec::kF16;
  if (name == "fp32") return KvCodec::kF32;
  for (const KvCodec codec : {KvCodec::kInt8, KvCodec::kF16, KvCodec::kF32, KvCodec::kInt4}) {
    if (name == KvCodecName(codec)) return codec;
  }
  return InvalidArgument("unknown KV codec '" + std::string(name) +
                         "': use int8, int4, fp16 or fp32");
}

Digest128 Fingerprint(const FingerprintFields& fields) {
  DigestBuilder builder("kvasir.fingerprint");
  builder.Add("version", kFingerprintVersion)
      .Add("model", fields.model_digest)
      .Add("tokenizer", fields.tokenizer)
      .Add("context", static_cast<int64_t>(fields.context))
      .Add("anchor", std::span<const int32_t>(fields.anchor_ids))
      .Add("primer", fields.primer_id);
  AddGeometry(builder, fields.layout);
  for (const RopeTable& rope : fields.ropes) AddRope(builder, rope);
  builder.Add("layer_rope", std::span<const int32_t>(fields.layer_rope))
      .Add("layer_window", std::span<const int32_t>(fields.layer_window))
      .Add("codec", KvCodecName(fields.codec))
      .Add("numerics", fields.numerics);
  return builder.Finish();
}

Digest128 DigestTokens(std::span<const int32_t> token_ids) {
  return DigestOf({reinterpret_cast<const char*>(token_ids.data()), token_ids.size_bytes()});
}

std::string ChunkKey::NamespaceBytes(std::string_view name_space) {
  std::string out;
  AppendBigEndian(out, static_cast<uint32_t>(name_space.size()));
  out += name_space;
  return out;
}

std::string ChunkKey::Bytes() const {
  return NamespaceBytes(name_space) + tokens.Bytes() + fingerprint.Bytes();
}

Result<ChunkKey> ChunkKey::Parse(std::string_view bytes) {
  constexpr size_t kFixed = sizeof(uint32_t) + 2 * kDigestBytes;
  if (bytes.size() < kFixed || ReadBigEndian<uint32_t>(bytes.data()) != bytes.size() - kFixed) {
    return DataLoss("malformed chunk key of " + std::to_string(bytes.size()) + " bytes");
  }
  const size_t name_size = bytes.size() - kFixed;
  const char* digests = bytes.data() + sizeof(uint32_t) + name_size;
  return ChunkKey{std::string(bytes.substr(sizeof(uint32_t), name_size)),
                  Digest128::FromBytes(digests + kDigestBytes), Digest128::FromBytes(digests)};
}

ChunkKey MakeChunkKey(std::string_view name_space, const Digest128& fingerprint,
                      std::span<const int32_t> token_ids) {
  return {std::string(name_space), fingerprint, DigestTokens(token_ids)};
}

}  // namespace kvasir
