// Opens artifacts and prints for each a line "STATUS<tab>text"; "KAD_OK" and no text when it
// opened. With --no-network the network is never run or read by ONNX Runtime, only checked.
#include <stdio.h>
#include <string.h>

#include "kad/detector.h"

static kad_status no_network(void* context, const kad_network_batch* batch) {
  (void)context;
  (void)batch;
  return KAD_ERROR_UNSUPPORTED;
}

int main(int argc, char** argv) {
  kad_detector_options options = {.struct_size = sizeof(options), .n_threads = 1};
  for (int i = 1; i < argc; ++i) {
    if (strcmp(argv[i], "--no-network") == 0) {
      options.provider = KAD_PROVIDER_CALLER;
      options.network = no_network;
      continue;
    }
    kad_detector* detector = NULL;
    const kad_status status = kad_detector_open(argv[i], &options, &detector);
    printf("%s\t", kad_status_name(status));
    for (const char* c = kad_last_error(); *c != '\0'; ++c) putchar(*c == '\n' ? ' ' : *c);
    putchar('\n');
    kad_detector_close(detector);
  }
  return 0;
}
