// An artifact that scores boards in windows: the caller's engine, progress, what is refused.
//   test_windows WINDOWS
#include <math.h>
#include <stdint.h>

#include "../check.h"
#include "toy_network.h"

enum { HEIGHT = 80, WIDTH = 141, CELL = 4 };

static uint8_t board[HEIGHT * WIDTH * 3];

typedef struct seen {
  int64_t windows;
  int64_t px;
  int64_t spoiled;  // the window that has a value that is not finite, or -1
} seen;

// A network of cells of 4 and 8 px: means over its cells, times a factor for each channel.
static kad_status engine(void* context, const kad_network_batch* batch) {
  seen* mine = context;
  CHECK(batch->struct_size == sizeof(*batch));
  CHECK(batch->tile == 0);
  CHECK(batch->n_tiles == 1);
  CHECK(batch->n_outputs == 2);
  CHECK(batch->height >= 16 && batch->width >= 16);
  for (int64_t i = 0; i < batch->n_outputs; ++i) {
    const kad_network_output* output = batch->outputs + i;
    const int64_t cell = CELL << i;
    CHECK(output->height == (batch->height + cell - 1) / cell);
    CHECK(output->width == (batch->width + cell - 1) / cell);
    for (int64_t j = 0; j < output->channels * output->height * output->width; ++j) {
      const int64_t place = j % (output->height * output->width);
      const int64_t y = place / output->width * cell, x = place % output->width * cell;
      output->data[j] = batch->tiles[y * batch->width + x] * (float)(1 + j % 3);
    }
  }
  // Behind the halo, four rows or columns of the first output: what lies in it is not looked at.
  if (mine->windows == mine->spoiled) batch->outputs[0].data[6 * batch->outputs[0].width + 6] = NAN;
  ++mine->windows;
  mine->px += (int64_t)batch->height * batch->width;
  return KAD_OK;
}

typedef struct progress {
  int64_t calls;
  int64_t last;
  int64_t stop_after;
} progress;

static int32_t on_progress(void* context, int64_t done, int64_t n) {
  progress* mine = context;
  CHECK(done == ++mine->calls);
  mine->last = n;
  return done == mine->stop_after;
}

static kad_session* open_session(const char* path, seen* mine, kad_detector** out_detector) {
  const kad_detector_options options = {.struct_size = sizeof(options),
                                        .provider = KAD_PROVIDER_CALLER,
                                        .n_threads = 2,
                                        .network = engine,
                                        .network_context = mine};
  kad_session* session = NULL;
  CHECK_OK(kad_detector_open(path, &options, out_detector));
  CHECK_OK(kad_session_create(*out_detector, &session));
  return session;
}

static void test_windows(const char* path) {
  seen mine = {.spoiled = -1};
  kad_detector* detector = NULL;
  kad_session* session = open_session(path, &mine, &detector);
  const kad_image image = rgb_image(board, HEIGHT, WIDTH);
  progress told = {.stop_after = -1};
  kad_score_request request = {
      .struct_size = sizeof(request), .progress = on_progress, .progress_context = &told};
  kad_result* result = NULL;
  CHECK_OK(kad_session_score_image(session, &image, &request, &result));
  // As many px as 64 x 64 have with their halo of 16: three of all rows, 48 px and their halos
  // wide.
  CHECK(told.calls == 3 && told.last == 3 && mine.windows == 3);
  CHECK(mine.px == HEIGHT * (WIDTH + 4 * 16));
  kad_result_facts facts = {.struct_size = sizeof(facts)};
  CHECK_OK(kad_result_info(result, &facts));
  CHECK(facts.n_tiles > 3);
  for (int64_t i = 0; i < HEIGHT * WIDTH; ++i) CHECK(facts.map[i] >= 0.0F);
  kad_result_close(result);

  told = (progress){.stop_after = 2};
  CHECK_FAILS(kad_session_score_image(session, &image, &request, &result), KAD_ERROR_CANCELLED,
              "progress");
  CHECK(told.calls == 2);
  CHECK_OK(kad_session_cancel(session));
  CHECK_FAILS(kad_session_score_image(session, &image, NULL, &result), KAD_ERROR_CANCELLED, "");
  mine = (seen){.spoiled = 2};
  CHECK_FAILS(kad_session_score_image(session, &image, NULL, &result), KAD_ERROR_NOT_FINITE,
              "window 2");
  CHECK_OK(kad_session_score_image(session, &image, NULL, &result));
  kad_result_close(result);

  const int32_t xy[2] = {0, 0};
  float score = 0.0F;
  CHECK_INVALID(kad_session_score_tiles(session, &image, xy, 1, &score, NULL, NULL),
                "scores boards in windows");
  kad_session_close(session);
  kad_detector_close(detector);
}

int main(int argc, char** argv) {
  if (argc != 2) return 2;
  paint_board(board, HEIGHT, WIDTH, 1, 1);
  test_windows(argv[1]);
  const kad_detector_options tensorrt = {.struct_size = sizeof(tensorrt),
                                         .provider = KAD_PROVIDER_TENSORRT};
  kad_detector* detector = NULL;
  CHECK_FAILS(kad_detector_open(argv[1], &tensorrt, &detector), KAD_ERROR_PROVIDER, "--mode tiles");
  CHECK(detector == NULL);
  return 0;
}
