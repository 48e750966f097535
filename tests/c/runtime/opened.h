// What the programs that go through kad/detector.h share: artifacts by name, a board, and handles
// that must be there.
#ifndef KAD_TESTS_OPENED_H
#define KAD_TESTS_OPENED_H

#include "../check.h"
#include "toy_network.h"

enum { HEIGHT = 80, WIDTH = 101 };

static const char* patchcore_path;
static const char* cutpaste_path;
static const char* tile_score_path;
static const char* denoising_path;
static uint8_t board[HEIGHT * WIDTH * 3];

static inline kad_detector* open_with(const char* path, const kad_detector_options* options) {
  kad_detector* detector = NULL;
  CHECK_OK(kad_detector_open(path, options, &detector));
  return detector;
}

static inline kad_session* session_of(const kad_detector* detector) {
  kad_session* session = NULL;
  CHECK_OK(kad_session_create(detector, &session));
  return session;
}

static inline kad_result_facts facts_of(const kad_result* result) {
  kad_result_facts facts = {.struct_size = sizeof(facts)};
  CHECK_OK(kad_result_info(result, &facts));
  return facts;
}

// The arguments of each program: PATCHCORE CUTPASTE TILE_SCORE DENOISING.
static inline void begin(int argc, char** argv) {
  if (argc != 5) abort();
  patchcore_path = argv[1];
  cutpaste_path = argv[2];
  tile_score_path = argv[3];
  denoising_path = argv[4];
  paint_board(board, HEIGHT, WIDTH, 1, 1);
}

#endif
