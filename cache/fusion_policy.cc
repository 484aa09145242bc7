#include "cache/fusion_policy.h"

#include <array>
#include <charconv>
#include <utility>

namespace kvasir {
namespace {

constexpr std::array<std::pair<std::string_view, PolicyKind>, 3> kPlainPolicies = {{
    {"exact", PolicyKind::kExact},
    {"prefix", PolicyKind::kPrefix},
    {"concat", PolicyKind::kConcat},
}};

constexpr std::array<std::pair<std::string_view, CacheMode>, 5> kModes = {{
    {"auto", CacheMode::kAuto},
    {"exact", CacheMode::kExact},
    {"prefix", CacheMode::kPrefix},
    {"fused", CacheMode::kFused},
    {"off", CacheMode::kOff},
}};

Status UnknownPolicy(std::string_view text) {
  return InvalidArgument("unknown policy '" + std::string(text) +
                         "': use exact, prefix, concat or link(k) with k from 1 to " +
                         std::to_string(kMaxLinkTokens));
}

// "(16)" and "16" -> "16".
std::string_view StripParentheses(std::string_view text) {
  if (text.size() >= 2 && text.front() == '(' && text.back() == ')') {
    return text.substr(1, text.size() - 2);
  }
  return text;
}

Result<FusionPolicy> ParseLink(std::string_view text, std::string_view argument) {
  if (argument.empty()) return FusionPolicy{PolicyKind::kLink, kDefaultFusedPolicy.link_tokens};
  const std::string_view digits = StripParentheses(argument);
  int64_t tokens = 0;
  const char* end = digits.data() + digits.size();
  const auto [stop, error] = std::from_chars(digits.data(), end, tokens);
  const bool number = !digits.empty() && stop == end;
  if (error == std::errc::result_out_of_range ||
      (number && (tokens < 1 || tokens > kMaxLinkTokens))) {
    return InvalidArgument("policy '" + std::string(text) + "': k must be from 1 to " +
                           std::to_string(kMaxLinkTokens));
  }
  if (!number || error != std::errc()) return UnknownPolicy(text);
  return FusionPolicy{PolicyKind::kLink, static_cast<int32_t>(tokens)};
}

// Whether a policy named beside a mode makes sense.
bool Agree(CacheMode mode, const FusionPolicy& policy) {
  switch (mode) {
    case CacheMode::kAuto:
      return true;
    case CacheMode::kExact:
    case CacheMode::kOff:
      return policy.kind == PolicyKind::kExact;
    case CacheMode::kPrefix:
      return policy.kind == PolicyKind::kPrefix;
    case CacheMode::kFused:
      return policy.fused();
  }
  return false;
}

FusionPolicy DefaultOf(const PolicyRequest& request) {
  switch (request.mode) {
    case CacheMode::kExact:
    case CacheMode::kOff:
      return {PolicyKind::kExact, 0};
    case CacheMode::kPrefix:
      return {PolicyKind::kPrefix, 0};
    case CacheMode::kFused:
      return kDefaultFusedPolicy;
    case CacheMode::kAuto:
      break;
  }
  const bool fuse = request.has_documents && request.movable;
  return fuse ? kDefaultFusedPolicy : FusionPolicy{PolicyKind::kPrefix, 0};
}

}  // namespace

std::string FusionPolicy::Name() const {
  if (kind == PolicyKind::kLink) return "link(" + std::to_string(link_tokens) + ")";
  for (const auto& [name, plain] : kPlainPolicies) {
    if (plain == kind) return std::string(name);
  }
  return "unknown";
}

Result<FusionPolicy> ParsePolicy(std::string_view text) {
  for (const auto& [name, kind] : kPlainPolicies) {
    if (text == name) return FusionPolicy{kind, 0};
  }
  constexpr std::string_view kLink = "link";
  if (text.starts_with(kLink)) return ParseLink(text, text.substr(kLink.size()));
  return UnknownPolicy(text);
}

std::string_view CacheModeName(CacheMode mode) {
  for (const auto& [name, value] : kModes) {
    if (value == mode) return name;
  }
  return "unknown";
}

Result<CacheMode> ParseCacheMode(std::string_view text) {
  for (const auto& [name, mode] : kModes) {
    if (text == name) return mode;
  }
  return InvalidArgument("unknown cache mode '" + std::string(text) +
                         "': use auto, exact, prefix, fused or off");
}

Result<FusionPolicy> ResolvePolicy(const PolicyRequest& request) {
  if (request.policy && !Agree(request.mode, *request.policy)) {
    return InvalidArgument("cache mode '" + std::string(CacheModeName(request.mode)) +
                           "' and policy '" + request.policy->Name() +
                           "' contradict each other: leave one of them out");
  }
  const FusionPolicy policy = request.policy.value_or(DefaultOf(request));
  if (policy.fused() && !request.movable) {
    return Unimplemented("policy '" + policy.Name() + "' cannot be used with this model: " +
                         request.why_not_movable + "; use mode exact or prefix");
  }
  return policy;
}

}  // namespace kvasir
