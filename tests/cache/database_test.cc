#include "cache/database.h"

#include <rocksdb/write_batch.h>

#include <fstream>

#include "cache/rocks.h"
#include "tests/cache/faulty_env.h"
#include "tests/cache/fixture.h"

namespace kvasir {
namespace {

std::vector<std::pair<std::string, std::string>> ScanAll(const OrderedStore& store,
                                                         std::string_view prefix) {
  std::vector<std::pair<std::string, std::string>> found;
  EXPECT_TRUE(store
                  .Scan(prefix,
                        [&](std::string_view key, std::string_view value) {
                          found.emplace_back(key, value);
                          return true;
                        })
                  .ok());
  return found;
}

TEST(Database, OrderedStoreByHand) {
  TempFolder folder;
  const auto store = Database::Store(OpenDatabase(folder.Sub("db")), "docs");
  ASSERT_STATUS_OK(store->Write({{{"b", "2"}, {"a", "1"}, {"ab", "3"}}, {}}));
  EXPECT_EQ(store->Get("a")->value(), "1");
  EXPECT_FALSE(store->Get("c")->has_value());
  ASSERT_STATUS_OK(store->Write({{{"c", "4"}}, {"a"}}));
  using Pairs = std::vector<std::pair<std::string, std::string>>;
  EXPECT_EQ(ScanAll(*store, ""), (Pairs{{"ab", "3"}, {"b", "2"}, {"c", "4"}}));
  EXPECT_EQ(ScanAll(*store, "a"), (Pairs{{"ab", "3"}}));
}

TEST(Database, ViewsNeverSeeEachOther) {
  TempFolder folder;
  const auto database = OpenDatabase(folder.Sub("db"));
  const auto a = Database::Store(database, "a"), ab = Database::Store(database, "ab"),
             none = Database::Store(database, "");
  ASSERT_STATUS_OK(a->Write({{{"bx", "from a"}}, {}}));
  ASSERT_STATUS_OK(ab->Write({{{"x", "from ab"}, {std::string("\xff\xff\0", 3), "high"}}, {}}));
  EXPECT_EQ(ScanAll(*a, "").size(), 1u);
  EXPECT_EQ(ScanAll(*ab, "").size(), 2u);
  EXPECT_EQ(ScanAll(*ab, "\xff").size(), 1u);
  EXPECT_TRUE(ScanAll(*none, "").empty());
}

TEST(Database, OrderedStoreAgreesWithAMapAndSurvivesReopening) {
  TempFolder folder;
  std::map<std::string, std::string> model;
  std::mt19937 random(1);
  for (int session = 0; session < 3; ++session) {
    const auto store = Database::Store(OpenDatabase(folder.Sub("db")), "s");
    const auto found = ScanAll(*store, "");
    ASSERT_EQ((std::map<std::string, std::string>(found.begin(), found.end())), model);
    for (int i = 0; i < 100; ++i) {
      WriteOperations operations;
      const std::string key(1 + random() % 3, static_cast<char>(random() % 4 + 252));
      if (random() % 3 == 0) {
        operations.deletes.push_back(key);
        model.erase(key);
      } else {
        operations.puts.emplace_back(key, std::to_string(i));
        model[key] = std::to_string(i);
      }
      ASSERT_STATUS_OK(store->Write(operations));
    }
  }
}

TEST(Database, ScanSeesOneSnapshot) {
  TempFolder folder;
  const auto store = Database::Store(OpenDatabase(folder.Sub("db")), "s");
  ASSERT_STATUS_OK(store->Write({{{"a", "1"}, {"b", "1"}}, {}}));
  size_t seen = 0;
  ASSERT_STATUS_OK(store->Scan("", [&](std::string_view, std::string_view) {
    EXPECT_TRUE(store->Write({{{std::string(seen + 2, 'c'), "1"}}, {}}).ok());
    ++seen;
    return true;
  }));
  EXPECT_EQ(seen, 2u);
}

TEST(Database, AFolderInUseIsRefused) {
  TempFolder folder;
  auto first = OpenDatabase(folder.Sub("db"));
  const auto second = Database::Open(folder.Sub("db"));
  EXPECT_EQ(second.status().code(), StatusCode::kFailedPrecondition);
  EXPECT_NE(second.status().message().find("in use by another process"), std::string::npos)
      << second.status().ToString();
  first.reset();
  EXPECT_TRUE(Database::Open(folder.Sub("db")).ok());
}

TEST(Database, AnotherFormatVersionIsRefusedAndLeftAlone) {
  TempFolder folder;
  {
    const auto database = OpenDatabase(folder.Sub("db"));
    rocksdb::WriteBatch batch;
    batch.Put(database->rocks().meta, std::string(1, meta_domain::kVersion),
              "kvasir store format 7");
    ASSERT_STATUS_OK(WriteSynced(database->rocks(), batch, "test"));
  }
  for (int attempt = 0; attempt < 2; ++attempt) {
    const auto opened = Database::Open(folder.Sub("db"));
    EXPECT_EQ(opened.status().code(), StatusCode::kFailedPrecondition);
    EXPECT_NE(opened.status().message().find("store format 7, this program uses 1"),
              std::string::npos)
        << opened.status().ToString();
  }
}

TEST(Database, ForeignDatabasesAreRefusedAndLeftAlone) {
  TempFolder folder;
  rocksdb::Options options;
  options.create_if_missing = true;
  rocksdb::DB* raw = nullptr;
  ASSERT_TRUE(rocksdb::DB::Open(options, folder.Sub("db"), &raw).ok());
  std::unique_ptr<rocksdb::DB> foreign(raw);
  ASSERT_TRUE(foreign->Put({}, "key", "value").ok());
  foreign.reset();
  EXPECT_EQ(Database::Open(folder.Sub("db")).status().code(), StatusCode::kFailedPrecondition);

  ASSERT_TRUE(rocksdb::DB::Open(options, folder.Sub("db"), &raw).ok());  // unchanged
  foreign.reset(raw);
  rocksdb::ColumnFamilyHandle* family = nullptr;
  ASSERT_TRUE(foreign->CreateColumnFamily({}, "theirs", &family).ok());
  ASSERT_TRUE(foreign->DestroyColumnFamilyHandle(family).ok());
  foreign.reset();
  const auto opened = Database::Open(folder.Sub("db"));
  EXPECT_EQ(opened.status().code(), StatusCode::kFailedPrecondition);
  EXPECT_NE(opened.status().message().find("theirs"), std::string::npos);
}

TEST(Database, ACreationCutShortIsFinished) {
  TempFolder folder;
  rocksdb::Options options;
  options.create_if_missing = true;
  rocksdb::DB* raw = nullptr;
  ASSERT_TRUE(rocksdb::DB::Open(options, folder.Sub("db"), &raw).ok());
  delete raw;
  EXPECT_TRUE(Database::Open(folder.Sub("db")).ok());
}

TEST(Database, APathThatIsAFileIsRefused) {
  TempFolder folder;
  std::ofstream(folder.Sub("file")) << "text";
  const auto opened = Database::Open(folder.Sub("file"));
  EXPECT_EQ(opened.status().code(), StatusCode::kUnavailable);
  EXPECT_NE(opened.status().message().find(folder.Sub("file")), std::string::npos);
  EXPECT_FALSE(Database::Open(folder.Sub("file/below")).ok());
}

TEST(Database, DamageIsNamed) {
  TempFolder folder;
  OpenDatabase(folder.Sub("db")).reset();
  std::ofstream(folder.Sub("db/CURRENT")) << "nonsense\n";
  const auto opened = Database::Open(folder.Sub("db"));
  ASSERT_FALSE(opened.ok());
  EXPECT_NE(opened.status().message().find(folder.Sub("db")), std::string::npos);
}

TEST(Database, AFullDiskGivesATypedErrorAndADegradedStart) {
  TempFolder folder;
  auto file_system = std::make_shared<FillableFileSystem>();
  const std::unique_ptr<rocksdb::Env> env = rocksdb::NewCompositeEnv(file_system);
  DatabaseOptions options;
  options.env = env.get();
  {
    const auto store = Database::Store(OpenDatabase(folder.Sub("db"), options), "s");
    ASSERT_STATUS_OK(store->Write({{{"kept", "1"}}, {}}));
    file_system->full = true;
    EXPECT_EQ(store->Write({{{"lost", "1"}}, {}}).code(), StatusCode::kResourceExhausted);
    EXPECT_EQ(store->Get("kept")->value(), "1");  // reads go on
    EXPECT_FALSE(store->Get("lost")->has_value());
  }
  {
    const auto database = OpenDatabase(folder.Sub("db"), options);  // still full
    ASSERT_NE(database, nullptr);
    EXPECT_TRUE(database->read_only());
    const auto store = Database::Store(database, "s");
    EXPECT_EQ(store->Get("kept")->value(), "1");
    EXPECT_EQ(store->Write({{{"x", "1"}}, {}}).code(), StatusCode::kResourceExhausted);
  }
  file_system->full = false;
  const auto database = OpenDatabase(folder.Sub("db"), options);
  EXPECT_FALSE(database->read_only());
  const auto store = Database::Store(database, "s");
  EXPECT_EQ(store->Get("kept")->value(), "1");
  ASSERT_STATUS_OK(store->Write({{{"x", "1"}}, {}}));
}

}  // namespace
}  // namespace kvasir
