// TensorRT's engines, as kad_sdk/tensorrt.py keeps them: found for this machine and this graph, or
// refused. libkad never builds one: kad-export tensorrt does, ahead of time.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <utility>

#include "runtime/network.hpp"

namespace kad {

/// Where the engine of a graph lies, and what it is for.
struct Engine {
  using Stamp = std::pair<int64_t, int64_t>;  // bytes, and nanoseconds of its time

  std::string folder;
  std::string timing_folder;  // of what the builder measured
  int64_t batch = 0;          // largest
  std::map<std::string, Stamp> files;
};

/// Raises KAD_ERROR_PROVIDER where the driver or TensorRT is missing, which the text names; where
/// TensorRT cannot run graphs of this precision; and where no engine takes such batches.
Engine find_engine(const NetworkOptions& options, const Graph& graph,
                   const std::string& onnxruntime_version);

/// After a session was made of it: raises KAD_ERROR_PROVIDER where TensorRT has built another one.
void check_engine_taken(const Engine& engine);

}  // namespace kad
