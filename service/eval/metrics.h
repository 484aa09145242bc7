// What one answer is worth beside another: distances of distributions, of token runs and of texts.
//
// Pure functions; thread-safe. Texts are valid UTF-8; letters beyond ASCII count as letters and
// keep their case. Sums run in double. References: ROUGE-L (Lin 2004) on words without stemming; F1
// and exact match as SQuAD's official script computes them (Rajpurkar et al. 2016).
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace kvasir {

// KL(p || q) in nats of the two softmax distributions, shape [V] both. Never negative; infinite if
// q excludes (-inf) what p allows; NaN if a logit is NaN.
double KlDivergence(std::span<const float> p_logits, std::span<const float> q_logits);

// The first index of the largest logit; [V], V >= 1.
int32_t ArgMax(std::span<const float> logits);
bool Top1Agrees(std::span<const float> p_logits, std::span<const float> q_logits);

// Log probability of `token` in nats under softmax(logits); [V], token in [0, V).
double LogProbability(std::span<const float> logits, int32_t token);

// The first index at which the runs differ (one ending before the other differs there); -1 if they
// are equal.
int64_t FirstDivergence(std::span<const int32_t> a, std::span<const int32_t> b);

// Lower-case runs of ASCII letters, digits and characters beyond ASCII.
std::vector<std::string> Words(std::string_view text);
// F-measure (beta 1) of the longest common subsequence of words. Two texts without words: 1.
double RougeL(std::string_view text, std::string_view reference);

// Lower case, without ASCII punctuation and the articles a, an, the; single spaces.
std::string NormaliseAnswer(std::string_view text);
// Words (with repetition) of the normalised texts in common, as F1. An empty one: 1 if both are.
double TokenF1(std::string_view text, std::string_view gold);
bool ExactMatch(std::string_view text, std::string_view gold);
// The best over the gold answers, of which there must be one.
double BestF1(std::string_view text, std::span<const std::string> golds);
bool AnyExactMatch(std::string_view text, std::span<const std::string> golds);

// Whether an answer declines to answer: it holds one of a short list of English phrases
// (RefusalPhrases()), looked for in lower case with typographic apostrophes made plain. An empty
// answer is a refusal too.
bool IsRefusal(std::string_view text);
std::span<const std::string_view> RefusalPhrases();

}  // namespace kvasir
