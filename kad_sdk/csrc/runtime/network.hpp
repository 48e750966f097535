// The network: what runs it, ONNX Runtime or the caller.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "kad/detector.h"
#include "runtime/log.hpp"
#include "runtime/manifest.hpp"

namespace kad {

/// What one session needs to run a network; used by one thread, but for `stop`.
class NetworkRun {
 public:
  virtual ~NetworkRun() = default;

  /// Fill outputs[i] (n, ...) from tiles (n, 3, t, t). Raises KAD_ERROR_NETWORK.
  virtual void run(const float* tiles, int64_t n, float* const* outputs) = 0;
  /// The same for one window of any size: fill outputs[i] (1, channels, sizes[i]) from pixels
  /// (1, 3, seen).
  virtual void run_window(const float* pixels, Size seen, const std::vector<Size>& sizes,
                          float* const* outputs) = 0;
  /// Make a `run` that is under way in another thread, or the next one, fail soon, where possible.
  virtual void stop() noexcept = 0;
  /// Forget a stop.
  virtual void resume() noexcept = 0;
};

/// A network ready to run; immutable, and safe to share between threads.
class Network {
 public:
  virtual ~Network() = default;
  virtual std::unique_ptr<NetworkRun> make_run() const = 0;
  /// Version of ONNX Runtime; empty for the caller's own engine.
  virtual std::string version() const = 0;
};

struct NetworkOptions {
  int32_t provider = KAD_PROVIDER_CPU;
  int32_t device_id = 0;
  int32_t n_threads = 1;
  int64_t max_batch = 1;     // largest that TensorRT's engine has to take
  std::string library;       // of ONNX Runtime; empty: to be found
  std::string cache_folder;  // of TensorRT; empty: the default one
  std::string graph_sha256;  // graphs never share an engine
  std::string precision;     // of the graph, by its manifest
  Log log;
};

/// The graph as bytes, which are not needed afterwards. Raises KAD_ERROR_ONNXRUNTIME,
/// KAD_ERROR_PROVIDER, and KAD_ERROR_ARTIFACT_NETWORK when it differs from `graph`.
std::unique_ptr<Network> open_onnx_network(const uint8_t* data, size_t size, const Graph& graph,
                                           const NetworkOptions& options);

std::unique_ptr<Network> make_caller_network(kad_network_fn function, void* context,
                                             const Graph& graph);

}  // namespace kad
