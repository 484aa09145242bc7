#include "service/eval/metrics.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <map>

#include "kernels/core/status.h"

namespace kvasir {
namespace {

constexpr std::array<std::string_view, 20> kRefusals = {
    "i don't know",     "i do not know",       "i'm not sure",       "i am not sure",
    "i cannot answer",  "i can't answer",      "cannot be answered", "cannot be determined",
    "unable to answer", "unable to determine", "not mentioned",      "not specified",
    "not provided",     "not stated",          "does not mention",   "do not mention",
    "does not provide", "do not provide",      "no information",     "not enough information"};

// log(sum(exp(logits))), with the largest taken out so that nothing overflows.
double LogSumExp(std::span<const float> logits) {
  double largest = -std::numeric_limits<double>::infinity();
  for (const float logit : logits) {
    if (std::isnan(logit)) return std::numeric_limits<double>::quiet_NaN();
    largest = std::max(largest, static_cast<double>(logit));
  }
  if (std::isinf(largest)) return largest;
  double sum = 0;
  for (const float logit : logits) sum += std::exp(static_cast<double>(logit) - largest);
  return largest + std::log(sum);
}

bool IsAsciiUpper(char c) { return c >= 'A' && c <= 'Z'; }
bool IsAsciiSpace(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }
bool IsAsciiPunctuation(char c) {
  return (c >= '!' && c <= '/') || (c >= ':' && c <= '@') || (c >= '[' && c <= '`') ||
         (c >= '{' && c <= '~');
}
char Lower(char c) { return IsAsciiUpper(c) ? static_cast<char>(c - 'A' + 'a') : c; }
bool InWord(char c) {
  return static_cast<unsigned char>(c) >= 0x80 || (Lower(c) >= 'a' && Lower(c) <= 'z') ||
         (c >= '0' && c <= '9');
}

std::vector<std::string> SplitAtSpaces(std::string_view text) {
  std::vector<std::string> words;
  bool inside = false;
  for (const char c : text) {
    if (!IsAsciiSpace(c)) {
      if (!inside) words.emplace_back();
      words.back() += c;
    }
    inside = !IsAsciiSpace(c);
  }
  return words;
}

size_t LongestCommonSubsequence(const std::vector<std::string>& a,
                                const std::vector<std::string>& b) {
  std::vector<size_t> above(b.size() + 1, 0), row(b.size() + 1, 0);
  for (const std::string& word : a) {
    for (size_t j = 0; j < b.size(); ++j) {
      row[j + 1] = word == b[j] ? above[j] + 1 : std::max(above[j + 1], row[j]);
    }
    std::swap(above, row);
  }
  return above[b.size()];
}

// Harmonic mean of common/a and common/b; where one side is empty, 1 if both are.
double FMeasure(size_t common, size_t a, size_t b) {
  if (a == 0 || b == 0) return a == b ? 1 : 0;
  return 2.0 * static_cast<double>(common) / static_cast<double>(a + b);
}

// Lower case; U+2018 and U+2019 become the plain apostrophe.
std::string PlainLower(std::string_view text) {
  std::string plain;
  for (size_t i = 0; i < text.size(); ++i) {
    const std::string_view three = text.substr(i, 3);
    if (three == "\u2018" || three == "\u2019") {
      plain += '\'';
      i += 2;
    } else {
      plain += Lower(text[i]);
    }
  }
  return plain;
}

}  // namespace

double KlDivergence(std::span<const float> p_logits, std::span<const float> q_logits) {
  KVASIR_CHECK(p_logits.size() == q_logits.size() && !p_logits.empty());
  const double p_norm = LogSumExp(p_logits), q_norm = LogSumExp(q_logits);
  double sum = 0;
  for (size_t i = 0; i < p_logits.size(); ++i) {
    const double log_p = static_cast<double>(p_logits[i]) - p_norm;
    const double p = std::exp(log_p);
    if (p == 0) continue;  // its limit; also where both are excluded
    sum += p * (log_p - (static_cast<double>(q_logits[i]) - q_norm));
  }
  return sum < 0 ? 0 : sum;  // rounding only; a NaN stays
}

int32_t ArgMax(std::span<const float> logits) {
  KVASIR_CHECK(!logits.empty());
  return static_cast<int32_t>(std::max_element(logits.begin(), logits.end()) - logits.begin());
}

bool Top1Agrees(std::span<const float> p_logits, std::span<const float> q_logits) {
  return ArgMax(p_logits) == ArgMax(q_logits);
}

double LogProbability(std::span<const float> logits, int32_t token) {
  KVASIR_CHECK(token >= 0 && static_cast<size_t>(token) < logits.size());
  return static_cast<double>(logits[static_cast<size_t>(token)]) - LogSumExp(logits);
}

int64_t FirstDivergence(std::span<const int32_t> a, std::span<const int32_t> b) {
  const auto [in_a, in_b] = std::mismatch(a.begin(), a.end(), b.begin(), b.end());
  if (in_a == a.end() && in_b == b.end()) return -1;
  return in_a - a.begin();
}

std::vector<std::string> Words(std::string_view text) {
  std::string spaced;
  for (const char c : text) spaced += InWord(c) ? Lower(c) : ' ';
  return SplitAtSpaces(spaced);
}

double RougeL(std::string_view text, std::string_view reference) {
  const std::vector<std::string> a = Words(text), b = Words(reference);
  return FMeasure(LongestCommonSubsequence(a, b), a.size(), b.size());
}

std::string NormaliseAnswer(std::string_view text) {
  std::string bare;
  for (const char c : text) {
    if (!IsAsciiPunctuation(c)) bare += Lower(c);
  }
  std::string joined;
  for (const std::string& word : SplitAtSpaces(bare)) {
    if (word == "a" || word == "an" || word == "the") continue;
    if (!joined.empty()) joined += ' ';
    joined += word;
  }
  return joined;
}

double TokenF1(std::string_view text, std::string_view gold) {
  const std::vector<std::string> a = SplitAtSpaces(NormaliseAnswer(text));
  const std::vector<std::string> b = SplitAtSpaces(NormaliseAnswer(gold));
  std::map<std::string_view, int64_t> left;
  for (const std::string& word : b) ++left[word];
  size_t common = 0;
  for (const std::string& word : a) {
    if (auto found = left.find(word); found != left.end() && found->second-- > 0) ++common;
  }
  return FMeasure(common, a.size(), b.size());
}

bool ExactMatch(std::string_view text, std::string_view gold) {
  return NormaliseAnswer(text) == NormaliseAnswer(gold);
}

double BestF1(std::string_view text, std::span<const std::string> golds) {
  KVASIR_CHECK(!golds.empty());
  double best = 0;
  for (const std::string& gold : golds) best = std::max(best, TokenF1(text, gold));
  return best;
}

bool AnyExactMatch(std::string_view text, std::span<const std::string> golds) {
  KVASIR_CHECK(!golds.empty());
  return std::any_of(golds.begin(), golds.end(),
                     [text](const std::string& gold) { return ExactMatch(text, gold); });
}

bool IsRefusal(std::string_view text) {
  const std::string plain = PlainLower(text);
  if (SplitAtSpaces(plain).empty()) return true;
  return std::any_of(kRefusals.begin(), kRefusals.end(), [&plain](std::string_view phrase) {
    return plain.find(phrase) != std::string::npos;
  });
}

std::span<const std::string_view> RefusalPhrases() { return kRefusals; }

}  // namespace kvasir
