#include "runtime/onnxruntime.hpp"

#include <dlfcn.h>

#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <utility>
#include <vector>

namespace kad {
namespace {

constexpr const char* kVariable = "KAD_ONNXRUNTIME";
constexpr const char* kAdvice =
    "give the path of libonnxruntime.so of version 1.20 or newer in "
    "kad_detector_options.onnxruntime or in the variable KAD_ONNXRUNTIME";

// The first of some libraries that can be opened, and its name.
std::pair<void*, std::string> open_first(const std::vector<std::string>& names) {
  std::string reasons;
  for (const std::string& name : names) {
    if (void* library = dlopen(name.c_str(), RTLD_NOW | RTLD_LOCAL)) return {library, name};
    const char* reason = dlerror();
    reasons += (reasons.empty() ? "" : "; ") + std::string(reason ? reason : name);
  }
  fail(KAD_ERROR_ONNXRUNTIME, "ONNX Runtime cannot be loaded: %s; %s", reasons.c_str(), kAdvice);
}

// Whether a version as "1.19.2" lacks the API that is used here.
bool is_older(const std::string& version) {
  int major = 0, minor = 0;
  if (std::sscanf(version.c_str(), "%d.%d", &major, &minor) != 2) return false;
  return major < 1 || (major == 1 && minor < static_cast<int>(kOrtApiVersion));
}

std::string path_of(const void* address) {
  Dl_info info = {};
  return dladdr(address, &info) != 0 && info.dli_fname != nullptr ? info.dli_fname : "";
}

}  // namespace

OrtLibrary open_onnxruntime(const std::string& path) {
  const char* variable = std::getenv(kVariable);
  std::vector<std::string> names = {"libonnxruntime.so.1", "libonnxruntime.so"};
  if (variable != nullptr && *variable != '\0') names = {variable};
  if (!path.empty()) names = {path};
  const auto [handle, name] = open_first(names);
  void* symbol = dlsym(handle, "OrtGetApiBase");
  if (symbol == nullptr) {
    fail(KAD_ERROR_ONNXRUNTIME, "%s is not ONNX Runtime: it has no OrtGetApiBase; %s", name.c_str(),
         kAdvice);
  }
  OrtLibrary library;
  library.path = path_of(symbol);
  const OrtApiBase* base = reinterpret_cast<const OrtApiBase* (*)()>(symbol)();
  library.version = base->GetVersionString();
  // GetApi of a library that is too old prints to stderr.
  if (!is_older(library.version)) library.api = base->GetApi(kOrtApiVersion);
  if (library.api == nullptr) {
    fail(KAD_ERROR_ONNXRUNTIME, "%s is ONNX Runtime %s: expected 1.%u or newer; %s",
         library.path.c_str(), library.version.c_str(), kOrtApiVersion, kAdvice);
  }
  return library;
}

void check_ort(const OrtApi& api, OrtStatus* status, kad_status kind, const char* format, ...) {
  if (status == nullptr) return;
  const OrtOwned<OrtStatus> owned(status, api.ReleaseStatus);
  char what[sizeof(Error::text)];
  va_list arguments;
  va_start(arguments, format);
  format_text(what, sizeof(what), format, arguments);
  va_end(arguments);
  fail(kind, "%s: %s", what, api.GetErrorMessage(status));
}

}  // namespace kad
