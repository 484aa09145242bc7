#include "cache/chunk_store.h"

#include <rocksdb/write_batch.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>

#include "cache/rocks.h"
#include "tests/cache/faulty_env.h"
#include "tests/cache/fixture.h"

namespace kvasir {
namespace {

// About 300 KiB in one group: goes to a blob file.
KvLayout LargeLayout() { return {4, 4, 64, DType::kF32}; }

TestChunk LargeChunk(uint32_t seed) { return MakeTestChunk(seed, 144, LargeLayout()); }

size_t CountKeys(const Database& database, rocksdb::ColumnFamilyHandle* family) {
  const std::unique_ptr<rocksdb::Iterator> it(
      database.rocks().db->NewIterator(rocksdb::ReadOptions(), family));
  size_t count = 0;
  for (it->SeekToFirst(); it->Valid(); it->Next()) ++count;
  return count;
}

size_t PayloadKeys(const Database& database) { return CountKeys(database, database.rocks().kv); }

// Changes one stored group behind the store's back.
void DamageGroups(const Database& database, const std::function<void(std::string&)>& damage) {
  const Database::Rocks& rocks = database.rocks();
  rocksdb::WriteBatch batch;
  const std::unique_ptr<rocksdb::Iterator> it(
      rocks.db->NewIterator(rocksdb::ReadOptions(), rocks.kv));
  for (it->SeekToFirst(); it->Valid(); it->Next()) {
    std::string value = it->value().ToString();
    damage(value);
    batch.Put(rocks.kv, it->key(), value);
  }
  ASSERT_STATUS_OK(WriteSynced(rocks, batch, "test"));
}

TEST(ChunkStore, RoundTripIsByteIdenticalAfterReopening) {
  TempFolder folder;
  std::vector<TestChunk> chunks;
  for (uint32_t seed = 0; seed < 4; ++seed) chunks.push_back(MakeTestChunk(seed, 1 + seed * 17));
  chunks.push_back(LargeChunk(10));
  chunks.push_back(MakeTestChunk(11, 256, {30, 3, 64, DType::kF32}));  // three groups
  {
    const auto store = OpenStore(OpenDatabase(folder.Sub("db")));
    for (const TestChunk& chunk : chunks) {
      ASSERT_STATUS_OK(store->Store(chunk.key, chunk.ids, chunk.encoded));
    }
  }
  const auto store = OpenStore(OpenDatabase(folder.Sub("db")));
  for (const TestChunk& chunk : chunks) {
    const LoadedChunk loaded = store->Load(chunk.key, chunk.ids);
    ASSERT_EQ(loaded.outcome, LoadOutcome::kLoaded) << loaded.detail.ToString();
    EXPECT_TRUE(SameBytes(loaded.chunk, chunk.encoded));
    EXPECT_EQ(*store->TokenIds(chunk.key), chunk.ids);
    EXPECT_TRUE(store->Contains(chunk.key, chunk.ids));
    const auto info = store->Info(chunk.key);
    ASSERT_TRUE(info.ok() && info->has_value());
    EXPECT_EQ((*info)->bytes, chunk.encoded.bytes());
    EXPECT_EQ((*info)->shape, chunk.encoded.shape);
  }
}

TEST(ChunkStore, AnotherKeyIsAMiss) {
  TempFolder folder;
  const auto store = OpenStore(OpenDatabase(folder.Sub("db")));
  const TestChunk chunk = MakeTestChunk(1);
  ASSERT_STATUS_OK(store->Store(chunk.key, chunk.ids, chunk.encoded));

  const auto outcome = [&](const std::string& name_space, const FingerprintFields& fields) {
    return store->Load(MakeChunkKey(name_space, Fingerprint(fields), chunk.ids), chunk.ids).outcome;
  };
  EXPECT_EQ(outcome("tenant/kb", SomeFields()), LoadOutcome::kLoaded);
  EXPECT_EQ(outcome("tenant2/kb", SomeFields()), LoadOutcome::kMissing);
  FingerprintFields swapped = SomeFields();
  std::swap(swapped.layout.kv_heads, swapped.layout.head_dim);
  EXPECT_EQ(outcome("tenant/kb", swapped), LoadOutcome::kForeign);
  FingerprintFields anchor = SomeFields();
  anchor.anchor_ids.push_back(4);
  EXPECT_EQ(outcome("tenant/kb", anchor), LoadOutcome::kForeign);
  FingerprintFields codec = SomeFields();
  codec.codec = KvCodec::kF16;
  EXPECT_EQ(outcome("tenant/kb", codec), LoadOutcome::kForeign);
}

TEST(ChunkStore, OtherTokensUnderAForgedHashAreNotServed) {
  TempFolder folder;
  const auto store = OpenStore(OpenDatabase(folder.Sub("db")));
  const TestChunk chunk = MakeTestChunk(1);
  ASSERT_STATUS_OK(store->Store(chunk.key, chunk.ids, chunk.encoded));
  for (const size_t at : {size_t{0}, chunk.ids.size() - 1}) {
    std::vector<int32_t> other = chunk.ids;
    other[at] ^= 1;
    EXPECT_EQ(store->Load(chunk.key, other).outcome, LoadOutcome::kTokenMismatch);
    EXPECT_FALSE(store->Contains(chunk.key, other));
  }
  std::vector<int32_t> shorter = chunk.ids;
  shorter.pop_back();
  EXPECT_EQ(store->Load(chunk.key, shorter).outcome, LoadOutcome::kTokenMismatch);
  EXPECT_EQ(store->Load(chunk.key, chunk.ids).outcome, LoadOutcome::kLoaded);
}

TEST(ChunkStore, NothingIsVisibleBetweenPayloadAndPublishing) {
  TempFolder folder;
  const TestChunk chunk = LargeChunk(1);
  {
    const auto database = OpenDatabase(folder.Sub("db"));
    const auto store = OpenStore(database);
    ASSERT_TRUE(store->Prepare(chunk.key, chunk.ids, chunk.encoded).ok());  // ... and crash
    EXPECT_EQ(store->Load(chunk.key, chunk.ids).outcome, LoadOutcome::kMissing);
    EXPECT_EQ(PayloadKeys(*database), 1u);
  }
  const auto database = OpenDatabase(folder.Sub("db"));
  const auto store = OpenStore(database);
  EXPECT_EQ(store->swept_at_open(), 1u);
  EXPECT_EQ(PayloadKeys(*database), 0u);
  EXPECT_EQ(store->Load(chunk.key, chunk.ids).outcome, LoadOutcome::kMissing);
}

TEST(ChunkStore, PublishingIsAllOrNothingAndAbandoningLeavesNothing) {
  TempFolder folder;
  const auto database = OpenDatabase(folder.Sub("db"));
  const auto store = OpenStore(database);
  const TestChunk a = MakeTestChunk(1), b = MakeTestChunk(2), c = MakeTestChunk(3);
  std::vector<PreparedChunk> prepared;
  for (const TestChunk* chunk : {&a, &b}) {
    prepared.push_back(store->Prepare(chunk->key, chunk->ids, chunk->encoded).value());
  }
  const PreparedChunk dropped = store->Prepare(c.key, c.ids, c.encoded).value();
  ASSERT_STATUS_OK(store->Publish(prepared));
  ASSERT_STATUS_OK(store->Abandon(dropped));
  EXPECT_TRUE(store->Contains(a.key, a.ids));
  EXPECT_TRUE(store->Contains(b.key, b.ids));
  EXPECT_FALSE(store->Contains(c.key, c.ids));
  EXPECT_EQ(PayloadKeys(*database), 2u);
}

TEST(ChunkStore, ReplacingAndRemovingLeaveNoPayload) {
  TempFolder folder;
  const auto database = OpenDatabase(folder.Sub("db"));
  const auto store = OpenStore(database);
  const TestChunk chunk = MakeTestChunk(1);
  const EncodedChunk other =
      EncodeChunk(RandomCapture(SmallLayout(), 20, 99), KvCodec::kInt8).value();
  ASSERT_STATUS_OK(store->Store(chunk.key, chunk.ids, chunk.encoded));
  ASSERT_STATUS_OK(store->Store(chunk.key, chunk.ids, other));
  EXPECT_EQ(PayloadKeys(*database), 1u);
  EXPECT_TRUE(SameBytes(store->Load(chunk.key, chunk.ids).chunk, other));
  EXPECT_TRUE(*store->Remove(chunk.key));
  EXPECT_FALSE(*store->Remove(chunk.key));
  EXPECT_EQ(PayloadKeys(*database), 0u);
  EXPECT_EQ(store->Load(chunk.key, chunk.ids).outcome, LoadOutcome::kMissing);
}

TEST(ChunkStore, RemovedPayloadsGiveTheirDiskSpaceBack) {
  TempFolder folder;
  const auto database = OpenDatabase(folder.Sub("db"));
  const auto store = OpenStore(database);
  uint64_t stored = 0;
  for (uint32_t seed = 0; seed < 8; ++seed) {
    const TestChunk chunk = LargeChunk(seed);
    ASSERT_STATUS_OK(store->Store(chunk.key, chunk.ids, chunk.encoded));
    stored += chunk.encoded.bytes();
    if (seed % 4 != 3) continue;
    ASSERT_STATUS_OK(database->Flush());  // two blob files, both kept alive
  }
  EXPECT_FALSE(*database->CollectGarbage());  // nothing to gain
  for (const uint32_t seed : {0u, 1u, 2u, 4u, 5u, 6u}) {
    ASSERT_TRUE(*store->Remove(LargeChunk(seed).key));
  }
  EXPECT_TRUE(*database->CollectGarbage());
  EXPECT_LT(database->Size().disk_bytes, stored / 2);
  for (const uint32_t seed : {3u, 7u}) {
    const TestChunk chunk = LargeChunk(seed);
    EXPECT_TRUE(SameBytes(store->Load(chunk.key, chunk.ids).chunk, chunk.encoded));
  }
}

TEST(ChunkStore, AFailedStoreLeavesNoKey) {
  TempFolder folder;
  auto file_system = std::make_shared<FillableFileSystem>();
  const std::unique_ptr<rocksdb::Env> env = rocksdb::NewCompositeEnv(file_system);
  DatabaseOptions options;
  options.env = env.get();
  const TestChunk old = LargeChunk(1), fresh = LargeChunk(2);
  {
    const auto store = OpenStore(OpenDatabase(folder.Sub("db"), options));
    ASSERT_STATUS_OK(store->Store(old.key, old.ids, old.encoded));
    file_system->full = true;
    EXPECT_EQ(store->Store(fresh.key, fresh.ids, fresh.encoded).code(),
              StatusCode::kResourceExhausted);
    EXPECT_EQ(store->Load(fresh.key, fresh.ids).outcome, LoadOutcome::kMissing);
    EXPECT_EQ(store->Load(old.key, old.ids).outcome, LoadOutcome::kLoaded);
  }
  {
    const auto store = OpenStore(OpenDatabase(folder.Sub("db"), options));  // degraded
    EXPECT_TRUE(store->read_only());
    EXPECT_EQ(store->Load(old.key, old.ids).outcome, LoadOutcome::kLoaded);
    EXPECT_EQ(store->Remove(old.key).status().code(), StatusCode::kResourceExhausted);
  }
  file_system->full = false;
  const auto store = OpenStore(OpenDatabase(folder.Sub("db"), options));
  EXPECT_EQ(store->Load(fresh.key, fresh.ids).outcome, LoadOutcome::kMissing);
  EXPECT_EQ(store->Load(old.key, old.ids).outcome, LoadOutcome::kLoaded);
}

TEST(ChunkStore, InconsistentChunksAreRefused) {
  TempFolder folder;
  const auto store = OpenStore(OpenDatabase(folder.Sub("db")));
  TestChunk chunk = MakeTestChunk(1);
  EXPECT_FALSE(store->Store(chunk.key, std::span(chunk.ids).first(19), chunk.encoded).ok());
  chunk.encoded.groups.clear();
  EXPECT_FALSE(store->Store(chunk.key, chunk.ids, chunk.encoded).ok());
}

TEST(ChunkStore, DamagedPayloadIsQuarantinedAndCanBeStoredAgain) {
  using Damage = std::function<void(std::string&)>;
  const std::vector<Damage> damages = {
      [](std::string& v) { v[0] ^= 1; },                                      // magic
      [](std::string& v) { v[16] ^= 64; },                                    // geometry
      [](std::string& v) { v[60] ^= 1; },                                     // header digest
      [](std::string& v) { v[64] ^= 1; },                                     // K
      [](std::string& v) { v.back() ^= 1; },                                  // padding of V scales
      [](std::string& v) { v.pop_back(); },                                   // short
      [](std::string& v) { v += '\0'; },                                      // long
      [](std::string& v) { v.clear(); },                                      // empty
      [](std::string& v) { v = MakeTestChunk(2).encoded.groups[0].view(); },  // another chunk's
  };
  TempFolder folder;
  const auto database = OpenDatabase(folder.Sub("db"));
  const auto store = OpenStore(database);
  const TestChunk chunk = MakeTestChunk(1);
  uint64_t expected = 0;
  for (const Damage& damage : damages) {
    ASSERT_STATUS_OK(store->Store(chunk.key, chunk.ids, chunk.encoded));
    DamageGroups(*database, damage);
    const LoadedChunk loaded = store->Load(chunk.key, chunk.ids);
    EXPECT_EQ(loaded.outcome, LoadOutcome::kCorrupt) << "damage " << expected;
    EXPECT_TRUE(loaded.chunk.groups.empty());
    EXPECT_EQ(loaded.detail.code(), StatusCode::kDataLoss);
    EXPECT_EQ(store->quarantined(), ++expected);
    EXPECT_EQ(store->Load(chunk.key, chunk.ids).outcome, LoadOutcome::kMissing);
    EXPECT_EQ(PayloadKeys(*database), 0u);
  }
}

TEST(ChunkStore, DamagedRecordIsQuarantinedAndCanBeStoredAgain) {
  TempFolder folder;
  const auto database = OpenDatabase(folder.Sub("db"));
  const Database::Rocks& rocks = database->rocks();
  const auto store = OpenStore(database);
  const TestChunk chunk = MakeTestChunk(1), other = MakeTestChunk(2);
  const auto record_key = [](const TestChunk& c) { return meta_domain::kChunk + c.key.Bytes(); };
  ASSERT_STATUS_OK(store->Store(other.key, other.ids, other.encoded));
  std::string record, others_record;
  ASSERT_TRUE(rocks.db->Get({}, rocks.meta, record_key(other), &others_record).ok());
  for (size_t round = 0; round < 60; ++round) {
    ASSERT_STATUS_OK(store->Store(chunk.key, chunk.ids, chunk.encoded));
    ASSERT_TRUE(rocks.db->Get({}, rocks.meta, record_key(chunk), &record).ok());
    if (round == 0) {
      record = others_record;  // whole, but of another key
    } else {
      const size_t bit = round * 7919 % (record.size() * 8);
      record[bit / 8] = static_cast<char>(record[bit / 8] ^ (1 << (bit % 8)));
    }
    rocksdb::WriteBatch batch;
    batch.Put(rocks.meta, record_key(chunk), record);
    ASSERT_STATUS_OK(WriteSynced(rocks, batch, "test"));
    ASSERT_EQ(store->Load(chunk.key, chunk.ids).outcome, LoadOutcome::kCorrupt);
    ASSERT_EQ(store->Load(chunk.key, chunk.ids).outcome, LoadOutcome::kMissing);
    ASSERT_EQ(PayloadKeys(*database), 1u);  // the other chunk's
  }
  EXPECT_EQ(store->Load(other.key, other.ids).outcome, LoadOutcome::kLoaded);
}

TEST(ChunkStore, ScanListsANamespaceAndScrubFindsDamage) {
  TempFolder folder;
  const auto database = OpenDatabase(folder.Sub("db"));
  const auto store = OpenStore(database);
  for (uint32_t seed = 0; seed < 6; ++seed) {
    const TestChunk chunk = MakeTestChunk(seed, 20, SmallLayout(), seed % 2 ? "kb" : "kb2");
    ASSERT_STATUS_OK(store->Store(chunk.key, chunk.ids, chunk.encoded));
  }
  const auto count = [&](std::optional<std::string_view> name_space) {
    size_t found = 0;
    EXPECT_TRUE(store
                    ->Scan(name_space,
                           [&](const ChunkInfo& info) {
                             EXPECT_TRUE(!name_space || info.key.name_space == *name_space);
                             return ++found > 0;
                           })
                    .ok());
    return found;
  };
  EXPECT_EQ(count("kb"), 3u);
  EXPECT_EQ(count("k"), 0u);
  EXPECT_EQ(count(std::nullopt), 6u);

  ScrubReport clean = store->Scrub().value();
  EXPECT_EQ(clean.chunks, 6u);
  EXPECT_EQ(clean.corrupt, 0u);
  int groups = 0;
  DamageGroups(*database, [&](std::string& value) {
    if (groups++ % 3 == 0) value[100] ^= 4;
  });
  EXPECT_EQ(store->Scrub()->corrupt, 2u);
  EXPECT_EQ(count(std::nullopt), 4u);
}

// A child process stores chunk after chunk and says so; it is killed in the middle. Everything
// that it acknowledged is there, whole; nothing is half there.
TEST(ChunkStore, AcknowledgedChunksSurviveSigkill) {
  TempFolder folder;
  constexpr uint32_t kAwaited = 5;
  int acks[2];
  ASSERT_EQ(pipe(acks), 0);
  const pid_t child = fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    auto database = Database::Open(folder.Sub("db"));
    auto store = ChunkStore::Open(*database);
    for (uint32_t seed = 0; seed < 10000; ++seed) {
      const TestChunk chunk = LargeChunk(seed);
      if (!(*store)->Store(chunk.key, chunk.ids, chunk.encoded).ok()) _exit(1);
      if (write(acks[1], &seed, sizeof seed) != sizeof seed) _exit(1);
    }
    _exit(0);
  }
  close(acks[1]);
  uint32_t last = 0;
  while (last < kAwaited) ASSERT_EQ(read(acks[0], &last, sizeof last), ssize_t{sizeof last});
  kill(child, SIGKILL);
  while (read(acks[0], &last, sizeof last) == ssize_t{sizeof last}) {
  }
  close(acks[0]);
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);

  const auto database = OpenDatabase(folder.Sub("db"));
  const auto store = OpenStore(database);
  for (uint32_t seed = 0; seed <= last; ++seed) {
    const TestChunk chunk = LargeChunk(seed);
    const LoadedChunk loaded = store->Load(chunk.key, chunk.ids);
    ASSERT_EQ(loaded.outcome, LoadOutcome::kLoaded) << seed << " of " << last;
    ASSERT_TRUE(SameBytes(loaded.chunk, chunk.encoded));
  }
  size_t visible = 0;
  ASSERT_STATUS_OK(store->Scan(std::nullopt, [&](const ChunkInfo&) { return ++visible > 0; }));
  EXPECT_EQ(PayloadKeys(*database), visible);
  EXPECT_LE(visible, last + 2u);  // at most one more, stored but not yet acknowledged
}

}  // namespace
}  // namespace kvasir
