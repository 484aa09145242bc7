#include "cache/fusion_policy.h"

#include <gtest/gtest.h>

namespace kvasir {
namespace {

TEST(ParsePolicy, NamesRoundTrip) {
  for (const char* name :
       {"exact", "prefix", "prefix(order=hash)", "prefix(order=tree)", "concat", "link(1)",
        "link(16)", "link(1024)", "blend(0.15)", "query(0.05)", "parallel(0.9,0.8)",
        "parallel(1,1)", "link(8)+shift", "query(0.05)+shift",
        "query(0.15,rows=0,layers=0.5-1,heads=max,smooth=7,floor=0.05,rounds=2,mass=0.9)",
        "link(8)+blend(0.1)+query(0.1)", "certify(0.05,0.1)"}) {
    const auto policy = ParsePolicy(name);
    ASSERT_TRUE(policy.ok()) << name;
    EXPECT_EQ(policy->Name(), name);
  }
  EXPECT_EQ(ParsePolicy("link16")->link_tokens, 16);
  EXPECT_EQ(*ParsePolicy("link"), FusionPolicy::Link(16));
}

TEST(ParsePolicy, EveryKInBounds) {
  for (int32_t k = -3; k <= kMaxLinkTokens + 3; ++k) {
    const auto policy = ParsePolicy("link(" + std::to_string(k) + ")");
    ASSERT_EQ(policy.ok(), k >= 1 && k <= kMaxLinkTokens) << k;
    if (!policy.ok()) continue;
    ASSERT_EQ(policy->link_tokens, k);
  }
}

TEST(ParsePolicy, ErrorsNameChoicesAndBounds) {
  for (const char* bad : {"", "Exact", "links", "link(", "link()", "link(16", "link16)", "link 16",
                          "blend[.15]", "link(16)x", "link(4)+"}) {
    const auto policy = ParsePolicy(bad);
    ASSERT_FALSE(policy.ok()) << bad;
    EXPECT_NE(policy.status().message().find("link(k)"), std::string::npos) << bad;
  }
  for (const char* outside : {"link(0)", "link(1025)", "link99999999999999"}) {
    const auto policy = ParsePolicy(outside);
    ASSERT_FALSE(policy.ok()) << outside;
    EXPECT_NE(policy.status().message().find("from 1 to 1024"), std::string::npos) << outside;
  }
}

TEST(ParsePolicy, ErrorsOfParametersNameThemAndTheirBounds) {
  const std::pair<const char*, const char*> cases[] = {
      {"query(0)", "r is 0; it must be from 0.001 to 1"},
      {"query(1.5)", "r is 1.5; it must be from 0.001 to 1"},
      {"query(0.1,rows=-1)", "rows is -1; it must be from 0 to 1024"},
      {"query(0.1,rows=1.5)", "whole number"},
      {"query(0.1,layers=0.9-0.2)", "0.67-1"},
      {"query(0.1,heads=min)", "sum or max"},
      {"query(0.1,smooth=4)", "odd"},
      {"query(0.1,depth=4)",
       "there are: r, rows, layers, heads, smooth, floor, rounds, draft, mass"},
      {"blend(x)", "'x' is not a number"},
      {"prefix(order=best)", "as_given, hash or tree"},
      {"certify(0,0.1)", "eps is 0; it must be from 0.0001 to 100"},
      {"exact+link(4)", "stands alone"},
      {"shift", "goes with terms that choose"},
      {"shift(1)", "no parameter"},
      {"parallel+link(4)", "stands alone"},
      {"parallel(0.05,1)", "0.1 to 2"},
      {"parallel(1,3)", "0.1 to 2"},
      {"link(1.5)", "whole number"},
  };
  for (const auto& [text, part] : cases) {
    const auto policy = ParsePolicy(text);
    ASSERT_FALSE(policy.ok()) << text;
    EXPECT_NE(policy.status().message().find(part), std::string::npos) << policy.status().message();
  }
}

TEST(ParsePolicyList, CommasInsideParenthesesBelongToThePolicy) {
  const auto policies = ParsePolicyList("exact,query(0.1,rows=2), link(4)+query(.2)");
  ASSERT_TRUE(policies.ok());
  ASSERT_EQ(policies->size(), 3u);
  EXPECT_EQ((*policies)[1].query.rows, 2);
  EXPECT_EQ((*policies)[2].Name(), "link(4)+query(0.2)");
  EXPECT_FALSE(ParsePolicyList("exact,,concat").ok());
}

TEST(ParseCacheMode, RoundTripAndError) {
  for (const char* name : {"auto", "exact", "prefix", "fused", "optimistic", "off"}) {
    EXPECT_EQ(CacheModeName(*ParseCacheMode(name)), name);
  }
  EXPECT_NE(ParseCacheMode("fast").status().message().find(
                "auto, exact, prefix, fused, optimistic or off"),
            std::string::npos);
}

PolicyRequest Asking(CacheMode mode, bool documents = true, bool movable = true) {
  PolicyRequest request;
  request.mode = mode;
  request.has_documents = documents;
  request.movable = movable;
  request.why_not_movable = "its RoPE depends on the length";
  return request;
}

TEST(ResolvePolicy, Defaults) {
  EXPECT_EQ(*ResolvePolicy(Asking(CacheMode::kAuto)), DefaultFusedPolicy());
  EXPECT_EQ(ResolvePolicy(Asking(CacheMode::kAuto, false))->kind, PolicyKind::kPrefix);
  EXPECT_EQ(ResolvePolicy(Asking(CacheMode::kAuto, true, false))->kind, PolicyKind::kPrefix);
  EXPECT_EQ(ResolvePolicy(Asking(CacheMode::kExact))->kind, PolicyKind::kExact);
  EXPECT_EQ(ResolvePolicy(Asking(CacheMode::kOff))->kind, PolicyKind::kExact);
  EXPECT_EQ(ResolvePolicy(Asking(CacheMode::kPrefix))->kind, PolicyKind::kPrefix);
  EXPECT_EQ(*ResolvePolicy(Asking(CacheMode::kFused)), DefaultFusedPolicy());
  EXPECT_EQ(*ResolvePolicy(Asking(CacheMode::kOptimistic)), FusionPolicy::Concat());
  EXPECT_EQ(ResolvePolicy(Asking(CacheMode::kOptimistic, false))->kind, PolicyKind::kExact);
  EXPECT_EQ(ResolvePolicy(Asking(CacheMode::kOptimistic, true, false))->kind, PolicyKind::kExact);
}

TEST(ResolvePolicy, ContradictionsAreRefused) {
  PolicyRequest request = Asking(CacheMode::kExact);
  request.policy = FusionPolicy::Concat();
  EXPECT_EQ(ResolvePolicy(request).status().code(), StatusCode::kInvalidArgument);
  request.mode = CacheMode::kFused;
  EXPECT_EQ(ResolvePolicy(request)->Name(), "concat");
  request.mode = CacheMode::kOptimistic;
  EXPECT_EQ(ResolvePolicy(request)->Name(), "concat");
  request.policy = FusionPolicy::Exact();
  EXPECT_FALSE(ResolvePolicy(request).ok());
}

TEST(ResolvePolicy, UnmovableModelsSayWhy) {
  const auto policy = ResolvePolicy(Asking(CacheMode::kFused, true, false));
  EXPECT_EQ(policy.status().code(), StatusCode::kUnimplemented);
  EXPECT_NE(policy.status().message().find("depends on the length"), std::string::npos);
}

}  // namespace
}  // namespace kvasir
