// Features, search and scores on numbers small enough to check by hand.
#include <math.h>
#include <stddef.h>

#include "check.h"

// Two layers of one tile: a 2 x 2 map of one channel and a 1 x 1 map of another.
static const float kLayer0[4] = {0, 1, 2, 3};
static const float kLayer1[1] = {5};
static const float* const kData[2] = {kLayer0, kLayer1};
static const int32_t kChannels[2] = {1, 1};
static const int32_t kSides[2] = {2, 1};

static kad_base_maps make_maps(void) {
  kad_base_maps maps = {.struct_size = sizeof(kad_base_maps),
                        .resampling = KAD_RESAMPLE_BILINEAR,
                        .grid_height = 2,
                        .grid_width = 2,
                        .n_tiles = 1,
                        .n_layers = 2,
                        .data = kData,
                        .channels = kChannels,
                        .heights = kSides,
                        .widths = kSides};
  return maps;
}

static const float kBank[6] = {0, 5, 3, 5, 3, 9};
static const int64_t kNeighbors[6] = {1, 2, 2, 0, 1, 0};

static void test_features(void) {
  kad_base_maps maps = make_maps();
  const banded out = banded_new(8 * sizeof(float));
  CHECK_OK(kad_patch_features(&maps, 2, banded_data(out)));
  const float expected[8] = {0, 5, 1, 5, 2, 5, 3, 5};
  CHECK(memcmp(banded_data(out), expected, sizeof(expected)) == 0);
  banded_check_and_free(out);
  maps.struct_size = 12;
  float features[8];
  CHECK_INVALID(kad_patch_features(&maps, 1, features), "struct_size");
  maps = make_maps();
  maps.resampling = 99;
  CHECK_INVALID(kad_patch_features(&maps, 1, features), "resampling");
  maps = make_maps();
  CHECK_INVALID(kad_patch_features(NULL, 1, features), "NULL");
  CHECK_INVALID(kad_patch_features(&maps, 1, NULL), "out");
  CHECK_INVALID(kad_patch_features(&maps, 0, features), "n_threads");
}

static void test_query(void) {
  kad_index* index = NULL;
  CHECK_OK(kad_index_create(kBank, 3, 2, 1, &index));
  const float queries[4] = {3, 8, 1, 5};
  const banded dist = banded_new(4 * sizeof(float));
  const banded rows = banded_new(4 * sizeof(int64_t));
  CHECK_OK(kad_index_query(index, queries, 2, 2, 2, banded_data(dist), banded_data(rows)));
  const float expected_dist[4] = {1, 3, 1, 2};
  const int64_t expected_rows[4] = {2, 1, 0, 1};
  CHECK(memcmp(banded_data(dist), expected_dist, sizeof(expected_dist)) == 0);
  CHECK(memcmp(banded_data(rows), expected_rows, sizeof(expected_rows)) == 0);
  banded_check_and_free(dist);
  banded_check_and_free(rows);
  float d[48];
  int64_t r[48];
  CHECK_INVALID(kad_index_query(index, queries, 2, 0, 1, d, r), "k");
  CHECK_INVALID(kad_index_query(index, queries, 2, 4, 1, d, r), "k");
  CHECK_INVALID(kad_index_query(NULL, queries, 2, 1, 1, d, r), "NULL");
  CHECK_INVALID(kad_index_query(index, NULL, 2, 1, 1, d, r), "NULL");
  CHECK_INVALID(kad_index_query(index, queries, 2, 1, 0, d, r), "n_threads");
  kad_index_close(index);
}

static void test_maps_and_scores(void) {
  kad_index* index = NULL;
  CHECK_OK(kad_index_create(kBank, 3, 2, 1, &index));
  const kad_base_maps maps = make_maps();
  float dist[4];
  int64_t rows[4];
  float score = 0;
  CHECK_OK(kad_index_query_maps(index, &maps, 1, 2, dist, rows));
  CHECK(dist[0] == 0 && dist[1] == 1 && dist[2] == 1 && dist[3] == 0);
  CHECK(rows[0] == 0 && rows[1] == 0 && rows[2] == 1 && rows[3] == 1);
  kad_score_options options = {.struct_size = sizeof(kad_score_options),
                               .reweighting = KAD_REWEIGHT_NONE};
  CHECK_OK(kad_score_tiles(index, &maps, &options, 1, dist, rows, &score));
  CHECK(score == 1.0F);
  // The first patch of distance 1 is (1, 5); its row 0 has the neighbours (3, 5) and (3, 9).
  options.reweighting = KAD_REWEIGHT_THESIS;
  options.neighbors = kNeighbors;
  options.neighbor_columns = 2;
  options.n_neighbors = 2;
  CHECK_OK(kad_score_tiles(index, &maps, &options, 1, dist, rows, &score));
  const double root = sqrt(2.0);
  const double sum = exp(2.0 / root) + exp(sqrt(20.0) / root);
  CHECK(fabs((double)score - (1.0 - exp(1.0 / root) / sum)) < 1e-6);
  options.n_neighbors = 3;
  CHECK_INVALID(kad_score_tiles(index, &maps, &options, 1, dist, rows, &score), "n_neighbors");
  CHECK_INVALID(kad_score_tiles(index, &maps, NULL, 1, dist, rows, &score), "NULL");
  kad_index_close(index);
}

// Row 0 of a bank lies near the query, its neighbour so far off that the distance is infinite.
static void test_infinite_neighbour(void) {
  const float bank[2] = {0.0F, 3e38F}, values[1] = {-1.0F};
  const int64_t neighbors[2] = {1, 0};
  const float* const data[1] = {values};
  const int32_t one[1] = {1};
  const kad_base_maps maps = {.struct_size = sizeof(kad_base_maps),
                              .grid_height = 1,
                              .grid_width = 1,
                              .n_tiles = 1,
                              .n_layers = 1,
                              .data = data,
                              .channels = one,
                              .heights = one,
                              .widths = one};
  kad_index* index = NULL;
  CHECK_OK(kad_index_create(bank, 2, 1, 1, &index));
  for (int32_t form = KAD_REWEIGHT_THESIS; form <= KAD_REWEIGHT_PAPER; ++form) {
    const kad_score_options options = {.struct_size = sizeof(kad_score_options),
                                       .reweighting = form,
                                       .neighbors = neighbors,
                                       .neighbor_columns = 1,
                                       .n_neighbors = 1};
    float dist = 0, score = 0;
    int64_t row = -1;
    CHECK_OK(kad_score_tiles(index, &maps, &options, 1, &dist, &row, &score));
    CHECK(dist == 1.0F && row == 0 && score == 1.0F);  // the weight's limit is 1
  }
  kad_index_close(index);
}

static void test_info_and_stats(void) {
  kad_index* index = NULL;
  CHECK_OK(kad_index_create(kBank, 3, 2, 1, &index));
  kad_index_facts facts = {.struct_size = sizeof(kad_index_facts)};
  CHECK_OK(kad_index_info(index, &facts));
  CHECK(facts.struct_size == sizeof(kad_index_facts) && facts.rows == 3 && facts.dims == 2);
  CHECK(facts.narrow_dims == 0 && facts.wide_dims == 0 && facts.bytes > 0);
  const float query[2] = {3, 8};
  float dist = 0;
  int64_t row = 0;
  CHECK_OK(kad_index_query(index, query, 1, 1, 1, &dist, &row));
  kad_search_stats stats = {.struct_size = sizeof(kad_search_stats)};
  CHECK_OK(kad_index_stats(index, &stats));
  CHECK(stats.queries == 1 && stats.dense_queries == 1 && stats.dense_pairs == 3);
  // A caller that knows more fields than this library keeps its own size, and finds 0 in them.
  struct {
    kad_search_stats known;
    int64_t later;
  } newer = {.known = {.struct_size = sizeof(newer)}, .later = 7};
  CHECK_OK(kad_index_stats(index, &newer.known));
  CHECK(newer.known.struct_size == sizeof(newer) && newer.known.queries == 1 && newer.later == 0);
  // One that knows the fields of the first version alone is given those.
  stats.struct_size = offsetof(kad_search_stats, seed_products);
  stats.seed_products = 7;
  CHECK_OK(kad_index_stats(index, &stats));
  CHECK(stats.queries == 1 && stats.seed_products == 7);
  stats.struct_size = offsetof(kad_search_stats, dense_ns);
  CHECK_INVALID(kad_index_stats(index, &stats), "struct_size");
  facts.struct_size = 8;
  CHECK_INVALID(kad_index_info(index, &facts), "struct_size");
  CHECK_INVALID(kad_index_stats(NULL, &stats), "NULL");
  CHECK_INVALID(kad_index_stats(index, NULL), "NULL");
  CHECK_INVALID(kad_index_info(NULL, &facts), "NULL");
  CHECK_INVALID(kad_index_info(index, NULL), "NULL");
  kad_index_close(index);
}

enum { ROWS = 1100, DIMS = 64, QUERIES = 600 };

static float* make_values(int64_t n) {
  float* values = (float*)malloc((size_t)n * sizeof(float));
  if (values == NULL) abort();
  for (int64_t i = 0; i < n; ++i) values[i] = sinf((float)(i % 977) * (float)(i / 977 % 13 + 1));
  return values;
}

// The same answers from an index that was stored, in four threads.
static void test_stored(void) {
  const int32_t channels[1] = {DIMS}, sides[1] = {3};
  kad_base_maps maps = make_maps();
  maps.n_tiles = 1;  // not looked at
  maps.n_layers = 1;
  maps.data = NULL;
  maps.channels = channels;
  maps.heights = maps.widths = sides;
  maps.grid_height = maps.grid_width = 3;
  char digest[65];
  memset(digest, 'a', 64);
  digest[64] = '\0';
  float* bank = make_values(ROWS * DIMS);
  kad_index *built = NULL, *index = NULL;
  CHECK_OK(kad_index_create_for_maps(bank, ROWS, &maps, 2, &built));
  int64_t capacity = 0, bytes = 0;
  CHECK_FAILS(kad_index_store(built, digest, 2, NULL, 0, &capacity), KAD_ERROR_BUFFER_TOO_SMALL,
              "out has room for 0 bytes, expected room for");
  const banded stored = banded_new((size_t)capacity);
  uint8_t* data = (uint8_t*)banded_data(stored);
  CHECK_OK(kad_index_store(built, digest, 2, data, capacity, &bytes));
  CHECK(bytes > ROWS * DIMS / 4 && bytes <= capacity);
  CHECK_OK(kad_index_create_stored(bank, ROWS, &maps, digest, data, bytes, 2, &index));
  float* queries = make_values(QUERIES * DIMS);
  float dist[2][QUERIES];
  int64_t rows[2][QUERIES];
  CHECK_OK(kad_index_query(built, queries, QUERIES, 1, 1, dist[0], rows[0]));
  CHECK_OK(kad_index_query(index, queries, QUERIES, 1, 4, dist[1], rows[1]));
  CHECK(memcmp(dist[0], dist[1], sizeof(dist[0])) == 0);
  CHECK(memcmp(rows[0], rows[1], sizeof(rows[0])) == 0);
  kad_index_close(index);

  digest[63] = 'b';
  CHECK_FAILS(kad_index_create_stored(bank, ROWS, &maps, digest, data, bytes, 1, &index),
              KAD_ERROR_ARTIFACT_TENSORS, "another bank");
  CHECK(index == NULL);
  digest[63] = 'a';
  CHECK_FAILS(kad_index_create_stored(bank, ROWS, &maps, digest, data, bytes - 64, 1, &index),
              KAD_ERROR_ARTIFACT_TENSORS, "ends within an array");
  CHECK_FAILS(kad_index_create_stored(bank, ROWS, &maps, digest, data, 5, 1, &index),
              KAD_ERROR_ARTIFACT_TENSORS, "ends within an array");
  CHECK_INVALID(kad_index_create_stored(bank, ROWS, &maps, "a", data, bytes, 1, &index), "got 1");
  CHECK_INVALID(kad_index_create_stored(bank, ROWS, &maps, NULL, data, bytes, 1, &index), "NULL");
  CHECK_INVALID(kad_index_create_stored(bank, ROWS, &maps, digest, NULL, 9, 1, &index), "NULL");
  CHECK_INVALID(kad_index_create_stored(bank, ROWS, &maps, digest, data, -1, 1, &index), "bytes");
  CHECK_INVALID(kad_index_create_stored(NULL, ROWS, &maps, digest, data, bytes, 1, &index), "NULL");
  CHECK_INVALID(kad_index_create_stored(bank, 0, &maps, digest, data, bytes, 1, &index), "(0, 64)");
  CHECK_INVALID(kad_index_create_stored(bank, ROWS, &maps, digest, data, bytes, 1, NULL), "NULL");
  CHECK_INVALID(kad_index_store(NULL, digest, 1, data, capacity, &bytes), "NULL");
  CHECK_INVALID(kad_index_store(built, digest, 1, data, capacity, NULL), "NULL");
  CHECK_INVALID(kad_index_store(built, digest, 1, NULL, capacity, &bytes), "NULL");
  CHECK_INVALID(kad_index_store(built, digest, 0, data, capacity, &bytes), "n_threads");
  kad_index_close(built);
  free(queries);
  free(bank);
  banded_check_and_free(stored);
}

static void test_bad_banks(void) {
  const float bad[4] = {0, 1, NAN, 3};
  kad_index* index = NULL;
  CHECK_FAILS(kad_index_create(bad, 2, 2, 1, &index), KAD_ERROR_NOT_FINITE, "row 1");
  CHECK_INVALID(kad_index_create(NULL, 2, 2, 1, &index), "NULL");
  CHECK_INVALID(kad_index_create(bad, 0, 2, 1, &index), "got (0, 2)");
  CHECK_INVALID(kad_index_create(bad, 2, 0, 1, &index), "got (2, 0)");
  CHECK_INVALID(kad_index_create(bad, 2, 2, 1, NULL), "NULL");
  CHECK(index == NULL);
}

static void test_all(void) {
  test_features();
  test_query();
  test_maps_and_scores();
  test_infinite_neighbour();
  test_info_and_stats();
  test_stored();
}

int main(void) {
  check_at_every_level(test_all);
  test_bad_banks();
  return check_result();
}
