/* Score frames at the rate at which a line delivers them:
 *
 *   line_rate BOARD.kad FRAMES HEIGHT WIDTH [FRAMES_PER_SECOND]
 *
 * A camera thread fills a ring of frame buffers; the scoring thread takes them out, oldest first,
 * and scores them in place. A frame that finds the ring full is dropped and counted, so that a slow
 * moment delays nothing but itself. At the end: latencies from the frame's arrival to its verdict,
 * and the memory of the process after a hundredth of the frames, after half of them, and at the
 * end. Without a rate the camera waits for room, and nothing is dropped: a frame then waits for
 * those before it in the ring. */
#define _POSIX_C_SOURCE 200809L
#include <kad/detector.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { SLOTS = 4 };

typedef struct ring {
  pthread_mutex_t mutex;
  pthread_cond_t changed;
  uint8_t* frames[SLOTS];
  double arrived[SLOTS]; /* seconds */
  int64_t written;       /* frames that the camera has put in */
  int64_t read;          /* frames that were scored; the next one may be under way */
  int64_t dropped;
  int ended;   /* the camera has no more frames */
  int stopped; /* nobody takes frames out any more */
  int height;
  int width;
  int64_t n_frames;
  double rate; /* frames a second; 0: as fast as they are scored */
} ring;

static double now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

static void sleep_until(double end) {
  const double rest = end - now();
  if (rest <= 0) return;
  const struct timespec time = {(time_t)rest, (long)(1e9 * (rest - (double)(time_t)rest))};
  nanosleep(&time, NULL);
}

/* What a frame grabber would write: a bright board with noise, every seventh with a dark spot. */
static void expose(const ring* r, int64_t number, uint8_t* grey) {
  uint32_t state = (uint32_t)number * 2654435761u + 1;
  for (int64_t i = 0; i < (int64_t)r->height * r->width; ++i) {
    state = state * 1664525u + 1013904223u;
    grey[i] = (uint8_t)(190 + (state >> 28));
  }
  const int bottom = r->height / 3 + 12 < r->height ? r->height / 3 + 12 : r->height;
  const int side = r->width / 2 < 12 ? r->width / 2 : 12;
  for (int y = r->height / 3; number % 7 == 0 && y < bottom; ++y) {
    memset(grey + (int64_t)y * r->width + r->width / 2, 20, (size_t)side);
  }
}

static void* camera(void* context) {
  ring* r = context;
  const double start = now();
  for (int64_t i = 0; i < r->n_frames; ++i) {
    if (r->rate > 0) sleep_until(start + (double)i / r->rate);
    pthread_mutex_lock(&r->mutex);
    while (r->rate <= 0 && r->written - r->read == SLOTS && !r->stopped) {
      pthread_cond_wait(&r->changed, &r->mutex);
    }
    const int full = r->written - r->read == SLOTS;
    const int stopped = r->stopped;
    r->dropped += full;
    const int64_t slot = r->written % SLOTS;
    pthread_mutex_unlock(&r->mutex);
    if (stopped) break;
    if (full) continue;
    expose(r, i, r->frames[slot]);
    pthread_mutex_lock(&r->mutex);
    r->arrived[slot] = now();
    ++r->written;
    pthread_cond_signal(&r->changed);
    pthread_mutex_unlock(&r->mutex);
  }
  pthread_mutex_lock(&r->mutex);
  r->ended = 1;
  pthread_cond_signal(&r->changed);
  pthread_mutex_unlock(&r->mutex);
  return NULL;
}

/* The slot of the oldest frame, or -1 when none will come any more. It stays the caller's until the
 * next call. */
static int64_t next_frame(ring* r, int first) {
  pthread_mutex_lock(&r->mutex);
  if (!first) {
    ++r->read;
    pthread_cond_signal(&r->changed);
  }
  while (r->written == r->read && !r->ended) pthread_cond_wait(&r->changed, &r->mutex);
  const int64_t slot = r->written == r->read ? -1 : r->read % SLOTS;
  pthread_mutex_unlock(&r->mutex);
  return slot;
}

static long memory_kib(void) {
  long pages = 0, resident = 0;
  FILE* file = fopen("/proc/self/statm", "r");
  if (file == NULL) return 0;
  if (fscanf(file, "%ld %ld", &pages, &resident) != 2) resident = 0;
  fclose(file);
  return resident * (sysconf(_SC_PAGESIZE) / 1024);
}

static int compare(const void* a, const void* b) {
  const double x = *(const double*)a, y = *(const double*)b;
  return (x > y) - (x < y);
}

static void report(const ring* r, double* ms, int64_t n, int64_t anomalous, const long* kib) {
  qsort(ms, (size_t)n, sizeof(double), compare);
  const double shares[] = {0.5, 0.9, 0.99, 0.999};
  printf("frames %lld  anomalous %lld  dropped %lld\n", (long long)n, (long long)anomalous,
         (long long)r->dropped);
  printf("latency ms:");
  for (int i = 0; i < 4 && n > 0; ++i) {
    printf("  p%g %.2f", 100 * shares[i], ms[(int64_t)(shares[i] * (double)(n - 1))]);
  }
  printf("  max %.2f\n", n > 0 ? ms[n - 1] : 0);
  printf("memory KiB: early %ld  half %ld  end %ld\n", kib[0], kib[1], memory_kib());
}

static kad_status score_frames(kad_session* session, ring* r) {
  double* ms = malloc((size_t)r->n_frames * sizeof(double));
  int64_t n = 0, anomalous = 0;
  long kib[2] = {0, 0};
  kad_status status = ms == NULL ? KAD_ERROR_OUT_OF_MEMORY : KAD_OK;
  for (int64_t slot = next_frame(r, 1); status == KAD_OK && slot >= 0; slot = next_frame(r, 0)) {
    const kad_image image = {.struct_size = sizeof(image),
                             .pixel_format = KAD_PIXEL_GREY8,
                             .height = r->height,
                             .width = r->width,
                             .row_stride = r->width,
                             .data = r->frames[slot]};
    kad_result* result = NULL;
    kad_result_facts facts = {.struct_size = sizeof(facts)};
    status = kad_session_score_image(session, &image, NULL, &result);
    if (status == KAD_OK) status = kad_result_info(result, &facts);
    anomalous += facts.anomalous;
    kad_result_close(result);
    if (status != KAD_OK) break;
    ms[n++] = 1e3 * (now() - r->arrived[slot]);
    if (n == 1 + r->n_frames / 100) kib[0] = memory_kib();
    if (n == 1 + r->n_frames / 2) kib[1] = memory_kib();
  }
  if (status == KAD_OK) report(r, ms, n, anomalous, kib);
  free(ms);
  return status;
}

static void stop(ring* r) {
  pthread_mutex_lock(&r->mutex);
  r->stopped = 1;
  pthread_cond_signal(&r->changed);
  pthread_mutex_unlock(&r->mutex);
}

static int run(const char* path, ring* r) {
  kad_detector* detector = NULL;
  kad_session* session = NULL;
  /* No maps: at line rate the verdict is what is needed; regions of the rejects can wait. An
   * artifact that decides by its map has to be opened with maps. */
  kad_detector_options options = {.struct_size = sizeof(options), .scores_only = 1};
  kad_status status = kad_detector_open(path, &options, &detector);
  if (status == KAD_ERROR_INVALID_ARGUMENT) {
    options.scores_only = 0;
    status = kad_detector_open(path, &options, &detector);
  }
  if (status == KAD_OK) status = kad_session_create(detector, &session);
  pthread_t thread;
  int started = 0;
  if (status == KAD_OK) {
    started = pthread_create(&thread, NULL, camera, r) == 0;
    if (!started) fputs("line_rate: no thread can be started\n", stderr);
  }
  if (started) {
    status = score_frames(session, r);
    stop(r);
    pthread_join(thread, NULL);
  }
  if (status != KAD_OK) {
    fprintf(stderr, "line_rate: %s: %s\n", kad_status_name(status), kad_last_error());
  }
  kad_session_close(session);
  kad_detector_close(detector);
  return started && status == KAD_OK ? EXIT_SUCCESS : EXIT_FAILURE;
}

int main(int argc, char** argv) {
  static ring r = {.mutex = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};
  if (argc < 5) {
    fprintf(stderr, "usage: line_rate BOARD.kad FRAMES HEIGHT WIDTH [FRAMES_PER_SECOND]\n");
    return EXIT_FAILURE;
  }
  r.n_frames = atoll(argv[2]);
  r.height = atoi(argv[3]);
  r.width = atoi(argv[4]);
  r.rate = argc > 5 ? atof(argv[5]) : 0;
  if (r.n_frames < 1 || r.height < 1 || r.width < 1 || (argc > 5 && !(r.rate > 0))) {
    fprintf(stderr, "line_rate: frames, height, width and rate: expected numbers above 0\n");
    return EXIT_FAILURE;
  }
  for (int i = 0; i < SLOTS; ++i) {
    r.frames[i] = malloc((size_t)r.height * (size_t)r.width);
    if (r.frames[i] == NULL) return EXIT_FAILURE;
  }
  const int code = run(argv[1], &r);
  for (int i = 0; i < SLOTS; ++i) free(r.frames[i]);
  return code;
}
