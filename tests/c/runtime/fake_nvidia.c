// NVIDIA's driver and TensorRT, as far as libkad and kad_sdk ask them what is there: two GPUs.
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define EXPORTED __attribute__((visibility("default")))

EXPORTED int32_t getInferLibVersion(void);
EXPORTED int cuInit(unsigned flags);
EXPORTED int cuDeviceGet(int* device, int number);
EXPORTED int cuDeviceGetName(char* name, int size, int device);
EXPORTED int cuDeviceGetAttribute(int* value, int attribute, int device);
EXPORTED int cuGetErrorString(int error, const char** text);

enum { FIRST_DEVICE = 40, NO_DEVICE = 100, INVALID_DEVICE = 101, MAJOR = 75, MINOR = 76 };

int32_t getInferLibVersion(void) { return 100900; }

int cuInit(unsigned flags) {
  if (flags != 0) abort();
  return getenv("FAKE_NO_GPU") == NULL ? 0 : NO_DEVICE;
}

int cuDeviceGet(int* device, int number) {
  *device = FIRST_DEVICE + number;
  return number < 2 ? 0 : INVALID_DEVICE;
}

int cuDeviceGetName(char* name, int size, int device) {
  strncpy(name, device == FIRST_DEVICE ? "NVIDIA L4" : "NVIDIA RTX (TM) 6000", (size_t)size);
  return 0;
}

int cuDeviceGetAttribute(int* value, int attribute, int device) {
  if (attribute != MAJOR && attribute != MINOR) return INVALID_DEVICE;
  *value = attribute == MAJOR ? 8 : device == FIRST_DEVICE ? 9 : 6;
  return 0;
}

int cuGetErrorString(int error, const char** text) {
  *text = error == NO_DEVICE ? "no CUDA-capable device is detected" : "invalid device ordinal";
  return 0;
}
