// The caller's own engine behind a callback.
#include <utility>
#include <vector>

#include "base/guard.hpp"
#include "runtime/network.hpp"

namespace kad {
namespace {

class CallerRun : public NetworkRun {
 public:
  CallerRun(kad_network_fn function, void* context, const Graph& graph)
      : function_(function), context_(context), tile_(graph.tile) {
    for (const GraphOutput& output : graph.outputs) {
      outputs_.push_back(
          {output.name.c_str(), output.channels, output.height, output.width, nullptr});
    }
  }

  void run(const float* tiles, int64_t n, float* const* outputs) override {
    kad_network_batch batch = {};
    batch.tile = batch.height = batch.width = tile_;
    batch.n_tiles = n;
    batch.tiles = tiles;
    run_batch(batch, outputs);
  }

  void run_window(const float* pixels, Size seen, const std::vector<Size>& sizes,
                  float* const* outputs) override {
    for (size_t i = 0; i < outputs_.size(); ++i) {
      outputs_[i].height = sizes[i].height;
      outputs_[i].width = sizes[i].width;
    }
    kad_network_batch batch = {};
    batch.height = seen.height;
    batch.width = seen.width;
    batch.n_tiles = 1;
    batch.tiles = pixels;
    run_batch(batch, outputs);
  }

  void stop() noexcept override {}
  void resume() noexcept override {}

 private:
  void run_batch(kad_network_batch batch, float* const* outputs) {
    for (size_t i = 0; i < outputs_.size(); ++i) outputs_[i].data = outputs[i];
    batch.struct_size = sizeof(batch);
    batch.outputs = outputs_.data();
    batch.n_outputs = static_cast<int64_t>(outputs_.size());
    const kad_status status = function_(context_, &batch);
    if (status == KAD_ERROR_CANCELLED) fail(status, "the caller's network cancelled the call");
    if (status != KAD_OK) {
      fail(KAD_ERROR_NETWORK, "the caller's network returned %d (%s) for a batch of %lld tiles",
           status, kad_status_name(status), static_cast<long long>(batch.n_tiles));
    }
  }

  kad_network_fn function_;
  void* context_;
  int32_t tile_;
  std::vector<kad_network_output> outputs_;  // names belong to the graph, which outlives this
};

class CallerNetwork : public Network {
 public:
  CallerNetwork(kad_network_fn function, void* context, Graph graph)
      : function_(function), context_(context), graph_(std::move(graph)) {}

  std::unique_ptr<NetworkRun> make_run() const override {
    return std::make_unique<CallerRun>(function_, context_, graph_);
  }
  std::string version() const override { return ""; }

 private:
  kad_network_fn function_;
  void* context_;
  Graph graph_;
};

}  // namespace

std::unique_ptr<Network> make_caller_network(kad_network_fn function, void* context,
                                             const Graph& graph) {
  return std::make_unique<CallerNetwork>(function, context, graph);
}

}  // namespace kad
