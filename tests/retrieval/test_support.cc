#include "test_support.h"

#include <cctype>
#include <cmath>
#include <fstream>
#include <sstream>

namespace kvasir::testing {
namespace {

void Normalize(std::vector<float>* vector) {
  double square = 0;
  for (const float v : *vector) square += double{v} * double{v};
  const double scale = square > 0 ? 1 / std::sqrt(square) : 0;
  for (float& v : *vector) v = static_cast<float>(v * scale);
}

std::vector<float> CountWords(const std::string& text) {
  std::vector<float> bins(WordEmbedder::kWidth, 0.0f);
  uint64_t hash = 0;
  for (size_t i = 0; i <= text.size(); ++i) {
    const int c = i < text.size() ? std::tolower(static_cast<unsigned char>(text[i])) : ' ';
    if (std::isalnum(c)) {
      hash = (hash + static_cast<uint64_t>(c)) * 0x9E3779B97F4A7C15;
    } else if (hash != 0) {
      bins[(hash >> 40) % bins.size()] += 1;
      hash = 0;
    }
  }
  bins[0] += 0.01f;  // never the zero vector
  Normalize(&bins);
  return bins;
}

}  // namespace

Result<std::vector<float>> WordEmbedder::Embed(std::span<const std::string> texts) {
  std::vector<float> out;
  for (const std::string& text : texts) {
    const std::vector<float> one = CountWords(text);
    out.insert(out.end(), one.begin(), one.end());
    ++embedded;
  }
  return out;
}

std::vector<float> RandomUnitVector(std::mt19937* random, int32_t dimension) {
  std::normal_distribution<float> normal;
  std::vector<float> vector(static_cast<size_t>(dimension));
  for (float& v : vector) v = normal(*random);
  Normalize(&vector);
  return vector;
}

NewDocument DocumentOf(const std::string& collection, const std::string& id,
                       const std::vector<std::string>& texts) {
  NewDocument document;
  document.id = id;
  document.collection = collection;
  document.title = "Title of " + id;
  document.source = "/docs/" + id;
  for (const std::string& text : texts) {
    document.content_digest += text + "|";
    NewChunk chunk;
    chunk.text = text;
    for (const char c : text) chunk.token_ids.push_back(static_cast<unsigned char>(c));
    document.chunks.push_back(std::move(chunk));
  }
  return document;
}

NewDocument OneChunkDocument(const std::string& collection, const std::string& id,
                             const std::string& text) {
  return DocumentOf(collection, id, {text});
}

std::string Numbered(const char* prefix, int64_t number) {
  std::string text = prefix;
  text += std::to_string(number);
  return text;
}

std::string FindModel(const std::string& name) {
  std::vector<std::filesystem::path> folders;
  const auto add = [&](const char* variable, const char* below) {
    if (const char* value = std::getenv(variable)) folders.emplace_back(std::string(value) + below);
  };
  add("KVASIR_MODEL_DIR", "");
  add("XDG_CACHE_HOME", "/kvasir/models");
  add("HOME", "/.cache/kvasir/models");
  for (const auto& folder : folders) {
    if (std::filesystem::exists(folder / name)) return (folder / name).string();
  }
  return {};
}

std::string ReadAll(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  std::ostringstream out;
  out << in.rdbuf();
  return out.str();
}

}  // namespace kvasir::testing
