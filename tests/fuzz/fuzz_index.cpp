// Any bytes as a stored index: an index that can be searched, or an error with its status. The bank
// and its layout are those of the seeds in fuzz_readers.py.
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "kad/kad.h"

namespace {

constexpr int64_t kRows = 1100, kDims = 96, kQueries = 3;
constexpr int32_t kChannels[] = {40, 56}, kSides[] = {8, 4};

float value(int64_t i) { return static_cast<float>(i * 7919 % 1009); }

std::vector<float> make_bank() {
  std::vector<float> bank(kRows * kDims);
  for (size_t i = 0; i < bank.size(); ++i) bank[i] = value(static_cast<int64_t>(i));
  return bank;
}

kad_base_maps make_layout() {
  kad_base_maps maps = {};
  maps.struct_size = sizeof(maps);
  maps.resampling = KAD_RESAMPLE_BILINEAR;
  maps.grid_height = maps.grid_width = kSides[0];
  maps.n_layers = 2;
  maps.channels = kChannels;
  maps.heights = maps.widths = kSides;
  return maps;
}

// Whatever the codes say, what is found are rows of the bank.
void search(const kad_index* index) {
  float queries[kQueries * kDims], dist[kQueries];
  int64_t rows[kQueries];
  for (int64_t i = 0; i < kQueries * kDims; ++i) queries[i] = value(3 * i + 1);
  if (kad_index_query(index, queries, kQueries, 1, 1, dist, rows) != KAD_OK) std::abort();
  for (const int64_t row : rows) {
    if (row < 0 || row >= kRows) std::abort();
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const std::vector<float> bank = make_bank();
  static const std::string digest(64, 'a');
  const kad_base_maps layout = make_layout();
  std::vector<uint64_t> aligned(size / sizeof(uint64_t) + 1);
  std::memcpy(aligned.data(), data, size);
  kad_index* index = nullptr;
  const kad_status status = kad_index_create_stored(
      bank.data(), kRows, &layout, digest.c_str(), reinterpret_cast<const uint8_t*>(aligned.data()),
      static_cast<int64_t>(size), 1, &index);
  if (status != KAD_OK && status != KAD_ERROR_ARTIFACT_TENSORS) std::abort();
  if ((status == KAD_OK) != (index != nullptr)) std::abort();
  if (index != nullptr) search(index);
  kad_index_close(index);
  return 0;
}
