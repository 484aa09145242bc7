#include <algorithm>
#include <iterator>
#include <string_view>
#include <utility>

#include "engine/model/model_config_gguf.h"

namespace kvasir {
namespace {

constexpr int32_t kControlType = 3;
// Control tokens that end a turn or a text, by their usual spelling.
constexpr std::string_view kEndTexts[] = {"<|im_end|>",      "<|eot_id|>",    "<|eom_id|>",
                                          "<end_of_turn>",   "<|endoftext|>", "<|end_of_text|>",
                                          "<|end_of_turn|>", "<|end|>"};

std::string Key(std::string_view name) { return "tokenizer.ggml." + std::string(name); }

// -1 if the key is absent; an error if it names no token.
Result<int32_t> TokenId(const GgufFile& file, std::string_view name, size_t vocabulary) {
  if (!file.Has(Key(name))) return -1;
  KVASIR_ASSIGN_OR_RETURN(const int64_t id,
                          file.Integer(Key(name), 0, static_cast<int64_t>(vocabulary) - 1));
  return static_cast<int32_t>(id);
}

// Padding is never used: published files hold ids beyond the vocabulary here, read as "none".
Result<int32_t> PaddingId(const GgufFile& file, size_t vocabulary) {
  if (!file.Has(Key("padding_token_id"))) return -1;
  KVASIR_ASSIGN_OR_RETURN(const int64_t id,
                          file.Integer(Key("padding_token_id"), INT64_MIN, INT64_MAX));
  return id >= 0 && id < static_cast<int64_t>(vocabulary) ? static_cast<int32_t>(id) : -1;
}

Result<bool> FlagOr(const GgufFile& file, std::string_view name, bool fallback) {
  return file.Has(Key(name)) ? file.Bool(Key(name)) : Result<bool>(fallback);
}

Result<std::string> TextOr(const GgufFile& file, const std::string& key) {
  return file.Has(key) ? file.String(key) : Result<std::string>(std::string());
}

Status CheckLength(const GgufFile& file, std::string_view name, size_t found, size_t wanted) {
  if (found == wanted) return Status::Ok();
  return InvalidArgument(file.path() + ": metadata \"" + Key(name) + "\" has " +
                         std::to_string(found) + " entries for " + std::to_string(wanted) +
                         " tokens");
}

Status ReadTables(const GgufFile& file, VocabularyData* data) {
  KVASIR_ASSIGN_OR_RETURN(data->tokens, file.Strings(Key("tokens")));
  if (data->tokens.empty()) return InvalidArgument(file.path() + ": the vocabulary is empty");
  if (file.Has(Key("scores"))) {
    KVASIR_ASSIGN_OR_RETURN(data->scores, file.Floats(Key("scores")));
    KVASIR_RETURN_IF_ERROR(CheckLength(file, "scores", data->scores.size(), data->tokens.size()));
  }
  if (file.Has(Key("token_type"))) {
    KVASIR_ASSIGN_OR_RETURN(data->types, file.Integers(Key("token_type")));
    KVASIR_RETURN_IF_ERROR(
        CheckLength(file, "token_type", data->types.size(), data->tokens.size()));
  }
  if (file.Has(Key("merges"))) {
    KVASIR_ASSIGN_OR_RETURN(data->merges, file.Strings(Key("merges")));
  }
  return Status::Ok();
}

Status ReadIds(const GgufFile& file, VocabularyData* data) {
  const size_t size = data->tokens.size();
  KVASIR_ASSIGN_OR_RETURN(data->bos, TokenId(file, "bos_token_id", size));
  KVASIR_ASSIGN_OR_RETURN(data->eos, TokenId(file, "eos_token_id", size));
  KVASIR_ASSIGN_OR_RETURN(data->unknown, TokenId(file, "unknown_token_id", size));
  KVASIR_ASSIGN_OR_RETURN(data->padding, PaddingId(file, size));
  std::vector<int32_t> ends = {data->eos};
  for (const char* name : {"eot_token_id", "eom_token_id"}) {
    KVASIR_ASSIGN_OR_RETURN(const int32_t id, TokenId(file, name, size));
    ends.push_back(id);
  }
  for (size_t id = 0; id < data->types.size(); ++id) {
    if (data->types[id] != kControlType) continue;
    if (std::find(std::begin(kEndTexts), std::end(kEndTexts), data->tokens[id]) !=
        std::end(kEndTexts)) {
      ends.push_back(static_cast<int32_t>(id));
    }
  }
  std::erase(ends, -1);
  std::sort(ends.begin(), ends.end());
  ends.erase(std::unique(ends.begin(), ends.end()), ends.end());
  data->end_of_generation = std::move(ends);
  return Status::Ok();
}

// Defaults are those that the makers of these files rely on: SentencePiece models begin with BOS
// and a space, byte-level ones with neither, Llama 3 with BOS.
Status ReadFlags(const GgufFile& file, VocabularyData* data) {
  const bool sentence_piece = data->model == "llama";
  const bool llama3 = data->pre == "llama-bpe" || data->pre == "llama3" || data->pre == "llama-v3";
  KVASIR_ASSIGN_OR_RETURN(data->add_bos, FlagOr(file, "add_bos_token", sentence_piece || llama3));
  KVASIR_ASSIGN_OR_RETURN(data->add_eos, FlagOr(file, "add_eos_token", false));
  KVASIR_ASSIGN_OR_RETURN(data->add_space_prefix, FlagOr(file, "add_space_prefix", sentence_piece));
  return Status::Ok();
}

}  // namespace

Result<VocabularyData> ReadVocabulary(const GgufFile& file) {
  VocabularyData data;
  KVASIR_ASSIGN_OR_RETURN(data.model, file.String(Key("model")));
  KVASIR_ASSIGN_OR_RETURN(data.pre, TextOr(file, Key("pre")));
  KVASIR_RETURN_IF_ERROR(ReadTables(file, &data));
  KVASIR_RETURN_IF_ERROR(ReadIds(file, &data));
  KVASIR_RETURN_IF_ERROR(ReadFlags(file, &data));
  KVASIR_ASSIGN_OR_RETURN(data.chat_template, TextOr(file, "tokenizer.chat_template"));
  return data;
}

}  // namespace kvasir
