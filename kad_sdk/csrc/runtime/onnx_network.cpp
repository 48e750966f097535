// The network, run by ONNX Runtime.
#include <algorithm>
#include <cstring>
#include <utility>
#include <vector>

#include "base/guard.hpp"
#include "runtime/network.hpp"
#include "runtime/onnx_provider.hpp"
#include "runtime/onnxruntime.hpp"

namespace kad {
namespace {

using Shape = std::vector<int64_t>;

// The sides of a tensor without the batch.
Shape sides_of(const GraphOutput& output, bool dynamic = false) {
  if (output.rank == 2) return {output.channels};
  if (dynamic) return {output.channels, -1, -1};
  return {output.channels, output.height, output.width};
}

std::string to_text(const std::string& name, const Shape& sides) {
  std::string text = "'" + name + "' (B";
  for (const int64_t side : sides) text += ", " + (side < 0 ? "any" : std::to_string(side));
  return text + ")";
}

/// An opened session and all that running it needs.
struct OpenNetwork {
  OrtLibrary library;
  Log log;  // the session's logger points to it
  Graph graph;
  OrtOwned<OrtEnv> env{nullptr, nullptr};
  OrtOwned<OrtSession> session{nullptr, nullptr};
  OrtOwned<OrtMemoryInfo> memory{nullptr, nullptr};
  std::vector<const char*> output_names;

  const OrtApi& api() const { return *library.api; }
};

/// One input or output of a session.
struct Port {
  std::string name;
  bool is_float_tensor = false;
  Shape shape;  // -1 where the graph leaves a side open
};

class PortReader {
 public:
  explicit PortReader(const OpenNetwork& network) : network_(network) {
    check(network.api().GetAllocatorWithDefaultOptions(&allocator_));
  }

  std::vector<Port> inputs() const {
    const OrtApi& api = network_.api();
    return ports(api.SessionGetInputCount, api.SessionGetInputName, api.SessionGetInputTypeInfo);
  }
  std::vector<Port> outputs() const {
    const OrtApi& api = network_.api();
    return ports(api.SessionGetOutputCount, api.SessionGetOutputName, api.SessionGetOutputTypeInfo);
  }

 private:
  void check(OrtStatus* status) const {
    check_ort(
        network_.api(), status, KAD_ERROR_ONNXRUNTIME,
        "%s: ONNX Runtime does not tell the inputs and outputs (if memory ran out, free some)",
        network_.graph.file.c_str());
  }

  template <class Count, class Name, class Info>
  std::vector<Port> ports(Count count, Name name, Info info) const {
    const OrtSession* session = network_.session.get();
    std::vector<Port> found;
    size_t n = 0;
    check(count(session, &n));
    for (size_t i = 0; i < n; ++i) {
      Port port;
      port.name = take_text([&](char** made) { return name(session, i, allocator_, made); });
      const auto type =
          make_ort<OrtTypeInfo>(network_.api(), network_.api().ReleaseTypeInfo, "a type",
                                [&](OrtTypeInfo** made) { return info(session, i, made); });
      read_type(*type, &port);
      found.push_back(port);
    }
    return found;
  }

  template <class F>
  std::string take_text(F&& make) const {
    const OrtApi& api = network_.api();
    const auto free_text = [&](char* text) {
      if (OrtStatus* status = api.AllocatorFree(allocator_, text)) api.ReleaseStatus(status);
    };
    char* text = nullptr;
    check(make(&text));
    const std::unique_ptr<char, decltype(free_text)> owned(text, free_text);
    return text;
  }

  void read_type(const OrtTypeInfo& type, Port* port) const {
    const OrtApi& api = network_.api();
    const OrtTensorTypeAndShapeInfo* tensor = nullptr;
    ONNXTensorElementDataType element = ONNX_TENSOR_ELEMENT_DATA_TYPE_UNDEFINED;
    size_t rank = 0;
    check(api.CastTypeInfoToTensorInfo(&type, &tensor));
    if (tensor == nullptr) return;
    check(api.GetTensorElementType(tensor, &element));
    check(api.GetDimensionsCount(tensor, &rank));
    port->is_float_tensor = element == ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT;
    port->shape.resize(rank);
    check(api.GetDimensions(tensor, port->shape.data(), rank));
  }

  const OpenNetwork& network_;
  OrtAllocator* allocator_ = nullptr;
};

void check_port(const Graph& graph, const std::vector<Port>& ports, size_t i,
                const std::string& name, const Shape& sides) {
  const Port given = i < ports.size() ? ports[i] : Port();
  const bool fits = given.is_float_tensor && given.name == name &&
                    given.shape.size() == sides.size() + 1 &&
                    std::equal(sides.begin(), sides.end(), given.shape.begin() + 1);
  if (fits) return;
  const Shape rest(given.shape.begin() + (given.shape.empty() ? 0 : 1), given.shape.end());
  fail(KAD_ERROR_ARTIFACT_NETWORK,
       "%s: expected %s float32 by the manifest, got %s%s; export the artifact again",
       graph.file.c_str(), to_text(name, sides).c_str(),
       i < ports.size() ? to_text(given.name, rest).c_str() : "none",
       i < ports.size() && !given.is_float_tensor ? " of another type" : "");
}

void check_batch(const Graph& graph, const Port& port) {
  if (port.shape[0] < 0) return;
  fail(KAD_ERROR_ARTIFACT_NETWORK,
       "%s: '%s': expected a dynamic batch size, got %lld; export the artifact again",
       graph.file.c_str(), port.name.c_str(), static_cast<long long>(port.shape[0]));
}

// The graph takes and gives what the manifest says.
void check_ports(const OpenNetwork& network) {
  const Graph& graph = network.graph;
  const PortReader reader(network);
  const std::vector<Port> inputs = reader.inputs();
  const std::vector<Port> outputs = reader.outputs();
  if (inputs.size() != 1 || outputs.size() != graph.outputs.size()) {
    fail(KAD_ERROR_ARTIFACT_NETWORK,
         "%s: expected 1 input and %zu outputs by the manifest, got %zu and %zu; export the "
         "artifact again",
         graph.file.c_str(), graph.outputs.size(), inputs.size(), outputs.size());
  }
  const int64_t side = graph.dynamic ? -1 : graph.tile;
  check_port(graph, inputs, 0, graph.input, {3, side, side});
  check_batch(graph, inputs[0]);
  for (size_t i = 0; i < graph.outputs.size(); ++i) {
    const Shape sides = sides_of(graph.outputs[i], graph.dynamic);
    check_port(graph, outputs, i, graph.outputs[i].name, sides);
    check_batch(graph, outputs[i]);
  }
}

class OnnxRun : public NetworkRun {
 public:
  explicit OnnxRun(std::shared_ptr<const OpenNetwork> network)
      : network_(std::move(network)),
        options_(make_ort<OrtRunOptions>(
            api(), api().ReleaseRunOptions, "the options of a run",
            [&](OrtRunOptions** made) { return api().CreateRunOptions(made); })) {
    const Graph& graph = network_->graph;
    shapes_.push_back({0, 3, graph.tile, graph.tile});
    for (const GraphOutput& output : graph.outputs) {
      shapes_.push_back(sides_of(output));
      shapes_.back().insert(shapes_.back().begin(), 0);
    }
    for (size_t i = 0; i < shapes_.size(); ++i) owned_.emplace_back(nullptr, nullptr);
    values_.resize(shapes_.size());
  }

  void run(const float* tiles, int64_t n, float* const* outputs) override {
    for (Shape& shape : shapes_) shape[0] = n;
    run_shapes(tiles, outputs);
  }

  void run_window(const float* pixels, Size seen, const std::vector<Size>& sizes,
                  float* const* outputs) override {
    for (size_t i = 0; i < shapes_.size(); ++i) {
      const Size size = i == 0 ? seen : sizes[i - 1];
      shapes_[i] = {1, shapes_[i][1], size.height, size.width};
    }
    run_shapes(pixels, outputs);
  }

  void stop() noexcept override { release(api().RunOptionsSetTerminate(options_.get())); }
  void resume() noexcept override { release(api().RunOptionsUnsetTerminate(options_.get())); }

 private:
  void run_shapes(const float* tiles, float* const* outputs) {
    for (size_t i = 0; i < shapes_.size(); ++i) {
      owned_[i] = tensor(i == 0 ? const_cast<float*>(tiles) : outputs[i - 1], shapes_[i]);
      values_[i] = owned_[i].get();
    }
    const char* input_name = network_->graph.input.c_str();
    check_ort(
        api(),
        api().Run(network_->session.get(), options_.get(), &input_name, values_.data(), 1,
                  network_->output_names.data(), values_.size() - 1, values_.data() + 1),
        KAD_ERROR_NETWORK,
        "the network failed on a batch of %lld tiles (if memory ran out, use a smaller batch)",
        static_cast<long long>(shapes_[0][0]));
  }

  const OrtApi& api() const { return network_->api(); }

  // Neither of the two can fail on options that exist.
  void release(OrtStatus* status) noexcept {
    if (status != nullptr) api().ReleaseStatus(status);
  }

  OrtOwned<OrtValue> tensor(float* data, const Shape& shape) const {
    size_t values = 1;
    for (const int64_t side : shape) values *= static_cast<size_t>(side);
    return make_ort<OrtValue>(api(), api().ReleaseValue, "a tensor", [&](OrtValue** made) {
      return api().CreateTensorWithDataAsOrtValue(
          network_->memory.get(), data, values * sizeof(float), shape.data(), shape.size(),
          ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT, made);
    });
  }

  std::shared_ptr<const OpenNetwork> network_;
  OrtOwned<OrtRunOptions> options_;
  // The input and then each output, kept from batch to batch.
  std::vector<Shape> shapes_;
  std::vector<OrtOwned<OrtValue>> owned_;
  std::vector<OrtValue*> values_;
};

class OnnxNetwork : public Network {
 public:
  explicit OnnxNetwork(std::shared_ptr<const OpenNetwork> network) : network_(std::move(network)) {}
  std::unique_ptr<NetworkRun> make_run() const override {
    return std::make_unique<OnnxRun>(network_);
  }
  std::string version() const override { return network_->library.version; }

 private:
  std::shared_ptr<const OpenNetwork> network_;
};

/// A graph as it lies in its file.
struct GraphBytes {
  const uint8_t* data;
  size_t size;
};

// Gives the status of ONNX Runtime, for `check_ort`.
OrtStatus* make_session(OpenNetwork* network, GraphBytes bytes, const NetworkOptions& options,
                        const Engine& engine) {
  const OrtApi& api = network->api();
  const auto settings = make_session_options(api, options, network->graph, engine, &network->log);
  OrtSession* session = nullptr;
  OrtStatus* status = api.CreateSessionFromArray(network->env.get(), bytes.data, bytes.size,
                                                 settings.get(), &session);
  network->session = {session, api.ReleaseSession};
  return status;
}

// Whether the graph is at fault, by what ONNX Runtime says. Memory or threads that it does not get
// end as ORT_RUNTIME_EXCEPTION; but memory that runs out while a graph is read as ORT_FAIL, like
// much that is wrong with graphs, and with this text.
bool blames_graph(const OrtApi& api, const OrtStatus* status) {
  if (std::strstr(api.GetErrorMessage(status), "std::bad_alloc") != nullptr) return false;
  switch (api.GetErrorCode(status)) {
    case ORT_FAIL:
    case ORT_INVALID_ARGUMENT:
    case ORT_NO_MODEL:
    case ORT_INVALID_PROTOBUF:
    case ORT_NOT_IMPLEMENTED:
    case ORT_INVALID_GRAPH:
      return true;
    default:
      return false;
  }
}

void make_cpu_session(OpenNetwork* network, GraphBytes bytes, NetworkOptions options) {
  const OrtApi& api = network->api();
  const char* file = network->graph.file.c_str();
  options.provider = KAD_PROVIDER_CPU;
  OrtOwned<OrtStatus> failure(make_session(network, bytes, options, {}), api.ReleaseStatus);
  if (failure == nullptr) return;
  if (blames_graph(api, failure.get())) {
    check_ort(api, failure.release(), KAD_ERROR_ARTIFACT_NETWORK,
              "%s: cannot be read by ONNX Runtime; export the artifact again", file);
  }
  check_ort(api, failure.release(), KAD_ERROR_ONNXRUNTIME,
            "%s: ONNX Runtime cannot make a session of it with %d threads (if memory or threads "
            "ran out, free some, or give a smaller kad_detector_options.n_threads)",
            file, options.n_threads);
}

// Where a GPU's session cannot be made, either is at fault: the graph is when the CPU, too, cannot
// read it.
void make_gpu_session(OpenNetwork* network, GraphBytes bytes, const NetworkOptions& options) {
  const OrtApi& api = network->api();
  const bool tensorrt = options.provider == KAD_PROVIDER_TENSORRT;
  const Engine engine =
      tensorrt ? find_engine(options, network->graph, network->library.version) : Engine();
  OrtOwned<OrtStatus> failure(make_session(network, bytes, options, engine), api.ReleaseStatus);
  if (failure == nullptr) return tensorrt ? check_engine_taken(engine) : void();
  make_cpu_session(network, bytes, options);
  check_ort(api, failure.release(), KAD_ERROR_PROVIDER, "%s cannot run the network here",
            provider_name(options.provider));
}

void create_session(OpenNetwork* network, GraphBytes bytes, const NetworkOptions& options) {
  const OrtApi& api = network->api();
  network->env = make_ort<OrtEnv>(api, api.ReleaseEnv, "an environment", [&](OrtEnv** made) {
    return api.CreateEnv(ORT_LOGGING_LEVEL_FATAL, "kad", made);
  });
  network->memory = make_ort<OrtMemoryInfo>(
      api, api.ReleaseMemoryInfo, "a name for memory", [&](OrtMemoryInfo** made) {
        return api.CreateCpuMemoryInfo(OrtArenaAllocator, OrtMemTypeDefault, made);
      });
  const bool cpu = options.provider == KAD_PROVIDER_CPU;
  return cpu ? make_cpu_session(network, bytes, options)
             : make_gpu_session(network, bytes, options);
}

}  // namespace

std::unique_ptr<Network> open_onnx_network(const uint8_t* data, size_t size, const Graph& graph,
                                           const NetworkOptions& options) {
  auto network = std::make_shared<OpenNetwork>();
  network->library = open_onnxruntime(options.library);
  network->log = options.log;
  network->graph = graph;
  require_provider(network->library, options.provider);
  create_session(network.get(), {data, size}, options);
  for (const GraphOutput& output : network->graph.outputs) {
    network->output_names.push_back(output.name.c_str());
  }
  check_ports(*network);
  options.log.tell(KAD_LOG_INFO, "%s runs on %s, ONNX Runtime %s at %s, %d threads",
                   graph.file.c_str(), provider_name(options.provider),
                   network->library.version.c_str(), network->library.path.c_str(),
                   options.n_threads);
  return std::make_unique<OnnxNetwork>(std::move(network));
}

}  // namespace kad
