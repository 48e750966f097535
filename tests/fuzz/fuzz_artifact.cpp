// A manifest and a tensor file, hashes aside: what passes all checks is safe to score with. The
// input is the length of the manifest in 4 bytes, the manifest, and a safetensors file that stands
// for each of the artifact's.
#include <cstdlib>
#include <cstring>
#include <vector>

#include "base/guard.hpp"
#include "runtime/artifact_layout.hpp"

namespace {

// The tensors of a layout, or none.
kad::Tensors read(const std::vector<uint8_t>& data, const kad::TensorLayouts& layout) {
  kad::Tensors tensors = kad::parse_tensors(data.data(), data.size(), "x.safetensors");
  kad::check_tensors(tensors, layout, "x.safetensors");
  return tensors;
}

void use_bank(const kad::Tensors& bank, const kad::Manifest& manifest) {
  kad::check_bank(bank, manifest, "x.safetensors");
  const kad::Tensor& neighbors = bank.at("neighbors");
  for (int64_t i = 0; i < neighbors.count(); ++i) {
    const int64_t row = neighbors.longs()[i];
    if (row < 0 || row >= manifest.bank.rows) std::abort();
  }
  const auto n_images = static_cast<int64_t>(manifest.bank.images.size());
  for (int64_t i = 0; i < manifest.bank.rows; ++i) {
    const int32_t image = bank.at("source_image").ints()[i];
    if (image < 0 || image >= n_images) std::abort();
  }
}

void use_density(const kad::Tensors& density, const kad::Manifest& manifest) {
  kad::check_density(density, manifest, "x.safetensors");
  if (manifest.density.kind != KAD_DENSITY_GAUSSIAN) return;
  const int64_t n = manifest.cutpaste.embedding_dims;
  const float* cholesky = density.at("cholesky").floats();
  for (int64_t i = 0; i < n; ++i) {
    if (!(cholesky[i * n + i] > 0.0F)) std::abort();  // it is divided by
  }
}

void check(const kad::Manifest& manifest, const std::vector<uint8_t>& data) {
  if (manifest.method == kad::Method::patchcore) {
    use_bank(read(data, kad::bank_layout(manifest)), manifest);
  } else {
    use_density(read(data, kad::density_layout(manifest)), manifest);
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  uint32_t length = 0;
  if (size < sizeof(length)) return 0;
  std::memcpy(&length, data, sizeof(length));
  if (length > size - sizeof(length)) return 0;
  const uint8_t* text = data + sizeof(length);
  const std::vector<uint8_t> tensors(text + length, data + size);  // aligned as a mapping is
  try {
    const kad::Manifest manifest =
        kad::read_manifest({reinterpret_cast<const char*>(text), length}, "manifest.json");
    check(manifest, tensors);
    read(tensors, kad::golden_layout(manifest));
  } catch (const kad::Error& error) {
    if (error.text[0] == '\0') std::abort();
  }
  return 0;
}
