// Greedy k-center: small cases by hand, stopping at what lies outside, errors, and nothing written
// beside the output.
#include <math.h>

#include "check.h"

static kad_directions all_dims(int64_t dims) {
  const kad_directions directions = {.struct_size = sizeof(kad_directions), .dims = dims};
  return directions;
}

// Centres at 0 and 8 on a line: only what is smaller is written.
static void test_flush(void) {
  const float points[4] = {1.0F, 5.0F, 8.0F, -2.0F};
  const float centres[2] = {0.0F, 8.0F};
  const kad_directions directions = all_dims(1);
  for (int32_t threads = 1; threads <= 3; ++threads) {
    const banded out = banded_new(4 * sizeof(float));
    float* dist = banded_data(out);
    for (int i = 0; i < 4; ++i) dist[i] = i == 0 ? 0.5F : INFINITY;
    int64_t decided = -1;
    CHECK_OK(kad_kcenter_flush(&directions, points, 4, centres, 2, threads, dist, &decided));
    CHECK(dist[0] == 0.5F && dist[1] == 3.0F && dist[2] == 0.0F && dist[3] == 2.0F);
    CHECK(decided >= 0 && decided <= 8);
    banded_check_and_free(out);
  }
}

// From row 0 on a line of 0, 1, 10, 4, 5: 10 is farthest, then 5 (at 5 from both ends), then 4 and
// 1 tie at 1.
static void test_order(void) {
  const float points[5] = {0.0F, 1.0F, 10.0F, 4.0F, 5.0F};
  const float first[5] = {-1.0F, 1.0F, 10.0F, 4.0F, 5.0F};
  const kad_directions directions = all_dims(1);
  kad_kcenter* kcenter = NULL;
  CHECK_OK(kad_kcenter_create(&directions, points, 5, first, 0, 1, &kcenter));
  const banded rows_out = banded_new(4 * sizeof(int64_t));
  const banded dist_out = banded_new(4 * sizeof(float));
  int64_t* rows = banded_data(rows_out);
  float* dist = banded_data(dist_out);
  int64_t count = -1;
  CHECK_OK(kad_kcenter_pick(kcenter, 1, -INFINITY, INT64_MAX, 1, rows, dist, &count));
  CHECK(count == 1 && rows[0] == 2 && dist[0] == 10.0F);
  CHECK_OK(kad_kcenter_pick(kcenter, 4, -INFINITY, INT64_MAX, 2, rows, dist, &count));
  CHECK(count == 3 && rows[0] == 4 && rows[1] == 1 && rows[2] == 3);
  CHECK(dist[0] == 5.0F && dist[1] == 1.0F && dist[2] == 1.0F);
  banded_check_and_free(rows_out);
  banded_check_and_free(dist_out);
  kad_kcenter_close(kcenter);
  kad_kcenter_close(NULL);
}

// A point outside at distance 5 stops the selection; at 5 a lower row of these still goes first.
static void test_outside(void) {
  const float points[3] = {0.0F, 10.0F, 5.0F};
  const float first[3] = {-1.0F, 10.0F, 5.0F};
  const kad_directions directions = all_dims(1);
  const int64_t expected[2] = {1, 2};
  for (int64_t outside_row = 2; outside_row <= 3; ++outside_row) {
    kad_kcenter* kcenter = NULL;
    int64_t rows[3] = {0}, count = 0;
    float dist[3] = {0};
    CHECK_OK(kad_kcenter_create(&directions, points, 3, first, 0, 1, &kcenter));
    CHECK_OK(kad_kcenter_pick(kcenter, 3, 5.0F, outside_row, 1, rows, dist, &count));
    CHECK(count == expected[outside_row - 2]);
    CHECK_FAILS(kad_kcenter_pick(kcenter, 3, NAN, outside_row, 1, rows, dist, &count),
                KAD_ERROR_NOT_FINITE, "outside_dist is NaN: expected the distance");
    CHECK(count == 0);
    kad_kcenter_close(kcenter);
  }
}

// The farthest point is passed over in every step.
static void test_skipped(void) {
  const float points[4] = {0.0F, 100.0F, 10.0F, 4.0F};
  const float first[4] = {-1.0F, 100.0F, 10.0F, 4.0F};
  const kad_directions directions = all_dims(1);
  kad_kcenter* kcenter = NULL;
  int64_t rows[4] = {0}, count = 0;
  float dist[4] = {0};
  CHECK_OK(kad_kcenter_create(&directions, points, 4, first, 1, 1, &kcenter));
  CHECK_OK(kad_kcenter_pick(kcenter, 4, -INFINITY, INT64_MAX, 1, rows, dist, &count));
  CHECK(count == 2 && rows[0] == 2 && rows[1] == 3 && dist[1] == 4.0F);
  kad_kcenter_close(kcenter);
}

// Points at a distance of 0, and centres, are not measured, nor counted as if they were.
static void test_decided(void) {
  const float points[12] = {0, 0, 0, 3, 4, 0, 0, 0, 1, 1, 1, 1};
  const float centre[3] = {0, 0, 0};
  const kad_directions directions = all_dims(3);  // for so few centres nothing is sketched
  float dist[4] = {0.0F, 9.0F, -1.0F, 9.0F};
  int64_t decided = -1;
  CHECK_OK(kad_kcenter_flush(&directions, points, 4, centre, 1, 1, dist, &decided));
  CHECK(decided == 2);
  CHECK(dist[0] == 0.0F && dist[1] == 5.0F && dist[2] == -1.0F && dist[3] < 2.0F);
}

// However many are to be passed over: none is left then.
static void test_all_skipped(void) {
  const float points[3] = {0.0F, 10.0F, 5.0F};
  const float first[3] = {INFINITY, INFINITY, INFINITY};
  const kad_directions directions = all_dims(1);
  const int64_t skipped[3] = {3, 4, INT64_MAX};
  for (int i = 0; i < 3; ++i) {
    kad_kcenter* kcenter = NULL;
    int64_t rows[3] = {0}, count = -1;
    float dist[3] = {0};
    CHECK_OK(kad_kcenter_create(&directions, points, 3, first, skipped[i], 1, &kcenter));
    CHECK_OK(kad_kcenter_pick(kcenter, 3, -INFINITY, INT64_MAX, 1, rows, dist, &count));
    CHECK(count == 0);
    kad_kcenter_close(kcenter);
  }
}

// A distance may be infinite, and negative, but not NaN.
static void test_distances(void) {
  const float points[3] = {0.0F, 10.0F, 5.0F};
  float dist[3] = {INFINITY, -INFINITY, NAN};
  const kad_directions directions = all_dims(1);
  kad_kcenter* kcenter = NULL;
  CHECK_FAILS(kad_kcenter_create(&directions, points, 3, dist, 0, 1, &kcenter),
              KAD_ERROR_NOT_FINITE, "dist[2] is NaN: expected a distance");
  CHECK(kcenter == NULL);
  CHECK_FAILS(kad_kcenter_flush(&directions, points, 3, points, 1, 1, dist, NULL),
              KAD_ERROR_NOT_FINITE, "dist[2] is NaN: expected a distance");
  CHECK(dist[0] == INFINITY);
  CHECK_OK(kad_kcenter_create(&directions, points, 2, dist, 0, 1, &kcenter));
  kad_kcenter_close(kcenter);
}

static void test_errors(void) {
  const float points[2] = {0.0F, NAN};
  const float skewed[4] = {1.0F, 0.0F, 0.6F, 0.8F};
  float dist[2] = {1.0F, 1.0F};
  kad_directions directions = all_dims(1);
  kad_kcenter* kcenter = NULL;
  CHECK_FAILS(kad_kcenter_flush(&directions, points, 2, points, 1, 1, dist, NULL),
              KAD_ERROR_NOT_FINITE, "point 1 holds NaN or Inf");
  CHECK_FAILS(kad_kcenter_flush(&directions, points, 1, points, 2, 1, dist, NULL),
              KAD_ERROR_NOT_FINITE, "centre 1 holds NaN or Inf");
  CHECK_FAILS(kad_kcenter_create(&directions, points, 2, dist, 0, 1, &kcenter),
              KAD_ERROR_NOT_FINITE, "point 1 holds NaN or Inf");
  CHECK_INVALID(kad_kcenter_create(&directions, points, 0, dist, 0, 1, &kcenter), "n must be at");
  CHECK_INVALID(kad_kcenter_create(&directions, points, 1, dist, -1, 1, &kcenter), "n_skipped");
  CHECK_INVALID(kad_kcenter_create(&directions, points, 1, dist, 0, 0, &kcenter), "n_threads");
  CHECK_INVALID(kad_kcenter_create(NULL, points, 1, dist, 0, 1, &kcenter), "kad_directions");
  CHECK_INVALID(kad_kcenter_flush(&directions, points, -1, points, 1, 1, dist, NULL), "n must");
  CHECK(kcenter == NULL);
  directions.reserved = 1;
  CHECK_INVALID(kad_kcenter_create(&directions, points, 1, dist, 0, 1, &kcenter),
                "kad_directions.reserved must be 0, got 1");
  directions.reserved = 0;
  directions.dims = 0;
  CHECK_INVALID(kad_kcenter_create(&directions, points, 1, dist, 0, 1, &kcenter), "dims >= 1");
  directions.dims = 2;
  directions.n = 2;
  CHECK_INVALID(kad_kcenter_create(&directions, points, 1, dist, 0, 1, &kcenter), "rows is NULL");
  directions.rows = skewed;
  CHECK_INVALID(kad_kcenter_create(&directions, skewed, 1, dist, 0, 1, &kcenter), "orthonormal");
}

static void test_all(void) {
  test_flush();
  test_decided();
  test_order();
  test_outside();
  test_skipped();
  test_all_skipped();
  test_distances();
  test_errors();
}

int main(void) {
  check_at_every_level(test_all);
  return check_result();
}
