// kad.hpp: every owner, failures, moves. The argument is an artifact; its network is a callback
// here.
#include <algorithm>
#include <iostream>
#include <kad/kad.hpp>
#include <vector>

namespace {

int failures = 0;

void expect(bool good, const char* what) {
  if (good) return;
  ++failures;
  std::cerr << "wrong: " << what << "\n";
}

template <class F>
void expect_failure(kad_status status, const char* words, F&& call) {
  try {
    call();
    expect(false, words);
  } catch (const kad::Failure& failure) {
    expect(failure.status() == status, kad_status_name(failure.status()));
    expect(std::string(failure.what()).find(words) != std::string::npos, failure.what());
  }
}

kad_status mean_network(void*, const kad_network_batch* batch) {
  for (int64_t i = 0; i < batch->n_outputs; ++i) {
    const kad_network_output& output = batch->outputs[i];
    const int64_t values = output.channels * output.height * output.width;
    for (int64_t t = 0; t < batch->n_tiles; ++t) {
      const float first = batch->tiles[t * 3 * batch->tile * batch->tile];
      std::fill_n(output.data + t * values, values, std::max(first, 0.0F));
    }
  }
  return KAD_OK;
}

void use_stages() {
  auto grid = kad::make<kad_tile_grid>();
  grid.image_height = grid.image_width = 20;
  grid.tile = 8;
  grid.stride = 8;
  grid.cover_edges = 1;
  expect(kad::plan_tiles(grid).size() == 2 * 9, "nine tiles");
  grid.tile = 21;
  expect_failure(KAD_ERROR_TOO_SMALL, "smaller than one tile", [&] { kad::plan_tiles(grid); });
  expect_failure(KAD_ERROR_INVALID_ARGUMENT, "bank is NULL", [] { kad::Index(nullptr, 1, 1, 1); });

  auto options = kad::make<kad_board_options>();
  options.image_height = options.image_width = options.tile = 4;
  options.grid_height = options.grid_width = 1;
  kad::Board board(options);
  const int32_t xy[] = {0, 0};
  const float dist[] = {2.0F};
  std::vector<float> map(16);
  kad::check(kad_board_add(board.get(), xy, 1, dist, nullptr, 1));
  kad::check(kad_board_map(board.get(), 1, map.data()));
  expect(board.regions(map.data(), 1.0F, 1).size() == 1, "one region");
  expect(board.regions(map.data(), 3.0F, 1).empty(), "no region");
}

void use_detector(const std::string& path) {
  expect_failure(KAD_ERROR_ARTIFACT_NOT_FOUND, "no/such.kad", [] { kad::Detector("no/such.kad"); });
  auto options = kad::make<kad_detector_options>();
  options.provider = KAD_PROVIDER_CALLER;
  options.network = mean_network;
  kad::Detector opened(path, options);
  const kad::Detector detector = std::move(opened);
  expect(!opened && detector, "a detector that was moved");
  expect(detector.facts().tile == 32, "tile");
  kad::Session session(detector);
  const std::vector<uint8_t> pixels(60 * 70 * 3, 200);
  const kad_image image = kad::image(pixels.data(), 60, 70, 210, KAD_PIXEL_RGB8);
  kad::Result result = session.score(image);
  expect(static_cast<int64_t>(result.tiles().size()) == result.facts().n_tiles, "tiles");
  expect(static_cast<int64_t>(result.regions().size()) == result.facts().n_regions, "regions");
  expect(session.score_tiles(image, {0, 0, 5, 7}).size() == 2, "two tiles");
  expect_failure(KAD_ERROR_INVALID_ARGUMENT, "xy: expected x and y of each tile, got 3 numbers",
                 [&] { session.score_tiles(image, {0, 0, 5}); });
  result = session.score(image);
  session.cancel();
  expect_failure(KAD_ERROR_CANCELLED, "cancelled", [&] { session.score(image); });
}

}  // namespace

int main(int argc, char** argv) {
  use_stages();
  if (argc > 1) use_detector(argv[1]);
  return failures == 0 ? 0 : 1;
}
