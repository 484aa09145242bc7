#include "engine/tokenizer/pre_tokenizer.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>
#include <utf8proc.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <optional>

namespace kvasir {
namespace {

// \s is spelled out: PCRE2's own counts U+180E, which Unicode has not called a space since 6.3.
#define KVASIR_SPACE                                                                           \
  "\\t-\\r\\x20\\x{85}\\x{A0}\\x{1680}\\x{2000}-\\x{200A}\\x{2028}\\x{2029}\\x{202F}\\x{205F}" \
  "\\x{3000}"
#define KVASIR_SPACES "[" KVASIR_SPACE "]"
// Letters and numbers of Unicode 16, which Hugging Face's engine knows; Debian 12's PCRE2 ends at
// Unicode 14.
#define KVASIR_L                                                                   \
  "\\p{L}"                                                                         \
  "\\x{1C89}-\\x{1C8A}\\x{A7CB}-\\x{A7CD}\\x{A7DA}-\\x{A7DC}\\x{105C0}-\\x{105F3}" \
  "\\x{10D4A}-\\x{10D65}\\x{10D6F}-\\x{10D85}\\x{10EC2}-\\x{10EC4}"                \
  "\\x{1123F}-\\x{11240}\\x{11380}-\\x{11389}\\x{1138B}\\x{1138E}"                 \
  "\\x{11390}-\\x{113B5}\\x{113B7}\\x{113D1}\\x{113D3}\\x{11BC0}-\\x{11BE0}"       \
  "\\x{11F02}\\x{11F04}-\\x{11F10}\\x{11F12}-\\x{11F33}\\x{1342F}"                 \
  "\\x{13441}-\\x{13446}\\x{13460}-\\x{143FA}\\x{16100}-\\x{1611D}"                \
  "\\x{16D40}-\\x{16D6C}\\x{18CFF}\\x{1B132}\\x{1B155}\\x{1DF25}-\\x{1DF2A}"       \
  "\\x{1E030}-\\x{1E06D}\\x{1E4D0}-\\x{1E4EB}\\x{1E5D0}-\\x{1E5ED}\\x{1E5F0}"      \
  "\\x{2B739}\\x{2EBF0}-\\x{2EE5D}\\x{31350}-\\x{323AF}"
#define KVASIR_N                                                    \
  "\\p{N}"                                                          \
  "\\x{10D40}-\\x{10D49}\\x{116D0}-\\x{116E3}\\x{11BF0}-\\x{11BF9}" \
  "\\x{11F50}-\\x{11F59}\\x{16130}-\\x{16139}\\x{16D70}-\\x{16D79}" \
  "\\x{1CCF0}-\\x{1CCF9}\\x{1D2C0}-\\x{1D2D3}\\x{1E4F0}-\\x{1E4F9}" \
  "\\x{1E5F1}-\\x{1E5FA}"
// Its digit splitter goes by Unicode 17.
#define KVASIR_DIGIT \
  KVASIR_N           \
  "\\x{11DE0}-\\x{11DE9}\\x{16FF4}-\\x{16FF6}"
#define KVASIR_OTHER "[^" KVASIR_SPACE KVASIR_L KVASIR_N "]"

constexpr std::string_view kGpt2 =
    "'s|'t|'re|'ve|'m|'ll|'d| ?[" KVASIR_L "]+| ?[" KVASIR_N "]+| ?" KVASIR_OTHER "+|" KVASIR_SPACES
    "+(?![^" KVASIR_SPACE "])|" KVASIR_SPACES "+";

// Digits one by one first, then kGpt2 on each piece between them; as one expression: a digit ends
// a run of spaces just as the end of the text does.
constexpr std::string_view kSmolLm =
    "[" KVASIR_DIGIT "]|'s|'t|'re|'ve|'m|'ll|'d| ?[" KVASIR_L
    "]+| ?[^" KVASIR_SPACE KVASIR_L KVASIR_DIGIT "]+|" KVASIR_SPACES
    "+(?![^" KVASIR_SPACE KVASIR_DIGIT "])|" KVASIR_SPACES "+";

#define KVASIR_MODERN(digits)                                                              \
  "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n" KVASIR_L KVASIR_N "]?[" KVASIR_L "]+|[" KVASIR_N \
  "]" digits "| ?" KVASIR_OTHER "+[\\r\\n]*|" KVASIR_SPACES "*[\\r\\n]+|" KVASIR_SPACES    \
  "+(?![^" KVASIR_SPACE "])|" KVASIR_SPACES "+"
constexpr std::string_view kLlama3 = KVASIR_MODERN("{1,3}");
constexpr std::string_view kQwen2 = KVASIR_MODERN("");

struct Known {
  std::string_view name, pattern;
  bool ignores_merges, normalizes;
};

constexpr std::array<Known, 11> kKnown = {{
    {"", kGpt2, false, false},
    {"default", kGpt2, false, false},
    {"gpt-2", kGpt2, false, false},
    {"gpt2", kGpt2, false, false},
    {"smollm", kSmolLm, false, false},
    {"llama-bpe", kLlama3, true, false},
    {"llama3", kLlama3, true, false},
    {"llama-v3", kLlama3, true, false},
    {"llama-3", kLlama3, true, false},
    {"qwen2", kQwen2, false, true},
    {"deepseek-r1-qwen", kQwen2, false, true},
}};

struct FreeMatchData {
  void operator()(pcre2_match_data* data) const { pcre2_match_data_free(data); }
};

// Runs one pattern over one text.
class Matcher {
 public:
  Matcher(const pcre2_code* code, std::string_view text)
      : code_(code), text_(text), data_(pcre2_match_data_create(1, nullptr)) {}

  // Like pcre2_match; the interpreter takes over where the compiled code runs out of stack.
  int Match(size_t offset) {
    if (data_ == nullptr) return PCRE2_ERROR_NOMEMORY;
    const int result = Run(offset, PCRE2_NO_UTF_CHECK);
    if (result != PCRE2_ERROR_JIT_STACKLIMIT) return result;
    return Run(offset, PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT);
  }
  size_t begin() const { return pcre2_get_ovector_pointer(data_.get())[0]; }
  size_t end() const { return pcre2_get_ovector_pointer(data_.get())[1]; }

 private:
  int Run(size_t offset, uint32_t options) {
    return pcre2_match(code_, reinterpret_cast<PCRE2_SPTR>(text_.data()), text_.size(), offset,
                       options, data_.get(), nullptr);
  }
  const pcre2_code* code_;
  std::string_view text_;
  std::unique_ptr<pcre2_match_data, FreeMatchData> data_;
};

std::string ErrorText(int error) {
  std::array<PCRE2_UCHAR, 128> buffer{};
  pcre2_get_error_message(error, buffer.data(), buffer.size());
  return reinterpret_cast<const char*>(buffer.data());
}

}  // namespace

Result<std::unique_ptr<PreTokenizer>> PreTokenizer::Create(std::string_view name) {
  const auto* known =
      std::find_if(kKnown.begin(), kKnown.end(), [name](const Known& k) { return k.name == name; });
  if (known == kKnown.end()) {
    return Unimplemented("pre-tokenizer \"" + std::string(name) +
                         "\" is not supported; supported are gpt-2, smollm, llama-bpe, qwen2");
  }
  std::unique_ptr<PreTokenizer> made(new PreTokenizer());
  made->ignores_merges_ = known->ignores_merges;
  made->normalizes_ = known->normalizes;
  KVASIR_RETURN_IF_ERROR(made->Compile(known->pattern));
  return made;
}

Status PreTokenizer::Compile(std::string_view pattern) {
  int error = 0;
  PCRE2_SIZE offset = 0;
  code_ = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern.data()), pattern.size(),
                        PCRE2_UTF | PCRE2_UCP, &error, &offset, nullptr);
  if (code_ == nullptr) return Internal("pre-tokenizer pattern: " + ErrorText(error));
  pcre2_jit_compile(code_, PCRE2_JIT_COMPLETE);  // without JIT the interpreter does the same
  return Status::Ok();
}

PreTokenizer::~PreTokenizer() { pcre2_code_free(code_); }

Status PreTokenizer::Split(std::string_view text, std::vector<std::string_view>* words) const {
  words->clear();
  Matcher matcher(code_, text);
  for (size_t offset = 0; offset < text.size();) {
    const int result = matcher.Match(offset);
    if (result == PCRE2_ERROR_NOMATCH) {
      words->push_back(text.substr(offset));
      return Status::Ok();
    }
    if (result < 0) {
      return InvalidArgument("text cannot be split into words from byte " + std::to_string(offset) +
                             ": " + ErrorText(result));
    }
    if (matcher.begin() > offset) {
      words->push_back(text.substr(offset, matcher.begin() - offset));
    }
    words->push_back(text.substr(matcher.begin(), matcher.end() - matcher.begin()));
    offset = matcher.end();
  }
  return Status::Ok();
}

Result<std::string> NormalizeNfc(std::string_view text) {
  const auto ascii = [](char c) { return static_cast<unsigned char>(c) < 0x80; };
  if (std::all_of(text.begin(), text.end(), ascii)) return std::string(text);
  utf8proc_uint8_t* raw = nullptr;
  const utf8proc_ssize_t length =
      utf8proc_map(reinterpret_cast<const utf8proc_uint8_t*>(text.data()),
                   static_cast<utf8proc_ssize_t>(text.size()), &raw,
                   static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_COMPOSE));
  const std::unique_ptr<utf8proc_uint8_t, decltype(&std::free)> owner(raw, &std::free);
  if (length < 0) {
    return InvalidArgument(std::string("text cannot be normalised: ") + utf8proc_errmsg(length));
  }
  return std::string(reinterpret_cast<const char*>(raw), static_cast<size_t>(length));
}

}  // namespace kvasir
