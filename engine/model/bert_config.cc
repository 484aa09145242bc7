#include <cctype>
#include <charconv>
#include <cstring>
#include <map>
#include <string_view>

#include "engine/model/bert.h"

namespace kvasir {
namespace {

constexpr int kDeepestNesting = 32;

// Reads a JSON object and keeps its members that are strings, numbers or literals, as written
// (strings without quotes). Nested values are checked for form and skipped.
class ConfigScanner {
 public:
  explicit ConfigScanner(std::string_view text) : text_(text) {}

  bool Read(std::map<std::string, std::string>* members) {
    SkipSpace();
    if (!Object(members, 0)) return false;
    SkipSpace();
    return at_ == text_.size();
  }
  size_t at() const { return at_; }

 private:
  char Peek() const { return at_ < text_.size() ? text_[at_] : '\0'; }
  bool Take(char c) {
    SkipSpace();
    if (Peek() != c) return false;
    ++at_;
    return true;
  }
  void SkipSpace() {
    while (at_ < text_.size() && std::string_view(" \t\r\n").find(text_[at_]) != text_.npos) ++at_;
  }

  bool String(std::string* out) {
    if (!Take('"')) return false;
    for (; at_ < text_.size() && text_[at_] != '"'; ++at_) {
      if (static_cast<unsigned char>(text_[at_]) < 0x20) return false;
      if (text_[at_] == '\\') ++at_;  // no name or value we read holds an escape
      if (at_ < text_.size()) out->push_back(text_[at_]);
    }
    return Take('"');
  }

  bool Scalar(std::string* out) {
    while (std::isalnum(static_cast<unsigned char>(Peek())) ||
           (Peek() && std::strchr("+-.", Peek()))) {
      out->push_back(text_[at_++]);
    }
    return !out->empty();
  }

  bool Value(std::string* out, int depth) {
    if (depth > kDeepestNesting) return false;
    SkipSpace();
    switch (Peek()) {
      case '"':
        return String(out);
      case '{':
        return Object(nullptr, depth + 1);
      case '[':
        return Array(depth + 1);
      default:
        return Scalar(out);
    }
  }

  bool Array(int depth) {
    if (!Take('[')) return false;
    if (Take(']')) return true;
    do {
      std::string ignored;
      if (!Value(&ignored, depth)) return false;
    } while (Take(','));
    return Take(']');
  }

  bool Object(std::map<std::string, std::string>* members, int depth) {
    if (!Take('{')) return false;
    if (Take('}')) return true;
    do {
      std::string key, value;
      if (!String(&key) || !Take(':') || !Value(&value, depth)) return false;
      if (members && !members->emplace(std::move(key), std::move(value)).second) return false;
    } while (Take(','));
    return Take('}');
  }

  std::string_view text_;
  size_t at_ = 0;
};

// Reads typed fields; the first error sticks.
class Fields {
 public:
  Fields(std::map<std::string, std::string> members, std::string name)
      : members_(std::move(members)), name_(std::move(name)) {}

  const Status& status() const { return status_; }

  int32_t Count(const std::string& key, int32_t most) {
    int32_t value = 0;
    const std::string& text = members_[key];
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error != std::errc() || end != text.data() + text.size() || value < 1 || value > most) {
      Fail(InvalidArgument(name_ + ": " + key + " must be a whole number from 1 to " +
                           std::to_string(most) + ", found \"" + text.substr(0, 40) + "\""));
    }
    return value;
  }

  float Epsilon(const std::string& key) {
    double value = 0;
    const std::string& text = members_[key];
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error != std::errc() || end != text.data() + text.size() || !(value > 0 && value < 1)) {
      Fail(InvalidArgument(name_ + ": " + key + " must be a number between 0 and 1"));
    }
    return static_cast<float>(value);
  }

  // An absent field is `expected`.
  void Require(const std::string& key, const std::string& expected) {
    const auto found = members_.find(key);
    if (found == members_.end() || found->second == expected) return;
    Fail(Unimplemented(name_ + ": " + key + " is \"" + found->second.substr(0, 40) +
                       "\", supported is \"" + expected + "\""));
  }

 private:
  void Fail(Status status) {
    if (status_.ok()) status_ = std::move(status);
  }

  std::map<std::string, std::string> members_;
  std::string name_;
  Status status_;
};

}  // namespace

Result<BertConfig> ParseBertConfig(std::string_view json, const std::string& name) {
  std::map<std::string, std::string> members;
  ConfigScanner scanner(json);
  if (!scanner.Read(&members)) {
    return InvalidArgument(name + " is not a JSON object (byte " + std::to_string(scanner.at()) +
                           ")");
  }
  if (!members.contains("model_type")) return InvalidArgument(name + " names no model_type");
  Fields fields(std::move(members), name);
  fields.Require("model_type", "bert");
  fields.Require("hidden_act", "gelu");
  fields.Require("position_embedding_type", "absolute");
  BertConfig config;
  config.layers = fields.Count("num_hidden_layers", 128);
  config.width = fields.Count("hidden_size", 8192);
  config.heads = fields.Count("num_attention_heads", 256);
  config.ffn_width = fields.Count("intermediate_size", 65536);
  config.vocab = fields.Count("vocab_size", 1 << 24);
  config.positions = fields.Count("max_position_embeddings", 1 << 16);
  config.types = fields.Count("type_vocab_size", 1024);
  config.norm_eps = fields.Epsilon("layer_norm_eps");
  KVASIR_RETURN_IF_ERROR(fields.status());
  if (config.width % config.heads != 0) {
    return InvalidArgument(name + ": hidden_size " + std::to_string(config.width) +
                           " is no multiple of num_attention_heads " +
                           std::to_string(config.heads));
  }
  return config;
}

}  // namespace kvasir
