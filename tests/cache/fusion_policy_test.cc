#include "cache/fusion_policy.h"

#include <gtest/gtest.h>

namespace kvasir {
namespace {

TEST(ParsePolicy, NamesRoundTrip) {
  for (const char* name : {"exact", "prefix", "concat", "link(1)", "link(16)", "link(1024)"}) {
    const auto policy = ParsePolicy(name);
    ASSERT_TRUE(policy.ok()) << name;
    EXPECT_EQ(policy->Name(), name);
  }
  EXPECT_EQ(ParsePolicy("link16")->link_tokens, 16);
  EXPECT_EQ(*ParsePolicy("link"), kDefaultFusedPolicy);
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
  for (const char* bad : {"", "Exact", "links", "link(", "link()", "link(16", "link16)",
                          "link(1.5)", "link 16", "blend(.15)", "link(16)x"}) {
    const auto policy = ParsePolicy(bad);
    ASSERT_FALSE(policy.ok()) << bad;
    EXPECT_NE(policy.status().message().find("link(k)"), std::string::npos) << bad;
  }
  for (const char* outside : {"link(0)", "link(1025)", "link99999999999999999999"}) {
    const auto policy = ParsePolicy(outside);
    ASSERT_FALSE(policy.ok()) << outside;
    EXPECT_NE(policy.status().message().find("from 1 to 1024"), std::string::npos) << outside;
  }
}

TEST(ParseCacheMode, RoundTripAndError) {
  for (const char* name : {"auto", "exact", "prefix", "fused", "off"}) {
    EXPECT_EQ(CacheModeName(*ParseCacheMode(name)), name);
  }
  EXPECT_NE(ParseCacheMode("fast").status().message().find("auto, exact, prefix, fused or off"),
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
  EXPECT_EQ(*ResolvePolicy(Asking(CacheMode::kAuto)), kDefaultFusedPolicy);
  EXPECT_EQ(ResolvePolicy(Asking(CacheMode::kAuto, false))->kind, PolicyKind::kPrefix);
  EXPECT_EQ(ResolvePolicy(Asking(CacheMode::kAuto, true, false))->kind, PolicyKind::kPrefix);
  EXPECT_EQ(ResolvePolicy(Asking(CacheMode::kExact))->kind, PolicyKind::kExact);
  EXPECT_EQ(ResolvePolicy(Asking(CacheMode::kOff))->kind, PolicyKind::kExact);
  EXPECT_EQ(ResolvePolicy(Asking(CacheMode::kPrefix))->kind, PolicyKind::kPrefix);
  EXPECT_EQ(*ResolvePolicy(Asking(CacheMode::kFused)), kDefaultFusedPolicy);
}

TEST(ResolvePolicy, ContradictionsAreRefused) {
  PolicyRequest request = Asking(CacheMode::kExact);
  request.policy = FusionPolicy{PolicyKind::kConcat, 0};
  EXPECT_EQ(ResolvePolicy(request).status().code(), StatusCode::kInvalidArgument);
  request.mode = CacheMode::kFused;
  EXPECT_EQ(ResolvePolicy(request)->kind, PolicyKind::kConcat);
  request.policy = FusionPolicy{PolicyKind::kExact, 0};
  EXPECT_FALSE(ResolvePolicy(request).ok());
}

TEST(ResolvePolicy, UnmovableModelsSayWhy) {
  const auto policy = ResolvePolicy(Asking(CacheMode::kFused, true, false));
  EXPECT_EQ(policy.status().code(), StatusCode::kUnimplemented);
  EXPECT_NE(policy.status().message().find("depends on the length"), std::string::npos);
}

}  // namespace
}  // namespace kvasir
