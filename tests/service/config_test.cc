#include "service/config.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <random>

#include "service/did_you_mean.h"

namespace kvasir {
namespace {

class ConfigTest : public testing::Test {
 protected:
  std::string Write(const std::string& name, const std::string& text) {
    const std::string path =
        testing::TempDir() + "/kvasir-config-" + std::to_string(getpid()) + "-" + name;
    std::ofstream(path) << text;
    return path;
  }
  // Sources that never look at this machine's own files.
  ConfigSources Sources() {
    ConfigSources sources;
    sources.system_file = testing::TempDir() + "/kvasir-no-such-file.toml";
    return sources;
  }
  static std::string OriginOf(const LoadedConfig& loaded, const std::string& key) {
    for (const ConfigEntry& entry : loaded.Entries()) {
      if (entry.key == key) return entry.origin;
    }
    return "no such key";
  }
};

TEST_F(ConfigTest, DefaultsStandAlone) {
  const auto loaded = LoadConfig(Sources());
  ASSERT_TRUE(loaded.ok()) << loaded.status().ToString();
  EXPECT_EQ(loaded->config().server_port, 8080);
  EXPECT_EQ(loaded->config().cache_codec, "int8");
  EXPECT_EQ(OriginOf(*loaded, "server.port"), "default");
}

// Each layer sets one key more than the one above it, so that every rank shows.
TEST_F(ConfigTest, LaterLayersWin) {
  ConfigSources sources = Sources();
  sources.system_file = Write("system.toml",
                              "[server]\nport = 1\nhost = \"127.0.0.2\"\n"
                              "[engine]\nthreads = 1\npool_mib = 11\n[chunk]\ntokens = 101\n");
  sources.file = Write("own.toml", "[server]\nport = 2\n[engine]\nthreads = 2\npool_mib = 12\n");
  sources.environment = {{"KVASIR__SERVER__PORT", "3"},
                         {"KVASIR__ENGINE__THREADS", "3"},
                         {"HOME", "/x"},
                         {"KVASIR_MODEL_DIR", "/y"}};
  sources.flags = {{"server.port", "4"}};
  const auto loaded = LoadConfig(sources);
  ASSERT_TRUE(loaded.ok()) << loaded.status().ToString();
  EXPECT_EQ(loaded->config().server_port, 4);
  EXPECT_EQ(loaded->config().engine_threads, 3);
  EXPECT_EQ(loaded->config().engine_pool_mib, 12);
  EXPECT_EQ(loaded->config().chunk_tokens, 101);
  EXPECT_EQ(loaded->config().server_host, "127.0.0.2");
  EXPECT_EQ(OriginOf(*loaded, "server.port"), "command line");
  EXPECT_EQ(OriginOf(*loaded, "engine.threads"), "environment variable KVASIR__ENGINE__THREADS");
  EXPECT_EQ(OriginOf(*loaded, "engine.pool_mib"), sources.file);
  EXPECT_EQ(OriginOf(*loaded, "chunk.tokens"), sources.system_file);
}

TEST_F(ConfigTest, UnknownKeysNameTheNearest) {
  ConfigSources sources = Sources();
  sources.file = Write("typo.toml", "[engine]\npool_mb = 12\n");
  const auto loaded = LoadConfig(sources);
  ASSERT_FALSE(loaded.ok());
  EXPECT_EQ(loaded.status().code(), StatusCode::kInvalidArgument);
  EXPECT_NE(loaded.status().message().find("engine.pool_mb"), std::string::npos);
  EXPECT_NE(loaded.status().message().find("did you mean 'engine.pool_mib'?"), std::string::npos);
  EXPECT_NE(loaded.status().message().find(sources.file), std::string::npos);
}

// Products are fp32 only: a precision that the backend lacks cannot be asked for.
TEST_F(ConfigTest, ThereIsNoChoiceOfProducts) {
  ConfigSources sources = Sources();
  sources.flags = {{"engine.matmul", "f32"}};
  EXPECT_EQ(LoadConfig(sources).status().code(), StatusCode::kInvalidArgument);
}

TEST_F(ConfigTest, BadValuesNameKeyAndOrigin) {
  const std::pair<const char*, const char*> bad[] = {{"server.port", "65536"},
                                                     {"server.port", "-1"},
                                                     {"server.port", "80a"},
                                                     {"server.port", ""},
                                                     {"engine.kv_dtype", "fp8"},
                                                     {"engine.isa", "sse"},
                                                     {"engine.backend", "tpu"},
                                                     {"cache.codec", "zstd"},
                                                     {"chunk.tokens", "3"},
                                                     {"audit.share", "1.5"},
                                                     {"audit.share", "-0.1"},
                                                     {"audit.share", "nan"},
                                                     {"audit.share", ""},
                                                     {"engine.pool_mib", "0"},
                                                     {"engine.pool_mib", "99999999999999999999"}};
  for (const auto& [key, value] : bad) {
    ConfigSources sources = Sources();
    sources.flags = {{key, value}};
    const auto loaded = LoadConfig(sources);
    ASSERT_FALSE(loaded.ok()) << key << "=" << value;
    EXPECT_NE(loaded.status().message().find(key), std::string::npos);
    EXPECT_NE(loaded.status().message().find("command line"), std::string::npos);
  }
}

TEST_F(ConfigTest, SharesAreFractions) {
  ConfigSources sources = Sources();
  sources.file = Write("share.toml", "[audit]\nshare = 0.125\n");
  auto loaded = LoadConfig(sources);
  ASSERT_TRUE(loaded.ok()) << loaded.status().ToString();
  EXPECT_EQ(loaded->config().audit_share, 0.125);
  sources.flags = {{"audit.share", "1"}};
  loaded = LoadConfig(sources);
  ASSERT_TRUE(loaded.ok());
  EXPECT_EQ(loaded->config().audit_share, 1);
}

TEST_F(ConfigTest, BrokenTomlNamesFileAndLine) {
  ConfigSources sources = Sources();
  sources.file = Write("broken.toml", "[engine]\nthreads = \n");
  const auto loaded = LoadConfig(sources);
  ASSERT_FALSE(loaded.ok());
  EXPECT_NE(loaded.status().message().find("line 2"), std::string::npos)
      << loaded.status().message();
  sources.file = "/no/such/file.toml";
  EXPECT_FALSE(LoadConfig(sources).ok());
}

TEST_F(ConfigTest, ApiKeysAreAListAndNeverShown) {
  ConfigSources sources = Sources();
  sources.file = Write("keys.toml", "[server]\napi_keys = [\"alpha\", \"beta\"]\n");
  const auto loaded = LoadConfig(sources);
  ASSERT_TRUE(loaded.ok()) << loaded.status().ToString();
  EXPECT_EQ(loaded->config().server_api_keys, (std::vector<std::string>{"alpha", "beta"}));
  for (const ConfigEntry& entry : loaded->Entries()) {
    EXPECT_EQ(entry.value.find("alpha"), std::string::npos) << entry.key;
  }
}

TEST(EditDistance, CasesByHand) {
  EXPECT_EQ(EditDistance("", ""), 0);
  EXPECT_EQ(EditDistance("abc", ""), 3);
  EXPECT_EQ(EditDistance("kitten", "sitting"), 3);
  EXPECT_EQ(EditDistance("flaw", "lawn"), 2);
}

// The defining recursion, without memory.
int Plain(std::string_view a, std::string_view b) {
  if (a.empty() || b.empty()) return static_cast<int>(a.size() + b.size());
  const int rest = Plain(a.substr(1), b.substr(1)) + (a[0] == b[0] ? 0 : 1);
  return std::min({rest, Plain(a.substr(1), b) + 1, Plain(a, b.substr(1)) + 1});
}

TEST(EditDistance, EqualsTheRecursion) {
  std::mt19937 random(7);
  for (int i = 0; i < 200; ++i) {
    std::string a(random() % 6, 'x'), b(random() % 6, 'x');
    for (char& c : a) c = static_cast<char>('a' + random() % 3);
    for (char& c : b) c = static_cast<char>('a' + random() % 3);
    EXPECT_EQ(EditDistance(a, b), Plain(a, b)) << a << " " << b;
  }
}

TEST(DidYouMean, SaysNothingWhenNothingIsNear) {
  EXPECT_EQ(DidYouMean("zzzzzzzz", {"mode", "policy"}), "");
  EXPECT_EQ(DidYouMean("mod", {"mode", "policy"}), "; did you mean 'mode'?");
  EXPECT_EQ(DidYouMean("mod", {}), "");
}

}  // namespace
}  // namespace kvasir
