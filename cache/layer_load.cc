#include "cache/layer_load.h"

#include <chrono>

namespace kvasir {
namespace {

using Clock = std::chrono::steady_clock;

double SecondsSince(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

}  // namespace

Status LayerLoad::ReadGroup() {
  const auto start = Clock::now();
  KVASIR_ASSIGN_OR_RETURN(RecordBytes group, read_(chunk_.groups.size()));
  KVASIR_RETURN_IF_ERROR(DecodeGroup(chunk_.shape, group, &planes_));
  chunk_.groups.push_back(std::move(group));
  read_seconds_ += SecondsSince(start);
  return Status::Ok();
}

Status LayerLoad::Next() {
  if (next_ == planes_.size()) KVASIR_RETURN_IF_ERROR(ReadGroup());
  if (next_ >= planes_.size()) return DataLoss("a layer group without layers");
  const auto start = Clock::now();
  KVASIR_RETURN_IF_ERROR(fill_->Load(planes_[next_++]));
  fill_seconds_ += SecondsSince(start);
  return Status::Ok();
}

void LoadByLayers(std::span<LayerLoad> loads,
                  const std::function<void(size_t index, const Status&)>& finished) {
  std::vector<size_t> left;
  for (size_t i = 0; i < loads.size(); ++i) left.push_back(i);
  for (int32_t layer = 0; !left.empty(); ++layer) {
    std::erase_if(left, [&](size_t i) {
      const Status status = loads[i].Next();
      if (status.ok() && layer + 1 < loads[i].layers()) return false;
      loads[i].Close();
      finished(i, status);
      return true;
    });
  }
}

}  // namespace kvasir
