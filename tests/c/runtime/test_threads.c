// Threads that share one detector, each with a session of its own, score what one thread alone
// does:
//   test_threads SECONDS THREADS ARTIFACT...
#define _POSIX_C_SOURCE 200809L
#include <pthread.h>
#include <time.h>

#include "../check.h"
#include "toy_network.h"

enum { BOARDS = 6, SIDE = 70, MOST_THREADS = 32 };

static uint8_t boards[BOARDS][SIDE * SIDE * 3];
static const kad_detector* detector;
static uint64_t expected[BOARDS];
static double seconds;

static double now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

// FNV-1a over the bytes of everything that a result holds.
static uint64_t mix(uint64_t hash, const void* data, size_t bytes) {
  for (size_t i = 0; i < bytes; ++i) hash = (hash ^ ((const uint8_t*)data)[i]) * 1099511628211u;
  return hash;
}

static uint64_t score(kad_session* session, int board) {
  const kad_image image = rgb_image(boards[board], SIDE, SIDE);
  kad_result* result = NULL;
  CHECK_OK(kad_session_score_image(session, &image, NULL, &result));
  if (result == NULL) return 0;
  kad_result_facts facts = {.struct_size = sizeof(facts)};
  CHECK_OK(kad_result_info(result, &facts));
  uint64_t hash = mix(14695981039346656037u, &facts.score, sizeof(facts.score));
  hash = mix(hash, facts.map, sizeof(float) * SIDE * SIDE);
  for (int64_t i = 0; i < facts.n_tiles; ++i) {
    kad_tile_result tile = {.struct_size = sizeof(tile)};
    CHECK_OK(kad_result_tile(result, i, &tile));
    hash = mix(hash, &tile, sizeof(tile));
  }
  for (int64_t i = 0; i < facts.n_regions; ++i) {
    kad_region_result region = {.struct_size = sizeof(region)};
    CHECK_OK(kad_result_region(result, i, &region));
    region.nearest_image = NULL;
    hash = mix(hash, &region, sizeof(region));
  }
  kad_result_close(result);
  return hash;
}

typedef struct work {
  int number;
  int64_t boards;
  int64_t wrong;
} work;

static void* score_until_time_is_up(void* context) {
  work* mine = context;
  const double end = now() + seconds;
  kad_session* session = NULL;
  CHECK_OK(kad_session_create(detector, &session));
  while (now() < end) {
    const int board = (int)((mine->boards++ + mine->number) % BOARDS);
    if (score(session, board) != expected[board]) ++mine->wrong;
    if (mine->boards % 50 == 0) {  // sessions come and go
      kad_session_close(session);
      CHECK_OK(kad_session_create(detector, &session));
    }
  }
  kad_session_close(session);
  return NULL;
}

static void test_artifact(const char* path, int n_threads) {
  pthread_t threads[MOST_THREADS];
  work works[MOST_THREADS] = {{0}};
  kad_detector_options options = toy_options();
  options.n_threads = 2;
  kad_detector* opened = NULL;
  CHECK_OK(kad_detector_open(path, &options, &opened));
  detector = opened;
  kad_session* session = NULL;
  CHECK_OK(kad_session_create(detector, &session));
  for (int i = 0; i < BOARDS; ++i) expected[i] = score(session, i);
  kad_session_close(session);
  for (int i = 0; i < n_threads; ++i) {
    works[i].number = i;
    CHECK(pthread_create(&threads[i], NULL, score_until_time_is_up, &works[i]) == 0);
  }
  int64_t total = 0;
  for (int i = 0; i < n_threads; ++i) {
    CHECK(pthread_join(threads[i], NULL) == 0);
    CHECK(works[i].wrong == 0 && works[i].boards > 0);
    total += works[i].boards;
  }
  printf("%s: %lld boards in %d threads, equal to those of one\n", path, (long long)total,
         n_threads);
  kad_detector_close(opened);
}

int main(int argc, char** argv) {
  if (argc < 4) return EXIT_FAILURE;
  seconds = atof(argv[1]);
  const int n_threads = atoi(argv[2]);
  if (n_threads < 1 || n_threads > MOST_THREADS) return EXIT_FAILURE;
  for (int i = 0; i < BOARDS; ++i) paint_board(boards[i], SIDE, SIDE, (unsigned)i, i % 2);
  for (int i = 3; i < argc; ++i) test_artifact(argv[i], n_threads);
  return check_result();
}
