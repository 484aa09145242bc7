// One flipped bit anywhere on disk: the store refuses to open with a clear error, or the chunk is a
// typed miss, or its bytes are right. Never wrong bytes, never a chunk gone without a word.
#include <fstream>

#include "cache/chunk_store.h"
#include "tests/cache/fixture.h"

namespace kvasir {
namespace {

namespace fs = std::filesystem;

std::vector<TestChunk> SomeChunks() {
  std::vector<TestChunk> chunks;
  for (uint32_t seed = 0; seed < 3; ++seed) chunks.push_back(MakeTestChunk(seed, 12));  // in tables
  chunks.push_back(MakeTestChunk(10, 144, {4, 4, 64, DType::kF32}));  // in a blob file
  return chunks;
}

void StoreAll(ChunkStore& store, const std::vector<TestChunk>& chunks) {
  for (const TestChunk& chunk : chunks) {
    ASSERT_STATUS_OK(store.Store(chunk.key, chunk.ids, chunk.encoded));
  }
}

std::vector<fs::path> FilesEndingIn(const fs::path& folder, const std::string& kind) {
  std::vector<fs::path> files;
  for (const auto& entry : fs::directory_iterator(folder)) {
    const std::string name = entry.path().filename().string();
    const bool matches = kind == "MANIFEST" ? name.starts_with(kind) : name.ends_with(kind);
    if (matches && entry.file_size() > 0) files.push_back(entry.path());
  }
  std::sort(files.begin(), files.end());
  return files;
}

void FlipBit(const fs::path& file, uint64_t bit) {
  std::fstream stream(file, std::ios::in | std::ios::out | std::ios::binary);
  stream.seekg(static_cast<std::streamoff>(bit / 8));
  const auto byte = static_cast<char>(stream.get() ^ (1 << (bit % 8)));
  stream.seekp(static_cast<std::streamoff>(bit / 8));
  stream.put(byte);
}

struct Tally {
  int refused = 0, missed = 0, right = 0;
};

void OpenAndLoadAll(const std::string& path, const std::vector<TestChunk>& chunks, Tally& tally) {
  const auto database = Database::Open(path);
  if (!database.ok()) {
    EXPECT_NE(database.status().message().find(path), std::string::npos);
    ++tally.refused;
    return;
  }
  const auto store = ChunkStore::Open(*database);
  if (!store.ok()) {
    ++tally.refused;
    return;
  }
  for (const TestChunk& chunk : chunks) {
    const LoadedChunk loaded = (*store)->Load(chunk.key, chunk.ids);
    if (loaded.outcome == LoadOutcome::kLoaded) {
      ASSERT_TRUE(SameBytes(loaded.chunk, chunk.encoded)) << "wrong bytes served";
      ++tally.right;
    } else {
      ASSERT_TRUE(loaded.outcome == LoadOutcome::kCorrupt || loaded.outcome == LoadOutcome::kFailed)
          << "gone without a word";
      ++tally.missed;
      // The chunk can be computed and stored again.
      if (loaded.outcome == LoadOutcome::kCorrupt) {
        ASSERT_STATUS_OK((*store)->Store(chunk.key, chunk.ids, chunk.encoded));
      }
    }
  }
}

// `image`: a data folder as it lies on disk.
Tally FlipBits(const fs::path& image, const std::string& kind, int flips,
               const std::vector<TestChunk>& chunks, const TempFolder& scratch) {
  Tally tally;
  const auto files = FilesEndingIn(image, kind);
  EXPECT_FALSE(files.empty()) << "no " << kind;
  std::mt19937_64 random(17);
  for (int flip = 0; flip < flips && !files.empty(); ++flip) {
    const fs::path copy = scratch.path() / "copy";
    fs::remove_all(copy);
    fs::copy(image, copy);
    const fs::path& victim = files[static_cast<size_t>(flip) % files.size()];
    FlipBit(copy / victim.filename(), random() % (fs::file_size(victim) * 8));
    OpenAndLoadAll(copy.string(), chunks, tally);
    if (testing::Test::HasFatalFailure()) break;
  }
  return tally;
}

TEST(BitFlips, InTablesAndBlobFiles) {
  TempFolder scratch;
  const auto chunks = SomeChunks();
  const fs::path image = scratch.path() / "image";
  StoreAll(*OpenStore(OpenDatabase(image.string())), chunks);  // closed: all in tables
  const Tally tables = FlipBits(image, ".sst", 60, chunks, scratch);
  EXPECT_GT(tables.refused + tables.missed, 0);
  const Tally blobs = FlipBits(image, ".blob", 20, chunks, scratch);
  EXPECT_GT(blobs.missed, 15);  // nearly all of the file is payload
  EXPECT_GT(blobs.right, 0);    // of the chunks that are not in it
}

TEST(BitFlips, InTheWriteAheadLog) {
  TempFolder scratch;
  const auto chunks = SomeChunks();
  const fs::path image = scratch.path() / "image";
  {
    const auto database = OpenDatabase(scratch.Sub("live"));
    StoreAll(*OpenStore(database), chunks);
    fs::copy(scratch.Sub("live"), image);  // as a crash leaves it: all in the log
  }
  const Tally log = FlipBits(image, ".log", 30, chunks, scratch);
  EXPECT_EQ(log.missed, 0);  // damage to the log is refused, not dropped
  EXPECT_GT(log.refused, 0);
}

TEST(BitFlips, InManifestAndCurrent) {
  TempFolder scratch;
  const auto chunks = SomeChunks();
  const fs::path image = scratch.path() / "image";
  StoreAll(*OpenStore(OpenDatabase(image.string())), chunks);
  for (const char* kind : {"MANIFEST", "CURRENT"}) {
    const Tally tally = FlipBits(image, kind, 10, chunks, scratch);
    EXPECT_GT(tally.refused, 0) << kind;
  }
}

}  // namespace
}  // namespace kvasir
