#include "service/cli/bench_roof.h"

#include <algorithm>
#include <cstdlib>
#include <vector>

#include "service/text_table.h"

namespace kvasir {
namespace {

namespace json = boost::json;

constexpr const char* kBatchKeys[] = {"batch_decode_tps", "shared_batch_tps",
                                      "shared_2000_batch_tps"};
constexpr const char* kSpeedKeys[] = {"prefill_tps", "decode_tps", kBatchKeys[0], kBatchKeys[1],
                                      kBatchKeys[2]};

bool IsSpeed(std::string_view key) {
  return std::find(std::begin(kSpeedKeys), std::end(kSpeedKeys), key) != std::end(kSpeedKeys);
}

// Of a speed, in percent; "-" where no roof was measured.
std::string ShareOf(const json::object& body, std::string_view key, std::string_view at) {
  const auto* shares = body.if_contains("roof_share");
  if (shares == nullptr) return "-";
  return Fixed(100 * shares->at(key).at(at).to_number<double>(), 0) + " %";
}

double Operations(const std::unique_ptr<PackedWeight>& weight) {
  return 2.0 * static_cast<double>(weight->outputs()) * static_cast<double>(weight->inputs());
}

double NumberOf(std::string_view text) { return std::strtod(std::string(text).c_str(), nullptr); }

// Tokens a second as the share of those at the roof.
template <typename Seconds>
json::object Shares(const json::object& speeds, const Seconds& seconds_a_token) {
  json::object shares;
  for (const auto& [key, speed] : speeds) {
    shares[key] = speed.template to_number<double>() * seconds_a_token(NumberOf(key));
  }
  return shares;
}

std::string NameOf(std::string_view key, std::string_view at) {
  std::string name(at);
  if (key == "prefill_tps") return "prefill of " + name + " tokens";
  if (key == "decode_tps") return name == "0" ? "decode, empty" : "decode at " + name;
  if (key == "batch_decode_tps") return name + " answers, 512 tokens each";
  if (key == "shared_batch_tps") return name + " answers, 500 tokens shared";
  return name + " answers, 2,000 tokens shared";
}

}  // namespace

WorkOf::WorkOf(const Model& model, const Config& config, const Roof& roof) {
  const bool int8 = config.engine_compute == "int8" && roof.gops_int8 > 0;
  product_rate_ = 1e9 * (int8 ? roof.gops_int8 : roof.gflops_fp32);
  attention_rate_ = 1e9 * (int8 && roof.gflops_bf16 > 0 ? roof.gflops_bf16 : roof.gflops_fp32);
  memory_rate_ = 1e9 * roof.dram_gbps;
  for (const LayerWeights& layer : model.layers) {
    for (const auto* weight :
         {&layer.q, &layer.k, &layer.v, &layer.o, &layer.gate, &layer.up, &layer.down}) {
      row_products_ += Operations(*weight);
    }
    key_products_ += 4.0 * static_cast<double>(layer.q->outputs());  // scores and values
  }
  const PackedWeight& head = model.OutputHead();
  head_products_ = 2.0 * static_cast<double>(head.outputs()) * static_cast<double>(head.inputs());
  weight_bytes_ = static_cast<double>(model.WeightBytes());
  token_bytes_ = static_cast<double>(model.config.Layout(KvDtypeOf(config)).BytesPerBlock()) /
                 double{kBlockTokens};
}

double WorkOf::Seconds(double rows, double keys, double kv_tokens, double head_rows) const {
  const double products = rows * row_products_ + head_rows * head_products_;
  const double compute = products / product_rate_ + rows * keys * key_products_ / attention_rate_;
  const double memory = (weight_bytes_ + kv_tokens * token_bytes_) / memory_rate_;
  return std::max(compute, memory);
}

json::object SharesOfRoof(const json::object& body, const WorkOf& work) {
  json::object all;
  all["prefill_tps"] = Shares(body.at("prefill_tps").as_object(), [&](double tokens) {
    return work.Seconds(tokens, tokens / 2, tokens, 1) / tokens;
  });
  all["decode_tps"] = Shares(body.at("decode_tps").as_object(),
                             [&](double context) { return work.Seconds(1, context, context, 1); });
  for (const char* key : kBatchKeys) {
    const bool shared = key != kBatchKeys[0];
    const double context = key == kBatchKeys[2] ? 2000 : 512;
    all[key] = Shares(body.at(key).as_object(), [&](double answers) {
      return work.Seconds(answers, context, shared ? context : answers * context, answers) /
             answers;
    });
  }
  return all;
}

std::string BenchTable(const json::object& body) {
  std::vector<std::vector<std::string>> rows;
  for (const char* key : kSpeedKeys) {
    for (const auto& [at, speed] : body.at(key).as_object()) {
      rows.push_back(
          {NameOf(key, at), Fixed(speed.to_number<double>(), 0), ShareOf(body, key, at)});
    }
  }
  std::string text = FormatTable({{"what", 32}, {"tokens/s", 10, true}, {"of the roof", 12, true}},
                                 rows, TableRules::kAsked);
  text += '\n';
  for (const auto& member : body) {
    if (member.key() == "roof_share" || IsSpeed(member.key())) continue;
    std::string line(member.key());
    line.resize(std::max<size_t>(line.size(), 20), ' ');
    text.append(line).append(" ").append(json::serialize(member.value())).append("\n");
  }
  return text;
}

}  // namespace kvasir
