// The options of a session of ONNX Runtime: equal to those of kad_sdk/session.py, so that both
// doors get the same numbers.
#pragma once

#include "runtime/network.hpp"
#include "runtime/onnxruntime.hpp"

namespace kad {

/// For example "CUDAExecutionProvider".
const char* provider_name(int32_t provider);

/// Refuse a provider that the library was built without; raises KAD_ERROR_PROVIDER.
void require_provider(const OrtLibrary& library, int32_t provider);

/// The logs of the session go to `log`, which has to outlive it.
OrtOwned<OrtSessionOptions> make_session_options(const OrtApi& api, const NetworkOptions& options,
                                                 const Graph& graph, const Log* log);

}  // namespace kad
