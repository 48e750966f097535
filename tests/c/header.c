// kad.h must stand alone in strict C11.
#include "kad/kad.h"

_Static_assert(sizeof(kad_status) == 4, "a status is 32 bits");
