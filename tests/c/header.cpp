// kad.h must stand alone in strict C++17.
#include "kad/kad.h"

static_assert(sizeof(kad_status) == 4, "a status is 32 bits");
