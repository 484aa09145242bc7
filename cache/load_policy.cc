#include "cache/load_policy.h"

#include <cmath>

namespace kvasir {

std::optional<LoadForecast> ForecastLoad(const LoadRates& rates, bool from_disk, uint64_t bytes,
                                         int64_t tokens) {
  const bool known = rates.pool_bytes_per_second > 0 && rates.prefill_tokens_per_second > 0 &&
                     (!from_disk || rates.disk_bytes_per_second > 0);
  if (!known) return std::nullopt;
  const auto size = static_cast<double>(bytes);
  LoadForecast forecast;
  forecast.load_seconds = size / rates.pool_bytes_per_second;
  if (from_disk) forecast.load_seconds += size / rates.disk_bytes_per_second;
  forecast.compute_seconds = static_cast<double>(tokens) / rates.prefill_tokens_per_second;
  return forecast;
}

void LoadPolicy::Average::Add(double amount, double seconds) {
  if (!(amount > 0) || !(seconds > 0)) return;
  const double kept = std::exp2(-amount / half_life_);
  amount_ = amount_ * kept + amount;
  seconds_ = seconds_ * kept + seconds;
  if (samples_ < kLeastSamples) ++samples_;
}

void LoadPolicy::RecordDisk(uint64_t bytes, double seconds) {
  const std::lock_guard lock(mutex_);
  disk_.Add(static_cast<double>(bytes), seconds);
}

void LoadPolicy::RecordPool(uint64_t bytes, double seconds) {
  const std::lock_guard lock(mutex_);
  pool_.Add(static_cast<double>(bytes), seconds);
}

void LoadPolicy::SamplePrefill(uint64_t total_rows, double total_seconds) {
  const std::lock_guard lock(mutex_);
  if (total_rows <= seen_rows_) return;  // a sample that another thread was faster to bring
  prefill_.Add(static_cast<double>(total_rows - seen_rows_), total_seconds - seen_seconds_);
  seen_rows_ = total_rows;
  seen_seconds_ = total_seconds;
}

bool LoadPolicy::DiskBound() const {
  const LoadRates known = rates();
  return known.disk_bytes_per_second > 0 &&
         kDiskBound * known.disk_bytes_per_second < known.pool_bytes_per_second;
}

LoadRates LoadPolicy::rates() const {
  const std::lock_guard lock(mutex_);
  return {disk_.Rate(), pool_.Rate(), prefill_.Rate()};
}

bool LoadPolicy::ShouldCompute(bool on_disk, uint64_t bytes, int64_t tokens) {
  const std::lock_guard lock(mutex_);
  const LoadRates rates{disk_.Rate(), pool_.Rate(), prefill_.Rate()};
  const auto forecast = ForecastLoad(rates, on_disk, bytes, tokens);
  Side& side = sides_[on_disk ? 1 : 0];
  if (!forecast) {
    side = {};
    return false;
  }
  const double loss = forecast->load_seconds / forecast->compute_seconds;
  side.computing = side.computing ? loss > 1 / kMargin : loss > kMargin;
  if (!side.computing) {
    side.declined = 0;
    return false;
  }
  if (++side.declined < kProbeEvery) return true;
  side.declined = 0;
  return false;
}

}  // namespace kvasir
