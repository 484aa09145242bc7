// Text of policies: terms joined by '+', parameters in parentheses, by place or by name.
#include <charconv>
#include <cmath>
#include <cstdio>
#include <functional>
#include <span>

#include "cache/fusion_policy.h"

namespace kvasir {
namespace {

using Setter = std::function<Status(FusionPolicy&, std::string_view value)>;

struct Parameter {
  std::string_view name;  // the first one of a term may be given without it
  Setter set;
};

struct Term {
  std::string_view name;
  PolicyKind kind;
  std::vector<Parameter> parameters;
  std::function<void(FusionPolicy&)> start;  // values of a term that is named without parameters
};

std::string Number(double value) {
  char text[32];
  std::snprintf(text, sizeof text, "%.6g", value);
  return text;
}

Result<double> ReadNumber(std::string_view text) {
  double value = 0;
  const char* end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, value);
  if (text.empty() || stop != end || error != std::errc() || !std::isfinite(value)) {
    std::string message = "'";
    message.append(text).append("' is not a number");
    return InvalidArgument(message);
  }
  return value;
}

Status OutOfBounds(std::string_view name, std::string_view text, double low, double high) {
  return InvalidArgument(std::string(name) + " is " + std::string(text) + "; it must be from " +
                         Number(low) + " to " + Number(high));
}

Result<double> ReadWithin(std::string_view name, std::string_view text, double low, double high) {
  KVASIR_ASSIGN_OR_RETURN(const double value, ReadNumber(text));
  if (value < low || value > high) return OutOfBounds(name, text, low, high);
  return value;
}

Result<int32_t> ReadInteger(std::string_view name, std::string_view text, int32_t low,
                            int32_t high) {
  KVASIR_ASSIGN_OR_RETURN(const double value, ReadWithin(name, text, low, high));
  if (value != std::floor(value)) {
    return InvalidArgument(std::string(name) + " is " + std::string(text) +
                           "; it must be a whole number");
  }
  return static_cast<int32_t>(value);
}

// The smallest share of rows that a term can be asked for.
constexpr double kLeastRatio = 0.001;

template <typename Field>
Parameter Ratio(std::string_view name, Field field, double low, double high) {
  return {name, [=](FusionPolicy& policy, std::string_view text) -> Status {
            KVASIR_ASSIGN_OR_RETURN(field(policy), ReadWithin(name, text, low, high));
            return Status::Ok();
          }};
}

template <typename Field>
Parameter Whole(std::string_view name, Field field, int32_t low, int32_t high) {
  return {name, [=](FusionPolicy& policy, std::string_view text) -> Status {
            KVASIR_ASSIGN_OR_RETURN(field(policy), ReadInteger(name, text, low, high));
            return Status::Ok();
          }};
}

Status SetLayers(FusionPolicy& policy, std::string_view text) {
  const size_t dash = text.find('-');
  const std::string_view end = dash == std::string_view::npos ? "1" : text.substr(dash + 1);
  KVASIR_ASSIGN_OR_RETURN(policy.query.layer_begin,
                          ReadWithin("layers", text.substr(0, dash), 0, 1));
  KVASIR_ASSIGN_OR_RETURN(policy.query.layer_end, ReadWithin("layers", end, 0, 1));
  if (policy.query.layer_begin < policy.query.layer_end) return Status::Ok();
  return InvalidArgument("layers is " + std::string(text) +
                         "; write the first and last depth as shares, such as 0.67-1");
}

Status SetHeads(FusionPolicy& policy, std::string_view text) {
  if (text != "sum" && text != "max") {
    return InvalidArgument("heads is " + std::string(text) + "; it can be sum or max");
  }
  policy.query.heads = text == "sum" ? HeadMerge::kSum : HeadMerge::kMax;
  return Status::Ok();
}

Status SetSmooth(FusionPolicy& policy, std::string_view text) {
  KVASIR_ASSIGN_OR_RETURN(policy.query.smooth, ReadInteger("smooth", text, 1, 255));
  if (policy.query.smooth % 2 == 1) return Status::Ok();
  return InvalidArgument("smooth is " + std::string(text) + "; it must be odd, from 1 to 255");
}

Status SetOrder(FusionPolicy& policy, std::string_view text) {
  if (text == "as_given") policy.order = ChunkOrder::kAsGiven;
  if (text == "hash") policy.order = ChunkOrder::kHash;
  if (text == "tree") policy.order = ChunkOrder::kTree;
  if (text == "as_given" || text == "hash" || text == "tree") return Status::Ok();
  return InvalidArgument("order is " + std::string(text) + "; it can be as_given, hash or tree");
}

std::vector<Parameter> QueryParameters() {
  return {
      Ratio(
          "r", [](FusionPolicy& p) -> double& { return p.query.ratio; }, kLeastRatio, 1),
      Whole(
          "rows", [](FusionPolicy& p) -> int32_t& { return p.query.rows; }, 0, kMaxSelectorRows),
      {"layers", SetLayers},
      {"heads", SetHeads},
      {"smooth", SetSmooth},
      Ratio(
          "floor", [](FusionPolicy& p) -> double& { return p.query.floor; }, 0, 1),
      Whole(
          "rounds", [](FusionPolicy& p) -> int32_t& { return p.query.rounds; }, 1,
          kMaxSelectorRounds),
      Whole(
          "draft", [](FusionPolicy& p) -> int32_t& { return p.query.draft; }, 0, kMaxSelectorDraft),
      Ratio(
          "mass", [](FusionPolicy& p) -> double& { return p.query.mass; }, 0.01, 1),
  };
}

const std::vector<Term>& Terms() {
  const auto nothing = [](FusionPolicy&) {};
  static const std::vector<Term> terms = {
      {"exact", PolicyKind::kExact, {}, nothing},
      {"prefix", PolicyKind::kPrefix, {{"order", SetOrder}}, nothing},
      {"concat", PolicyKind::kFused, {}, nothing},
      {"link",
       PolicyKind::kFused,
       {Whole(
           "k", [](FusionPolicy& p) -> int32_t& { return p.link_tokens; }, 1, kMaxLinkTokens)},
       [](FusionPolicy& p) { p.link_tokens = 16; }},
      {"blend",
       PolicyKind::kFused,
       {Ratio(
           "r", [](FusionPolicy& p) -> double& { return p.blend_ratio; }, kLeastRatio, 1)},
       [](FusionPolicy& p) { p.blend_ratio = 0.15; }},
      {"query", PolicyKind::kFused, QueryParameters(),
       [](FusionPolicy& p) { p.query.ratio = 0.15; }},
      {"shift", PolicyKind::kFused, {}, [](FusionPolicy& p) { p.shift = true; }},
      {"parallel",
       PolicyKind::kFused,
       {Ratio(
            "T", [](FusionPolicy& p) -> double& { return p.temperature; }, kLeastContextScale,
            kMostContextScale),
        Ratio(
            "s", [](FusionPolicy& p) -> double& { return p.scale; }, kLeastContextScale,
            kMostContextScale)},
       [](FusionPolicy& p) { p.parallel = true; }},
      {"certify",
       PolicyKind::kCertify,
       {Ratio(
            "eps", [](FusionPolicy& p) -> double& { return p.epsilon; }, 1e-4, 100),
        Ratio(
            "alpha", [](FusionPolicy& p) -> double& { return p.alpha; }, 0.001, 0.999)},
       nothing},
  };
  return terms;
}

std::string_view Trim(std::string_view text) {
  while (!text.empty() && text.front() == ' ') text.remove_prefix(1);
  while (!text.empty() && text.back() == ' ') text.remove_suffix(1);
  return text;
}

// Pieces between separators that are not inside parentheses.
std::vector<std::string_view> Split(std::string_view text, char separator) {
  std::vector<std::string_view> pieces;
  int depth = 0;
  size_t begin = 0;
  for (size_t i = 0; i < text.size(); ++i) {
    depth += text[i] == '(' ? 1 : text[i] == ')' ? -1 : 0;
    if (depth > 0 || text[i] != separator) continue;
    pieces.push_back(Trim(text.substr(begin, i - begin)));
    begin = i + 1;
  }
  pieces.push_back(Trim(text.substr(begin)));
  return pieces;
}

Status Unknown(std::string_view text) {
  return InvalidArgument(
      "unknown policy '" + std::string(text) +
      "': use exact, prefix(order), concat, link(k) with k from 1 to " +
      std::to_string(kMaxLinkTokens) +
      ", blend(r), query(r), shift, parallel(T,s), certify(eps,alpha), or terms joined by "
      "'+'");
}

const Term* FindTerm(std::string_view name) {
  for (const Term& term : Terms()) {
    if (term.name == name) return &term;
  }
  return nullptr;
}

std::string ParameterNames(const Term& term) {
  std::string names;
  for (const Parameter& parameter : term.parameters) {
    if (!names.empty()) names += ", ";
    names += parameter.name;
  }
  if (names.empty()) names = "none";
  return names;
}

Status Set(const Term& term, std::string_view argument, size_t place, FusionPolicy* policy) {
  const size_t equals = argument.find('=');
  const bool named = equals != std::string_view::npos;
  for (size_t i = 0; i < term.parameters.size(); ++i) {
    const Parameter& parameter = term.parameters[i];
    if (named ? argument.substr(0, equals) != parameter.name : i != place) continue;
    return parameter.set(*policy, named ? argument.substr(equals + 1) : argument);
  }
  return InvalidArgument("'" + std::string(argument) +
                         "' is no parameter; there are: " + ParameterNames(term));
}

// "link(16)" -> "link", "16"; "link16" too. False if the parentheses do not match.
bool TakeApart(std::string_view text, std::string_view* name, std::string_view* arguments) {
  const size_t open = text.find('(');
  if (open != std::string_view::npos) {
    *name = text.substr(0, open);
    *arguments = text.substr(open + 1, text.size() - open - 2);
    return text.back() == ')' && !Trim(*arguments).empty() && text.size() > open + 2;
  }
  if (text.find(')') != std::string_view::npos) return false;
  const size_t letters = std::min(text.find_first_of("0123456789"), text.size());
  *name = text.substr(0, letters);
  *arguments = text.substr(letters);
  return true;
}

Status AddTerm(std::string_view text, FusionPolicy* policy) {
  std::string_view name, arguments;
  if (text.empty() || !TakeApart(text, &name, &arguments)) return Unknown(text);
  const Term* term = FindTerm(name);
  if (term == nullptr) return Unknown(text);
  policy->kind = term->kind;
  term->start(*policy);
  if (arguments.empty()) return Status::Ok();
  size_t place = 0;
  for (const std::string_view argument : Split(arguments, ',')) {
    const Status status = Set(*term, argument, place++, policy);
    if (!status.ok()) {
      return InvalidArgument("policy '" + std::string(text) + "': " + status.message());
    }
  }
  return Status::Ok();
}

std::string QueryName(const QuerySelector& query) {
  const QuerySelector usual;
  std::string name = "query(" + Number(query.ratio);
  const auto add = [&name](std::string_view key, const std::string& value) {
    name.append(",").append(key).append("=").append(value);
  };
  if (query.rows != usual.rows) add("rows", std::to_string(query.rows));
  if (query.layer_begin != usual.layer_begin || query.layer_end != usual.layer_end) {
    add("layers", Number(query.layer_begin) + "-" + Number(query.layer_end));
  }
  if (query.heads != usual.heads) add("heads", "max");
  if (query.smooth != usual.smooth) add("smooth", std::to_string(query.smooth));
  if (query.floor != usual.floor) add("floor", Number(query.floor));
  if (query.rounds != usual.rounds) add("rounds", std::to_string(query.rounds));
  if (query.draft != usual.draft) add("draft", std::to_string(query.draft));
  if (query.mass != usual.mass) add("mass", Number(query.mass));
  return name + ")";
}

std::string FusedName(const FusionPolicy& policy) {
  if (policy.parallel) {
    return "parallel(" + Number(policy.temperature) + "," + Number(policy.scale) + ")";
  }
  std::string name;
  const auto add = [&name](const std::string& term) {
    if (!name.empty()) name += '+';
    name += term;
  };
  if (policy.link_tokens > 0) add("link(" + std::to_string(policy.link_tokens) + ")");
  if (policy.blend_ratio > 0) add("blend(" + Number(policy.blend_ratio) + ")");
  if (policy.query.ratio > 0) add(QueryName(policy.query));
  if (policy.shift) add("shift");
  if (name.empty()) name = "concat";
  return name;
}

std::string PrefixName(ChunkOrder order) {
  if (order == ChunkOrder::kAsGiven) return "prefix";
  return order == ChunkOrder::kHash ? "prefix(order=hash)" : "prefix(order=tree)";
}

}  // namespace

std::string FusionPolicy::Name() const {
  switch (kind) {
    case PolicyKind::kExact:
      return "exact";
    case PolicyKind::kPrefix:
      return PrefixName(order);
    case PolicyKind::kFused:
      return FusedName(*this);
    case PolicyKind::kCertify:
      return "certify(" + Number(epsilon) + "," + Number(alpha) + ")";
  }
  return "unknown";
}

Result<FusionPolicy> ParsePolicy(std::string_view text) {
  FusionPolicy policy;
  const std::vector<std::string_view> terms = Split(Trim(text), '+');
  for (const std::string_view term : terms) {
    KVASIR_RETURN_IF_ERROR(AddTerm(term, &policy));
    if (terms.size() > 1 && (policy.kind != PolicyKind::kFused || policy.parallel)) {
      return InvalidArgument("policy '" + std::string(text) + "': '" + std::string(term) +
                             "' stands alone; link, blend and query can be joined");
    }
  }
  const bool chooses = policy.link_tokens > 0 || policy.blend_ratio > 0 || policy.query.ratio > 0;
  if (policy.shift && !chooses) {
    return InvalidArgument("policy '" + std::string(text) +
                           "': shift goes with terms that choose "
                           "rows, such as query(0.05)+shift");
  }
  return policy;
}

Result<std::vector<FusionPolicy>> ParsePolicyList(std::string_view text) {
  std::vector<FusionPolicy> policies;
  for (const std::string_view name : Split(text, ',')) {
    KVASIR_ASSIGN_OR_RETURN(policies.emplace_back(), ParsePolicy(name));
  }
  return policies;
}

}  // namespace kvasir
