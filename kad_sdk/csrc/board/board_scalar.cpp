#define KAD_BOARD_TABLE kBoardScalar
#define KAD_LANES 4
#include "board/board_kernels_impl.hpp"
