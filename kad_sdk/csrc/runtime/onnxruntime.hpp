// ONNX Runtime, found and opened at run time: one build of libkad runs with any of its builds.
#pragma once

#include <onnxruntime_c_api.h>

#include <memory>
#include <string>

#include "base/guard.hpp"
#include "kad/detector.h"

namespace kad {

/// The version of its C API that is used here: that of ONNX Runtime 1.20. Newer libraries have it
/// too, and the header may be of any newer version.
constexpr uint32_t kOrtApiVersion = 20;
static_assert(ORT_API_VERSION >= kOrtApiVersion, "the header of ONNX Runtime 1.20 or newer");

struct OrtLibrary {
  const OrtApi* api = nullptr;
  std::string version;
  std::string path;
};

/// Open the library at `path`; when that is empty the one that the variable KAD_ONNXRUNTIME names,
/// else the loader's. It stays loaded: it cannot be unloaded safely. Raises KAD_ERROR_ONNXRUNTIME.
OrtLibrary open_onnxruntime(const std::string& path);

/// Something of ONNX Runtime with what releases it.
template <class T>
using OrtOwned = std::unique_ptr<T, void (*)(T*)>;

/// Raise `kind` when a call of ONNX Runtime failed: the given text, ": ", and its own. Takes the
/// status, and allocates nothing: a call's result must not be lost between the call and its owner.
void check_ort(const OrtApi& api, OrtStatus* status, kad_status kind, const char* format, ...)
    KAD_PRINTF(4, 5);

/// Own what a call of ONNX Runtime makes: make(&pointer) returns its status.
template <class T, class F>
OrtOwned<T> make_ort(const OrtApi& api, void (*release)(T*), const char* what, F&& make) {
  T* made = nullptr;
  check_ort(api, make(&made), KAD_ERROR_ONNXRUNTIME,
            "ONNX Runtime cannot make %s (if memory ran out, free some)", what);
  return {made, release};
}

}  // namespace kad
