#define KAD_BOARD_TABLE kBoardAvx512
#define KAD_LANES 16
#include "board/board_kernels_impl.hpp"
