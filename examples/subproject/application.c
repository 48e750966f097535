/* Says what an artifact is: application BOARD.kad */
#include <kad/detector.h>
#include <stdio.h>

int main(int argc, char** argv) {
  kad_detector* detector = NULL;
  kad_detector_facts facts = {.struct_size = sizeof(facts)};
  kad_status status =
      argc == 2 ? kad_detector_open(argv[1], NULL, &detector) : KAD_ERROR_UNSUPPORTED;
  if (status == KAD_OK) status = kad_detector_info(detector, &facts);
  if (status == KAD_OK) {
    printf("libkad %s: %s, tiles of %d px, threshold %.3f, ONNX Runtime %s\n", kad_version_string(),
           facts.method == KAD_METHOD_PATCHCORE ? "PatchCore" : "CutPaste", facts.tile,
           facts.threshold, facts.onnxruntime);
  } else {
    fprintf(stderr, "application: %s: %s\n", kad_status_name(status), kad_last_error());
  }
  kad_detector_close(detector);
  return status == KAD_OK ? 0 : 1;
}
