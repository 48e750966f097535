// Structs of kad/detector.h of the first release's size: no byte more of them is read or written.
//   test_struct_sizes ARTIFACT
#define _DEFAULT_SOURCE
#include "../check.h"
#include "../edge.h"
#include "toy_network.h"

// The first release's sizes. They stay when fields are added.
enum {
  FIRST_DETECTOR_OPTIONS = 104,
  FIRST_DETECTOR_FACTS = 136,
  FIRST_SCORE_REQUEST = 56,
  FIRST_RESULT_FACTS = 152,
  FIRST_TILE_RESULT = 32,
  FIRST_REGION_RESULT = 64
};

static const char* path;
static kad_detector* detector;
static kad_session* session;
static kad_result* result;
static uint8_t board[64 * 64 * 3];

static kad_status open_detector(void* options) {
  kad_detector* opened = NULL;
  const kad_status status = kad_detector_open(path, options, &opened);
  kad_detector_close(opened);
  return status;
}

static kad_status score(void* request) {
  const kad_image image = rgb_image(board, 64, 64);
  kad_result* scored = NULL;
  const kad_status status = kad_session_score_image(session, &image, request, &scored);
  kad_result_close(scored);
  return status;
}

static kad_status detector_info(void* out) { return kad_detector_info(detector, out); }
static kad_status result_info(void* out) { return kad_result_info(result, out); }
static kad_status result_tile(void* out) { return kad_result_tile(result, 0, out); }
static kad_status result_region(void* out) { return kad_result_region(result, 0, out); }

static void check_sizes(kad_status (*call)(void*), const void* newest, uint32_t first,
                        const char* name) {
  uint32_t* given = at_the_edge(newest, first);
  *given = first;
  CHECK_OK(call(given));
  CHECK(*given == first);  // a struct that is filled in keeps it
  *given = first - 1;
  CHECK_INVALID(call(given), name);
  unsigned char larger[512] = {0};
  const uint32_t size = sizeof(larger);
  memcpy(larger, newest, first);
  memcpy(larger, &size, sizeof(size));
  CHECK_OK(call(larger));
}

int main(int argc, char** argv) {
  if (argc != 2) return EXIT_FAILURE;
  path = argv[1];
  paint_board(board, 64, 64, 1, 1);
  const kad_detector_options options = toy_options();
  const kad_image image = rgb_image(board, 64, 64);
  CHECK_OK(kad_detector_open(path, &options, &detector));
  CHECK_OK(kad_session_create(detector, &session));
  CHECK_OK(kad_session_score_image(session, &image, NULL, &result));

  const kad_score_request request = {0};
  const unsigned char empty[256] = {0};
  check_sizes(open_detector, &options, FIRST_DETECTOR_OPTIONS, "kad_detector_options.struct_size");
  check_sizes(score, &request, FIRST_SCORE_REQUEST, "kad_score_request.struct_size");
  check_sizes(detector_info, empty, FIRST_DETECTOR_FACTS, "kad_detector_facts.struct_size");
  check_sizes(result_info, empty, FIRST_RESULT_FACTS, "kad_result_facts.struct_size");
  check_sizes(result_tile, empty, FIRST_TILE_RESULT, "kad_tile_result.struct_size");
  check_sizes(result_region, empty, FIRST_REGION_RESULT, "kad_region_result.struct_size");
  kad_result_close(result);
  kad_session_close(session);
  kad_detector_close(detector);
  return check_result();
}
