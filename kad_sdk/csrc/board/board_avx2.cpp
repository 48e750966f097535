#define KAD_BOARD_TABLE kBoardAvx2
#define KAD_LANES 8
#include "board/board_kernels_impl.hpp"
