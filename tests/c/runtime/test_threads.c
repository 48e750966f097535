// Threads that share one detector, each with a session of its own, score what one thread alone
// does. With `toy`, the network of toy_network.h, the calls of one more session are cancelled as
// they run; with `onnxruntime` the artifact's own network runs.
//   test_threads toy|onnxruntime SECONDS THREADS ARTIFACT...
#define _POSIX_C_SOURCE 200809L
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <time.h>

#include "../check.h"
#include "toy_network.h"

enum { BOARDS = 6, SIDE = 70, MOST_THREADS = 32 };

static uint8_t boards[BOARDS][SIDE * SIDE * 3];
static const kad_detector* detector;
static uint64_t expected[BOARDS];
static double seconds;
static int runs_toy;

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

// ---- cancelling --------------------------------------------------------------------------------

typedef struct gate {
  kad_session* session;
  atomic_int entered;    // a call is in the network
  atomic_int cancelled;  // and was cancelled there
} gate;

static gate the_gate;
static _Thread_local int waits_at_the_gate;

// In the thread that waits, the network runs until another has cancelled the call.
static kad_status gated_network(void* context, const kad_network_batch* batch) {
  if (waits_at_the_gate) {
    atomic_store(&the_gate.entered, 1);
    while (!atomic_load(&the_gate.cancelled)) sched_yield();
  }
  return toy_network(context, batch);
}

static void* cancel_inside(void* unused) {
  while (!atomic_load(&the_gate.entered)) sched_yield();
  CHECK_OK(kad_session_cancel(the_gate.session));
  atomic_store(&the_gate.cancelled, 1);
  return unused;
}

static int64_t cancel_until_time_is_up(void) {
  const double end = now() + seconds;
  const kad_image image = rgb_image(boards[0], SIDE, SIDE);
  int64_t rounds = 0;
  CHECK_OK(kad_session_create(detector, &the_gate.session));
  waits_at_the_gate = 1;
  while (now() < end) {
    pthread_t canceller;
    kad_result* result = NULL;
    atomic_store(&the_gate.entered, 0);
    atomic_store(&the_gate.cancelled, 0);
    CHECK(pthread_create(&canceller, NULL, cancel_inside, NULL) == 0);
    CHECK_FAILS(kad_session_score_image(the_gate.session, &image, NULL, &result),
                KAD_ERROR_CANCELLED, "the call was cancelled");
    CHECK(result == NULL);
    CHECK(pthread_join(canceller, NULL) == 0);
    CHECK(score(the_gate.session, 0) == expected[0]);  // the gate stands open
    ++rounds;
  }
  waits_at_the_gate = 0;
  kad_session_close(the_gate.session);
  return rounds;
}

static void test_artifact(const char* path, int n_threads) {
  pthread_t threads[MOST_THREADS];
  work works[MOST_THREADS] = {{0}};
  kad_detector_options options = toy_options();
  options.n_threads = 2;
  options.provider = runs_toy ? KAD_PROVIDER_CALLER : KAD_PROVIDER_CPU;
  options.network = runs_toy ? gated_network : NULL;
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
  const int64_t rounds = runs_toy ? cancel_until_time_is_up() : 0;
  CHECK((rounds > 0) == runs_toy);
  int64_t total = 0;
  for (int i = 0; i < n_threads; ++i) {
    CHECK(pthread_join(threads[i], NULL) == 0);
    CHECK(works[i].wrong == 0 && works[i].boards > 0);
    total += works[i].boards;
  }
  printf("%s: %lld boards in %d threads, equal to those of one; %lld calls cancelled as they ran\n",
         path, (long long)total, n_threads, (long long)rounds);
  kad_detector_close(opened);
}

int main(int argc, char** argv) {
  if (argc < 5) return EXIT_FAILURE;
  runs_toy = strcmp(argv[1], "toy") == 0;
  seconds = atof(argv[2]);
  const int n_threads = atoi(argv[3]);
  if (n_threads < 1 || n_threads > MOST_THREADS) return EXIT_FAILURE;
  for (int i = 0; i < BOARDS; ++i) paint_board(boards[i], SIDE, SIDE, (unsigned)i, i % 2);
  for (int i = 4; i < argc; ++i) test_artifact(argv[i], n_threads);
  return check_result();
}
