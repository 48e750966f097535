// The options of a session of ONNX Runtime: equal to those of kad_sdk/session.py, so that both
// doors get the same numbers.
#pragma once

#include "runtime/network.hpp"
#include "runtime/onnxruntime.hpp"
#include "runtime/tensorrt.hpp"

namespace kad {

/// For example "CUDAExecutionProvider".
const char* provider_name(int32_t provider);

/// Refuse a provider that the library was built without; raises KAD_ERROR_PROVIDER.
void require_provider(const OrtLibrary& library, int32_t provider);

/// `engine` is that of TensorRT. The logs of the session go to `log`, which has to outlive it.
OrtOwned<OrtSessionOptions> make_session_options(const OrtApi& api, const NetworkOptions& options,
                                                 const Graph& graph, const Engine& engine,
                                                 const Log* log);

}  // namespace kad
