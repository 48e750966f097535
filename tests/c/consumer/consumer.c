#include <kad/kad.h>
#include <stdio.h>

int main(void) {
  printf("%s\n", kad_version_string());
  return kad_abi_version() == KAD_ABI_VERSION ? 0 : 1;
}
