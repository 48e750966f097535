#include "runtime/tensorrt.hpp"

#include <dirent.h>
#include <dlfcn.h>
#include <sys/stat.h>

#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <memory>

#include "base/guard.hpp"
#include "runtime/fields.hpp"
#include "runtime/json.hpp"

namespace kad {
namespace {

constexpr const char* kDriver = "libcuda.so.1";
constexpr const char* kTensorRt[] = {"libnvinfer.so.10", "libnvinfer.so.11"};
constexpr const char* kRecord = "engine.json";
constexpr size_t kRecordLimit = 1 << 20;  // bytes
constexpr int64_t kMostTiles = 1 << 20;
constexpr int kMajorAttribute = 75;  // CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_*
constexpr int kMinorAttribute = 76;

/// What an engine is bound to.
struct Machine {
  std::string gpu;
  std::string capability;
  std::string tensorrt;
  std::string onnxruntime;
};

template <class Function>
Function* symbol_of(void* library, const char* name) {
  return reinterpret_cast<Function*>(dlsym(library, name));
}

std::string text_of_dlerror() {
  const char* text = dlerror();
  return text == nullptr ? "unknown error" : text;
}

// Both libraries stay open: ONNX Runtime uses them next.
std::string tensorrt_version() {
  std::string reasons;
  for (const char* name : kTensorRt) {
    if (void* library = dlopen(name, RTLD_NOW | RTLD_GLOBAL)) {
      const auto version = symbol_of<int32_t()>(library, "getInferLibVersion");
      if (version == nullptr) {
        fail(KAD_ERROR_PROVIDER, "%s is not TensorRT: it has no getInferLibVersion", name);
      }
      const int32_t number = version();
      return std::to_string(number / 10000) + "." + std::to_string(number / 100 % 100) + "." +
             std::to_string(number % 100);
    }
    reasons += (reasons.empty() ? "" : "; ") + text_of_dlerror();
  }
  fail(KAD_ERROR_PROVIDER,
       "TensorRT is missing here: %s cannot be loaded (%s); put the TensorRT that ONNX Runtime was "
       "built with on the loader's path, or use another provider",
       kTensorRt[0], reasons.c_str());
}

class Driver {
 public:
  explicit Driver(int32_t device_id) : device_id_(device_id) {
    library_ = dlopen(kDriver, RTLD_NOW | RTLD_LOCAL);
    if (library_ == nullptr) {
      fail(KAD_ERROR_PROVIDER,
           "%s cannot be loaded (%s): NVIDIA's driver is missing here; install it and look at "
           "nvidia-smi, or use KAD_PROVIDER_CPU",
           kDriver, text_of_dlerror().c_str());
    }
    call<unsigned>("cuInit", 0U);
    call<int*, int>("cuDeviceGet", &device_, device_id);
  }

  std::string name() const {
    char text[256] = {};
    call<char*, int, int>("cuDeviceGetName", text, sizeof(text), device_);
    return text;
  }

  std::string capability() const {
    return std::to_string(attribute(kMajorAttribute)) + "." +
           std::to_string(attribute(kMinorAttribute));
  }

 private:
  int attribute(int which) const {
    int value = 0;
    call<int*, int, int>("cuDeviceGetAttribute", &value, which, device_);
    return value;
  }

  template <class... Types>
  void call(const char* name, Types... arguments) const {
    const auto function = symbol_of<int(Types...)>(library_, name);
    const int status = function == nullptr ? -1 : function(arguments...);
    if (status == 0) return;
    const char* reason = "it has no such function";
    const auto describe = symbol_of<int(int, const char**)>(library_, "cuGetErrorString");
    if (function != nullptr && (describe == nullptr || describe(status, &reason) != 0)) {
      reason = "unknown error";
    }
    fail(KAD_ERROR_PROVIDER,
         "GPU %d: the driver says to %s: %s; look at nvidia-smi and CUDA_VISIBLE_DEVICES, or give "
         "another kad_detector_options.device_id",
         device_id_, name, reason);
  }

  int32_t device_id_;
  void* library_ = nullptr;
  int device_ = 0;
};

Machine find_machine(int32_t device_id, const std::string& onnxruntime_version) {
  const std::string version = tensorrt_version();
  const Driver driver(device_id);
  return {driver.name(), driver.capability(), version, onnxruntime_version};
}

// The name of the folder of its engines, as Machine.key of kad_sdk/tensorrt.py.
std::string key_of(const Machine& machine) {
  std::string gpu, capability;
  for (const char given : machine.gpu) {
    const char small = given >= 'A' && given <= 'Z' ? static_cast<char>(given - 'A' + 'a') : given;
    const bool plain = (small >= 'a' && small <= 'z') || (small >= '0' && small <= '9');
    if (plain) gpu += small;
    if (!plain && !gpu.empty() && gpu.back() != '-') gpu += '-';
  }
  if (!gpu.empty() && gpu.back() == '-') gpu.pop_back();
  for (const char digit : machine.capability) {
    if (digit != '.') capability += digit;
  }
  return (gpu.empty() ? "gpu" : gpu) + "-sm" + capability + "-trt" + machine.tensorrt + "-ort" +
         machine.onnxruntime;
}

std::string variable(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

std::string default_cache_folder() {
  std::string cache = variable("XDG_CACHE_HOME");
  if (cache.empty()) {
    const std::string home = variable("HOME");
    if (home.empty()) {
      fail(KAD_ERROR_PROVIDER,
           "cache_folder: TensorRT's engines are kept in a folder, and neither XDG_CACHE_HOME nor "
           "HOME is set; give one in kad_detector_options.cache_folder");
    }
    cache = home + "/.cache";
  }
  return cache + "/kad/tensorrt";
}

bool ends_with(const std::string& text, const std::string& end) {
  return text.size() >= end.size() && text.compare(text.size() - end.size(), end.size(), end) == 0;
}

// Engines and profiles in a folder; none where there is no folder.
std::map<std::string, Engine::Stamp> stamps(const std::string& folder) {
  std::map<std::string, Engine::Stamp> found;
  const std::unique_ptr<DIR, int (*)(DIR*)> listing(opendir(folder.c_str()), closedir);
  if (listing == nullptr) return found;
  while (const dirent* entry = readdir(listing.get())) {
    const std::string name = entry->d_name;
    struct stat about = {};
    if (!ends_with(name, ".engine") && !ends_with(name, ".profile")) continue;
    if (stat((folder + "/" + name).c_str(), &about) != 0) continue;
    found[name] = {about.st_size,
                   int64_t{about.st_mtim.tv_sec} * 1'000'000'000 + about.st_mtim.tv_nsec};
  }
  return found;
}

std::string read_record(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::string text;
  if (!file) return text;
  text.resize(kRecordLimit + 1);
  file.read(text.data(), static_cast<std::streamsize>(text.size()));
  text.resize(static_cast<size_t>(file.gcount()));
  return text;
}

void expect(bool holds) {
  if (!holds) throw SchemaError("the record is of something else");
}

// Raises SchemaError where it is not the record of this graph on this machine. Returns the batch.
int64_t check_record(Fields record, const Machine& machine, const Graph& graph,
                     const NetworkOptions& options, const Engine& engine) {
  expect(record.text("format") == "kad-tensorrt-engine" && record.integer("version", 1, 1) == 1);
  Fields of = record.object("machine");
  expect(of.text("gpu") == machine.gpu && of.text("capability") == machine.capability);
  expect(of.text("tensorrt") == machine.tensorrt);
  expect(of.text("onnxruntime") == machine.onnxruntime);
  of.end();
  expect(record.text("graph") == options.graph_sha256.substr(0, 32));
  expect(record.text("precision") == options.precision);
  const std::vector<Item> input = record.list("input", 4);
  const int64_t sides[] = {3, graph.tile, graph.tile};
  expect(read_text(input[0].value, input[0].path) == graph.input);
  for (size_t i = 1; i < 4; ++i) {
    expect(read_integer(input[i].value, input[i].path, 1) == sides[i - 1]);
  }
  bool has_engine = false;
  for (const json::Value::Member& member : record.mapping("files")) {
    const auto file = engine.files.find(member.key);
    expect(file != engine.files.end());
    expect(read_integer(member.value, member.key, 0) == file->second.first);
    has_engine |= ends_with(member.key, ".engine");
  }
  expect(has_engine);
  const int64_t batch = record.integer("batch", 1, kMostTiles);
  record.end();
  return batch;
}

// The largest batch that the engine in the folder takes; 0: there is none that is whole.
int64_t recorded_batch(const Machine& machine, const Graph& graph, const NetworkOptions& options,
                       const Engine& engine) {
  const std::string text = read_record(engine.folder + "/" + kRecord);
  if (text.empty() || text.size() > kRecordLimit) return 0;
  try {
    const json::Document document(text);
    return check_record(Fields(document.root(), "", false), machine, graph, options, engine);
  } catch (const json::Error&) {
    return 0;
  } catch (const SchemaError&) {
    return 0;
  }
}

}  // namespace

Engine find_engine(const NetworkOptions& options, const Graph& graph,
                   const std::string& onnxruntime_version) {
  if (options.precision == "int8") {
    fail(KAD_ERROR_PROVIDER,
         "KAD_PROVIDER_TENSORRT: the artifact's network is int8 with unsigned activations, as "
         "processors want it, and TensorRT takes signed ones with zero points of 0 alone; export "
         "with --precision fp16 for TensorRT, or use KAD_PROVIDER_CPU");
  }
  const std::string cache =
      options.cache_folder.empty() ? default_cache_folder() : options.cache_folder;
  const Machine machine = find_machine(options.device_id, onnxruntime_version);
  Engine engine;
  engine.timing_folder = cache + "/" + key_of(machine);
  engine.folder = engine.timing_folder + "/" + options.graph_sha256.substr(0, 32);
  engine.files = stamps(engine.folder);
  engine.batch = recorded_batch(machine, graph, options, engine);
  if (engine.batch >= options.max_batch) return engine;
  const std::string found = engine.batch == 0 ? "there is none"
                                              : "the one that is there is for batches up to " +
                                                    std::to_string(engine.batch);
  fail(KAD_ERROR_PROVIDER,
       "%s: an engine of %s for batches of %lld tiles is needed, and %s; libkad builds none, which "
       "takes minutes: run kad-export tensorrt ARTIFACT --batch %lld on this machine",
       engine.folder.c_str(), graph.file.c_str(), static_cast<long long>(options.max_batch),
       found.c_str(), static_cast<long long>(options.max_batch));
}

void check_engine_taken(const Engine& engine) {
  if (stamps(engine.folder) == engine.files) return;
  fail(KAD_ERROR_PROVIDER,
       "%s: TensorRT has not taken the engine that is there, and has built another; build it anew "
       "with kad-export tensorrt --force",
       engine.folder.c_str());
}

}  // namespace kad
