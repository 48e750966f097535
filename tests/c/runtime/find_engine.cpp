// Finds TensorRT's engine of a graph as the detector does, and says which, or why there is none:
//   find_engine CACHE GRAPH_SHA256 PRECISION BATCH ONNXRUNTIME DEVICE [FILE]
// The graph takes tiles (B, 3, 32, 32). FILE, where given, gets a byte more before it is checked
// that TensorRT has taken the engine.
#include <cstdio>
#include <cstdlib>
#include <fstream>

#include "base/guard.hpp"
#include "runtime/tensorrt.hpp"

int main(int argc, char** argv) {
  if (argc < 7) return EXIT_FAILURE;
  kad::NetworkOptions options;
  options.provider = KAD_PROVIDER_TENSORRT;
  options.cache_folder = argv[1];
  options.graph_sha256 = argv[2];
  options.precision = argv[3];
  options.max_batch = std::atoll(argv[4]);
  options.device_id = std::atoi(argv[6]);
  kad::Graph graph;
  graph.file = "network.onnx";
  graph.input = "tiles";
  graph.tile = 32;
  try {
    const kad::Engine engine = kad::find_engine(options, graph, argv[5]);
    if (argc > 7) std::ofstream(argv[7], std::ios::app) << "x";
    kad::check_engine_taken(engine);
    std::printf("%s\n%s\n%lld\n", engine.folder.c_str(), engine.timing_folder.c_str(),
                static_cast<long long>(engine.batch));
  } catch (const kad::Error& error) {
    std::printf("%s %s\n", kad_status_name(error.status), error.what());
  }
  return EXIT_SUCCESS;
}
