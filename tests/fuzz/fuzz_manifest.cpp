// Any text: a manifest, or an error with one of its two statuses.
#include <cstdlib>

#include "base/guard.hpp"
#include "runtime/manifest.hpp"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  try {
    const kad::Manifest manifest =
        kad::read_manifest({reinterpret_cast<const char*>(data), size}, "manifest.json");
    if (manifest.preprocessing.tile < 1 || manifest.files.empty()) std::abort();
  } catch (const kad::Error& error) {
    const bool known =
        error.status == KAD_ERROR_ARTIFACT_MANIFEST || error.status == KAD_ERROR_ARTIFACT_VERSION;
    if (!known || error.text[0] == '\0') std::abort();
  }
  return 0;
}
