// Banks and queries that are hard on a search with bounds. The families of tests/fuzz, as far as
// bounds care for their difference.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <random>
#include <vector>

namespace families {

struct Data {
  int64_t rows, dims, n;
  std::vector<float> bank;     // (rows, dims)
  std::vector<float> queries;  // (n, dims)
};

class Generator {
 public:
  explicit Generator(uint64_t seed) : bits_(seed) {}

  double normal() { return normal_(bits_); }
  double uniform(double low, double high) { return low + (high - low) * unit_(bits_); }
  double power(double low, double high) { return std::pow(10.0, uniform(low, high)); }
  int64_t below(int64_t n) { return std::uniform_int_distribution<int64_t>(0, n - 1)(bits_); }

 private:
  std::mt19937_64 bits_;
  std::normal_distribution<double> normal_;
  std::uniform_real_distribution<double> unit_;
};

inline float in_range(double value) {
  return static_cast<float>(std::clamp(value, -3.4e38, 3.4e38));
}

inline float* row_of(std::vector<float>& values, int64_t dims, int64_t r) {
  return values.data() + static_cast<std::ptrdiff_t>(r * dims);
}

/// Points near a curved surface of 6 dimensions, as features of images are.
inline Data curved(Generator& random, int64_t rows, int64_t dims, int64_t n) {
  constexpr int64_t kIntrinsic = 6;
  std::vector<double> bend(static_cast<size_t>(kIntrinsic * dims));
  for (double& value : bend) value = random.normal();
  const auto fill = [&](std::vector<float>& out, int64_t count) {
    out.resize(static_cast<size_t>(count * dims));
    for (int64_t r = 0; r < count; ++r) {
      double point[kIntrinsic];
      for (double& value : point) value = random.normal();
      for (int64_t d = 0; d < dims; ++d) {
        double sum = 0.0;
        for (int64_t i = 0; i < kIntrinsic; ++i) {
          sum += point[i] * bend[static_cast<size_t>(i * dims + d)];
        }
        row_of(out, dims, r)[d] = static_cast<float>(std::tanh(sum) + 0.05 * random.normal());
      }
    }
  };
  Data data = {rows, dims, n, {}, {}};
  fill(data.bank, rows);
  fill(data.queries, n);
  return data;
}

inline void uniform(Generator& random, Data& data) {
  for (float& value : data.bank) value = static_cast<float>(random.uniform(0, 1));
  for (float& value : data.queries) value = static_cast<float>(random.uniform(0, 1));
}

/// Each row many times; half of the queries are rows.
inline void duplicates(Generator& random, Data& data) {
  for (int64_t r = 20; r < data.rows; ++r) {
    std::copy_n(row_of(data.bank, data.dims, random.below(20)), data.dims,
                row_of(data.bank, data.dims, r));
  }
  for (int64_t q = 0; q < data.n; q += 2) {
    std::copy_n(row_of(data.bank, data.dims, random.below(data.rows)), data.dims,
                row_of(data.queries, data.dims, q));
  }
}

inline void outlier(Generator& random, Data& data) {
  const double far = random.power(1, 20);
  float *row = row_of(data.bank, data.dims, random.below(data.rows)), *query = data.queries.data();
  for (int64_t d = 0; d < data.dims; ++d) {
    row[d] = in_range(far * static_cast<double>(row[d]));
    query[d] = in_range(far * static_cast<double>(query[d]));
  }
}

inline void scale_all(Data& data, double factor) {
  for (float& value : data.bank) value = in_range(factor * static_cast<double>(value));
  for (float& value : data.queries) value = in_range(factor * static_cast<double>(value));
}

inline void huge(Generator& random, Data& data) { scale_all(data, random.power(12, 38.5)); }
inline void tiny(Generator& random, Data& data) { scale_all(data, random.power(-45, -10)); }

/// Rows of very different length.
inline void every_scale(Generator& random, Data& data) {
  for (int64_t r = 0; r < data.rows; ++r) {
    const double factor = random.power(-10, 10);
    float* row = row_of(data.bank, data.dims, r);
    for (int64_t d = 0; d < data.dims; ++d) row[d] = in_range(factor * static_cast<double>(row[d]));
  }
}

/// Rows one unit in the last place from a few of them.
inline void near_ties(Generator& random, Data& data) {
  duplicates(random, data);
  for (int64_t r = 0; r < data.rows; ++r) {
    for (int i = 0; i < 3; ++i) {
      float& value = row_of(data.bank, data.dims, r)[random.below(data.dims)];
      value = std::nextafter(value, random.below(2) == 0 ? -9.0F : 9.0F);
    }
  }
}

/// Queries that differ from a row along one leading direction only, so that coordinates tell all of
/// their distance: bounds are as tight as they get.
inline void along(Generator& random, Data& data) {
  std::vector<double> way(static_cast<size_t>(data.dims));
  for (double& value : way) value = random.normal();
  for (int64_t r = 0; r < data.rows; ++r) {
    const double step = 30.0 * random.normal();
    float* row = row_of(data.bank, data.dims, r);
    for (int64_t d = 0; d < data.dims; ++d) {
      row[d] = in_range(0.1 * static_cast<double>(row[d]) + step * way[static_cast<size_t>(d)]);
    }
  }
  for (int64_t q = 0; q < data.n; ++q) {
    const double step = random.power(-3, 3);
    const float* row = row_of(data.bank, data.dims, random.below(data.rows));
    float* query = row_of(data.queries, data.dims, q);
    for (int64_t d = 0; d < data.dims; ++d) {
      query[d] = in_range(static_cast<double>(row[d]) + step * way[static_cast<size_t>(d)]);
    }
  }
}

/// Rows on a sphere around the first query.
inline void shell(Generator& random, Data& data) {
  const double radius = random.power(-3, 1);
  for (int64_t r = 0; r < data.rows; ++r) {
    float* row = row_of(data.bank, data.dims, r);
    double norm2 = 0.0;
    for (int64_t d = 0; d < data.dims; ++d) {
      row[d] = static_cast<float>(random.normal());
      norm2 += static_cast<double>(row[d]) * static_cast<double>(row[d]);
    }
    const double factor = radius / std::sqrt(norm2);
    for (int64_t d = 0; d < data.dims; ++d) {
      row[d] = static_cast<float>(static_cast<double>(data.queries[static_cast<size_t>(d)]) +
                                  factor * static_cast<double>(row[d]));
    }
  }
}

inline void lattice(Generator& random, Data& data) {
  for (float& value : data.bank) value = static_cast<float>(random.below(5) - 2);
  for (float& value : data.queries) value = static_cast<float>(random.below(5) - 2);
}

/// All of the bank in one dimension, and every other query.
inline void line(Generator& random, Data& data) {
  const int64_t axis = random.below(data.dims);
  const auto keep = [&](float* row) {
    for (int64_t d = 0; d < data.dims; ++d) row[d] = d == axis ? row[d] : 0.0F;
  };
  for (int64_t r = 0; r < data.rows; ++r) keep(row_of(data.bank, data.dims, r));
  for (int64_t q = 0; q < data.n; q += 2) keep(row_of(data.queries, data.dims, q));
}

/// Centring takes most of the digits.
inline void far_from_the_origin(Generator& random, Data& data) {
  const double offset = random.power(1, 7);
  for (float& value : data.bank) value = static_cast<float>(offset + static_cast<double>(value));
  for (float& value : data.queries) value = static_cast<float>(offset + static_cast<double>(value));
}

inline void nothing(Generator&, Data&) {}

struct Family {
  const char* name;
  void (*change)(Generator& random, Data& data);  // of data that lie near a curved surface
};

constexpr Family kFamilies[] = {
    {"curved", nothing},
    {"uniform", uniform},
    {"duplicates", duplicates},
    {"outlier", outlier},
    {"huge", huge},
    {"tiny", tiny},
    {"every scale", every_scale},
    {"near ties", near_ties},
    {"along", along},
    {"shell", shell},
    {"lattice", lattice},
    {"line", line},
    {"far from the origin", far_from_the_origin},
};

inline Data make(const Family& family, uint64_t seed, int64_t rows, int64_t dims, int64_t n) {
  Generator random(seed);
  Data data = curved(random, rows, dims, n);
  family.change(random, data);
  return data;
}

}  // namespace families
