#include "runtime/artifact_layout.hpp"

#include <algorithm>

#include "base/guard.hpp"

namespace kad {
namespace {

void check_factor(const Tensor& factor, const std::string& where) {
  const int64_t n = factor.shape[0];
  for (int64_t row = 0; row < n; ++row) {
    const float* values = factor.floats() + row * n;
    if (!(values[row] > 0.0F)) {
      fail(KAD_ERROR_ARTIFACT_TENSORS,
           "%s: expected a diagonal above 0, got %g in row %lld; export the artifact again",
           where.c_str(), static_cast<double>(values[row]), static_cast<long long>(row));
    }
    const float* above = std::find_if(values + row + 1, values + n, [](float v) { return v != 0; });
    if (above != values + n) {
      fail(KAD_ERROR_ARTIFACT_TENSORS,
           "%s: expected a lower triangle, got %g in row %lld, column %lld; export the artifact "
           "again",
           where.c_str(), static_cast<double>(*above), static_cast<long long>(row),
           static_cast<long long>(above - values));
    }
  }
}

}  // namespace

TensorLayouts bank_layout(const Manifest& manifest) {
  const BankSettings& bank = manifest.bank;
  const int64_t columns = std::min(kMaxNeighbors, bank.rows - 1);
  return {{"bank", {Dtype::f32, {bank.rows, bank.dims}}},
          {"neighbors", {Dtype::i64, {bank.rows, columns}}},
          {"source_image", {Dtype::i32, {bank.rows}}},
          {"source_xy", {Dtype::i32, {bank.rows, 2}}}};
}

TensorLayouts index_layout() { return {{"index", {Dtype::u8, {kAnyLength}}}}; }

TensorLayouts density_layout(const Manifest& manifest) {
  const int64_t dims = manifest.cutpaste.embedding_dims;
  if (manifest.density.kind == KAD_DENSITY_KERNEL) {
    return {{"samples", {Dtype::f32, {kAnyLength, dims}}}};
  }
  return {{"mean", {Dtype::f32, {dims}}}, {"cholesky", {Dtype::f32, {dims, dims}}}};
}

TensorLayouts golden_layout(const Manifest& manifest) {
  const int64_t n = manifest.golden.count;
  const int64_t tile = manifest.preprocessing.tile;
  TensorLayouts layout = {{"tiles", {Dtype::u8, {n, tile, tile, 3}}},
                          {"score", {Dtype::f32, {n}}},
                          {"anomalous", {Dtype::u8, {n}}}};
  if (manifest.method == Method::patchcore) {
    const Size grid = manifest.patchcore.grid;
    layout["dist"] = {Dtype::f32, {n, int64_t{grid.height} * grid.width}};
    const auto& outputs = manifest.patchcore.outputs;
    for (size_t i = 0; i < outputs.size(); ++i) {
      layout["base_map_" + std::to_string(i)] = {
          Dtype::f32, {n, outputs[i].channels, outputs[i].height, outputs[i].width}};
    }
    return layout;
  }
  const CutPasteSettings& cutpaste = manifest.cutpaste;
  layout["logits"] = {Dtype::f32, {n, cutpaste.classes}};
  layout["embedding"] = {Dtype::f32, {n, cutpaste.embedding_dims}};
  if (cutpaste.grad_cam) {
    layout["cam"] = {Dtype::f32, {n, cutpaste.map_grid.height, cutpaste.map_grid.width}};
  }
  return layout;
}

void check_bank(const Tensors& bank, const Manifest& manifest, const std::string& where) {
  check_indices(bank.at("neighbors"), manifest.bank.rows, where + ": tensor 'neighbors'");
  check_indices(bank.at("source_image"), static_cast<int64_t>(manifest.bank.images.size()),
                where + ": tensor 'source_image'");
}

void check_density(const Tensors& density, const Manifest& manifest, const std::string& where) {
  if (manifest.density.kind == KAD_DENSITY_GAUSSIAN) {
    check_factor(density.at("cholesky"), where + ": tensor 'cholesky'");
    return;
  }
  const int64_t rows = density.at("samples").shape[0];
  if (rows < 1 || rows > manifest.density.samples) {
    fail(KAD_ERROR_ARTIFACT_TENSORS,
         "%s: tensor 'samples': expected 1 to %lld rows, as many as the density was fitted on at "
         "the most, got %lld; export the artifact again",
         where.c_str(), static_cast<long long>(manifest.density.samples),
         static_cast<long long>(rows));
  }
}

}  // namespace kad
