#include "runtime/onnx_provider.hpp"

#include <utility>
#include <vector>

namespace kad {
namespace {

using Pairs = std::vector<std::pair<std::string, std::string>>;

constexpr const char* kProviders[] = {"CPUExecutionProvider", "CUDAExecutionProvider",
                                      "TensorrtExecutionProvider"};

void ORT_API_CALL pass_on(void* log, OrtLoggingLevel level, const char* category, const char*,
                          const char* place, const char* message) {
  int32_t severity = KAD_LOG_INFO;
  if (level == ORT_LOGGING_LEVEL_WARNING) severity = KAD_LOG_WARNING;
  if (level > ORT_LOGGING_LEVEL_WARNING) severity = KAD_LOG_ERROR;
  static_cast<const Log*>(log)->tell(severity, "ONNX Runtime: %s (%s, %s)", message, category,
                                     place);
}

Pairs cuda_pairs(const NetworkOptions& options) {
  return {{"device_id", std::to_string(options.device_id)},
          {"use_tf32", "0"},  // the bank and the thresholds are fp32
          {"arena_extend_strategy", "kSameAsRequested"},
          // One fixed algorithm: a measured choice could differ between batches and between runs.
          {"cudnn_conv_algo_search", "DEFAULT"}};
}

// As Engine.options of kad_sdk/tensorrt.py.
Pairs tensorrt_pairs(const NetworkOptions& options, const Graph& graph, const Engine& engine) {
  const std::string side = std::to_string(graph.tile);
  const auto shape = [&](int64_t batch) {
    return graph.input + ":" + std::to_string(batch) + "x3x" + side + "x" + side;
  };
  return {{"device_id", std::to_string(options.device_id)},
          {"trt_fp16_enable", options.precision == "fp16" ? "1" : "0"},
          {"trt_int8_enable", "0"},
          {"trt_engine_cache_enable", "1"},
          {"trt_engine_cache_path", engine.folder},
          {"trt_timing_cache_enable", "1"},
          {"trt_timing_cache_path", engine.timing_folder},
          {"trt_profile_min_shapes", shape(1)},
          {"trt_profile_opt_shapes", shape(engine.batch)},
          {"trt_profile_max_shapes", shape(engine.batch)}};
}

struct Columns {
  explicit Columns(const Pairs& pairs) {
    for (const auto& [key, value] : pairs) {
      keys.push_back(key.c_str());
      values.push_back(value.c_str());
    }
  }
  std::vector<const char*> keys;
  std::vector<const char*> values;
};

void append_cuda(const OrtApi& api, const NetworkOptions& options, OrtSessionOptions* session) {
  const auto cuda = make_ort<OrtCUDAProviderOptionsV2>(
      api, api.ReleaseCUDAProviderOptions, "the options of CUDA",
      [&](OrtCUDAProviderOptionsV2** made) { return api.CreateCUDAProviderOptions(made); });
  const Pairs pairs = cuda_pairs(options);
  const Columns columns(pairs);
  check_ort(api,
            api.UpdateCUDAProviderOptions(cuda.get(), columns.keys.data(), columns.values.data(),
                                          pairs.size()),
            KAD_ERROR_PROVIDER,
            "the options of the CUDA provider are refused; give a build of "
            "ONNX Runtime 1.20 or newer that knows them");
  check_ort(api, api.SessionOptionsAppendExecutionProvider_CUDA_V2(session, cuda.get()),
            KAD_ERROR_PROVIDER,
            "the CUDA provider cannot be used here; check the driver with nvidia-smi, and that the "
            "loader finds the libraries of CUDA and cuDNN");
}

void append_tensorrt(const OrtApi& api, const NetworkOptions& options, const Graph& graph,
                     const Engine& engine, OrtSessionOptions* session) {
  const auto tensorrt = make_ort<OrtTensorRTProviderOptionsV2>(
      api, api.ReleaseTensorRTProviderOptions, "the options of TensorRT",
      [&](OrtTensorRTProviderOptionsV2** made) { return api.CreateTensorRTProviderOptions(made); });
  const Pairs pairs = tensorrt_pairs(options, graph, engine);
  const Columns columns(pairs);
  check_ort(api,
            api.UpdateTensorRTProviderOptions(tensorrt.get(), columns.keys.data(),
                                              columns.values.data(), pairs.size()),
            KAD_ERROR_PROVIDER,
            "the options of the TensorRT provider are refused; give a build "
            "of ONNX Runtime 1.20 or newer that knows them");
  check_ort(api, api.SessionOptionsAppendExecutionProvider_TensorRT_V2(session, tensorrt.get()),
            KAD_ERROR_PROVIDER,
            "the TensorRT provider cannot be used here; check the driver with nvidia-smi, and that "
            "the loader finds the libraries of CUDA, cuDNN and TensorRT");
}

std::vector<std::string> available_providers(const OrtApi& api) {
  char** names = nullptr;
  int count = 0;
  check_ort(api, api.GetAvailableProviders(&names, &count), KAD_ERROR_ONNXRUNTIME,
            "ONNX Runtime does not name its providers (if memory ran out, free some)");
  const auto give_back = [&](char** list) {
    if (OrtStatus* status = api.ReleaseAvailableProviders(list, count)) api.ReleaseStatus(status);
  };
  const std::unique_ptr<char*, decltype(give_back)> owned(names, give_back);
  return {names, names + count};
}

}  // namespace

const char* provider_name(int32_t provider) { return kProviders[provider]; }

void require_provider(const OrtLibrary& library, int32_t provider) {
  bool found = false;
  std::string all;
  for (const std::string& name : available_providers(*library.api)) {
    found |= name == provider_name(provider);
    all += (all.empty() ? "" : ", ") + name;
  }
  if (found) return;
  fail(KAD_ERROR_PROVIDER,
       "provider: ONNX Runtime %s at %s has no %s (it has %s): give a build that has it, or score "
       "with KAD_PROVIDER_CPU",
       library.version.c_str(), library.path.c_str(), provider_name(provider), all.c_str());
}

OrtOwned<OrtSessionOptions> make_session_options(const OrtApi& api, const NetworkOptions& options,
                                                 const Graph& graph, const Engine& engine,
                                                 const Log* log) {
  auto session = make_ort<OrtSessionOptions>(
      api, api.ReleaseSessionOptions, "the options of a session",
      [&](OrtSessionOptions** made) { return api.CreateSessionOptions(made); });
  const auto check = [&](OrtStatus* status) {
    check_ort(
        api, status, KAD_ERROR_ONNXRUNTIME,
        "ONNX Runtime refuses an option of a session (if memory ran out, free some; else give "
        "another build of it in kad_detector_options.onnxruntime)");
  };
  check(api.SetSessionGraphOptimizationLevel(session.get(), ORT_ENABLE_ALL));
  check(api.SetIntraOpNumThreads(session.get(), options.n_threads));
  check(api.SetInterOpNumThreads(session.get(), 1));
  // Threads that spin after their work would take the cores from the search, which runs next.
  check(api.AddSessionConfigEntry(session.get(), "session.intra_op.allow_spinning", "0"));
  const bool logs = log->function != nullptr;
  check(api.SetSessionLogSeverityLevel(session.get(),
                                       logs ? ORT_LOGGING_LEVEL_WARNING : ORT_LOGGING_LEVEL_FATAL));
  if (logs) check(api.SetUserLoggingFunction(session.get(), pass_on, const_cast<Log*>(log)));
  if (options.provider == KAD_PROVIDER_CPU) {
    // A plan of the memory is kept beside what the first pass took: twice the memory, no faster.
    check(api.DisableMemPattern(session.get()));
    return session;
  }
  check(api.AddSessionConfigEntry(session.get(), "session.disable_cpu_ep_fallback", "1"));
  if (options.provider == KAD_PROVIDER_CUDA) append_cuda(api, options, session.get());
  if (options.provider == KAD_PROVIDER_TENSORRT) {
    append_tensorrt(api, options, graph, engine, session.get());
  }
  return session;
}

}  // namespace kad
