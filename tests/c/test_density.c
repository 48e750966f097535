// Density: small cases by hand, errors, and nothing written beside the output.
#include <math.h>

#include "check.h"

static kad_density gaussian(int64_t dims, const float* mean, const float* cholesky) {
  const kad_density density = {.struct_size = sizeof(kad_density),
                               .kind = KAD_DENSITY_GAUSSIAN,
                               .dims = dims,
                               .mean = mean,
                               .cholesky = cholesky};
  return density;
}

static kad_density kernel(int64_t dims, const float* samples, int64_t n, double bandwidth) {
  const kad_density density = {.struct_size = sizeof(kad_density),
                               .kind = KAD_DENSITY_KERNEL,
                               .dims = dims,
                               .samples = samples,
                               .n_samples = n,
                               .bandwidth = bandwidth};
  return density;
}

// L = [[2, 0], [1, 4]], x - mean = (4, 10): L y = x - mean gives y = (2, 2). What lies above the
// diagonal is not used.
static void test_mahalanobis(void) {
  const float mean[2] = {1.0F, -1.0F};
  const float cholesky[4] = {2.0F, 99.0F, 1.0F, 4.0F};
  const float embeddings[4] = {5.0F, 9.0F, 1.0F, -1.0F};
  const kad_density density = gaussian(2, mean, cholesky);
  for (int32_t threads = 1; threads <= 3; ++threads) {
    const banded out = banded_new(2 * sizeof(float));
    CHECK_OK(kad_density_score(&density, embeddings, 2, threads, banded_data(out)));
    const float* score = banded_data(out);
    CHECK(score[0] == (float)sqrt(8.0) && score[1] == 0.0F);
    banded_check_and_free(out);
  }
}

// Nothing above the diagonal of L is looked at; below it and on it every value must be finite.
static void test_triangle(void) {
  const float mean[2] = {0};
  const float embedding[2] = {2.0F, 4.0F};
  float cholesky[4] = {1.0F, NAN, 0.0F, 2.0F};
  float score = 0.0F;
  const kad_density density = gaussian(2, mean, cholesky);
  CHECK_OK(kad_density_score(&density, embedding, 1, 1, &score));
  CHECK(score == (float)sqrt(8.0));
  cholesky[2] = INFINITY;
  CHECK_FAILS(kad_density_score(&density, embedding, 1, 1, &score), KAD_ERROR_NOT_FINITE,
              "cholesky: row 1 holds NaN or Inf");
}

// One sample: its distance. Two at distances 3 and 5 from x, b = 2: by the formula. Far from all,
// where each term alone would underflow: the distance to the nearest, and a bit for the mean.
static void test_kernel(void) {
  const float samples[4] = {0.0F, 3.0F, 0.0F, -5.0F};
  const float embeddings[4] = {0.0F, 0.0F, 0.0F, 1e6F};
  float out[2] = {0};
  const kad_density one = kernel(2, samples, 1, 0.5);
  CHECK_OK(kad_density_score(&one, embeddings, 1, 1, out));
  CHECK(out[0] == 3.0F);
  const kad_density two = kernel(2, samples, 2, 2.0);
  CHECK_OK(kad_density_score(&two, embeddings, 2, 2, out));
  const double mean = (exp(-9.0 / 8.0) + exp(-25.0 / 8.0)) / 2.0;
  CHECK(fabs((double)out[0] - sqrt(-8.0 * log(mean))) < 1e-6);
  const double near = 1e6 - 3.0;
  CHECK(out[1] == (float)sqrt(near * near + 8.0 * log(2.0)));
}

static void test_errors(void) {
  const float one[1] = {1.0F};
  const float bad[2] = {1.0F, NAN};
  const float zero[1] = {0.0F};
  const float huge[1] = {3e38F};
  const float tiny[1] = {1e-30F};
  float out[2] = {0};
  kad_density density = gaussian(1, one, one);
  CHECK_OK(kad_density_score(&density, NULL, 0, 1, NULL));
  CHECK_INVALID(kad_density_score(NULL, one, 1, 1, out), "kad_density is NULL");
  CHECK_INVALID(kad_density_score(&density, NULL, 1, 1, out), "embeddings is NULL");
  CHECK_INVALID(kad_density_score(&density, one, 1, 1, NULL), "out_score is NULL");
  CHECK_INVALID(kad_density_score(&density, one, -1, 1, out), "n ");
  CHECK_INVALID(kad_density_score(&density, one, 1, 0, out), "n_threads must be at least 1");
  CHECK_FAILS(kad_density_score(&density, bad, 2, 1, out), KAD_ERROR_NOT_FINITE,
              "embeddings: row 1 holds NaN or Inf");
  density.kind = 2;
  CHECK_INVALID(kad_density_score(&density, one, 1, 1, out), "kind must be one of");
  density = gaussian(0, one, one);
  CHECK_INVALID(kad_density_score(&density, one, 1, 1, out), "dims must be at least 1, got 0");
  density = gaussian(1, NULL, one);
  CHECK_INVALID(kad_density_score(&density, one, 1, 1, out), "density->mean is NULL");
  density = gaussian(1, bad + 1, one);
  CHECK_FAILS(kad_density_score(&density, one, 1, 1, out), KAD_ERROR_NOT_FINITE, "mean: row 0");
  density = gaussian(1, one, zero);
  CHECK_INVALID(kad_density_score(&density, one, 1, 1, out), "the diagonal must be above 0, got 0");
  density = gaussian(1, one, tiny);
  CHECK_FAILS(kad_density_score(&density, huge, 1, 1, out), KAD_ERROR_NOT_FINITE,
              "does not fit float32");
  density = kernel(1, one, 0, 1.0);
  CHECK_INVALID(kad_density_score(&density, one, 1, 1, out), "n_samples must be at least 1");
  density = kernel(1, bad, 2, 1.0);
  CHECK_FAILS(kad_density_score(&density, one, 1, 1, out), KAD_ERROR_NOT_FINITE, "samples: row 1");
  const double bandwidths[4] = {0.0, -1.0, NAN, 1e-200};
  for (int i = 0; i < 4; ++i) {
    density = kernel(1, one, 1, bandwidths[i]);
    CHECK_INVALID(kad_density_score(&density, one, 1, 1, out), "bandwidth must be above 0");
  }
}

int main(void) {
  test_mahalanobis();
  test_triangle();
  test_kernel();
  test_errors();
  return check_result();
}
