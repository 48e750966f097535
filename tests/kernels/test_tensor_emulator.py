"""The emulator of the tensor tier sees what a GPU forbids or leaves open."""

from __future__ import annotations

import os

import numpy as np
import pytest

pytest.importorskip("numba.cuda", reason="numba-cuda is not installed: pip install 'kad-sdk[gpu]'")

if os.environ.get("NUMBA_ENABLE_CUDASIM") != "1":
    pytest.skip("run by test_simulator.py", allow_module_level=True)

import tensor_emulator
from tensor_emulator import EmulationError

SEEDS = range(16)

# Every thread takes its neighbour's number through shared memory.
NEIGHBOURS = """
__global__ void neighbours(int *out) {
  extern __shared__ __align__(128) char shared[];
  int *numbers = reinterpret_cast<int *>(shared);
  numbers[threadIdx.x] = threadIdx.x;
  SYNC
  const int other = numbers[threadIdx.x ^ 33];
  SYNC
  numbers[threadIdx.x] = -1;
  out[threadIdx.x] = other;
}
EMULATE(neighbours)
"""
# 64 threads copy 16 bytes each, and read what came.
COPIES = """
__global__ void copies(const int *from, int *out) {
  extern __shared__ __align__(128) char shared[];
  copy_async(shared_address(shared + 16 * threadIdx.x), from + 4 * threadIdx.x);
  commit_copies();
  copy_async(shared_address(shared + 1024 + 16 * threadIdx.x), from + 4 * threadIdx.x);
  commit_copies();
  wait_for_copies<WAIT>();
  __syncthreads();
  for (int i = 0; i < 4; i++)
    out[4 * threadIdx.x + i] = reinterpret_cast<int *>(shared + 1024)[4 * (63 - threadIdx.x) + i];
}
EMULATE(copies)
"""
DIVERGING = """
__global__ void diverging(int *out) {
  const int lane = threadIdx.x;
  if (lane < 5) out[lane] = __shfl_sync(~0u, lane, 0);
  else out[lane] = __ballot_sync(~0u, true);
}
EMULATE(diverging)
"""
ENDED = """
__global__ void ended(int *out) {
  if (threadIdx.x == 7) return;
  out[threadIdx.x] = __shfl_sync(~0u, static_cast<int>(threadIdx.x), 0);
}
EMULATE(ended)
"""
MISALIGNED = """
__global__ void misaligned(int *out) {
  extern __shared__ __align__(128) char shared[];
  copy_async(shared_address(shared + 8), out);
}
EMULATE(misaligned)
"""
# One product of matrices; a thread's four values of the (16, 8) result.
PRODUCT = """
__global__ void product(const unsigned *a, const unsigned *b, float *out) {
  const unsigned left[4] = {a[threadIdx.x * 4], a[threadIdx.x * 4 + 1], a[threadIdx.x * 4 + 2],
                            a[threadIdx.x * 4 + 3]};
  float c[4] = {};
  multiply(c, left, b[threadIdx.x * 2], b[threadIdx.x * 2 + 1]);
  for (int i = 0; i < 4; i++) out[threadIdx.x * 4 + i] = c[i];
}
EMULATE(product)
"""


def _compiled(text: str):
    return tensor_emulator.compile_source(tensor_emulator.EMULATOR.read_text() + text)


def _answers(kernel, expected: np.ndarray, *given: np.ndarray) -> list[bool]:
    """Whether the answer is as expected, for each seed."""
    right = []
    for seed in SEEDS:
        out = np.zeros_like(expected)
        tensor_emulator.run(kernel, (1, 1), 64, (*given, out), seed=seed)
        right.append(bool((out == expected).all()))
    return right


def test_a_barrier_that_is_missing_shows():
    expected = np.arange(64, dtype=np.int32) ^ 33
    assert all(_answers(_compiled(NEIGHBOURS.replace("SYNC", "__syncthreads();")), expected))
    assert not all(_answers(_compiled(NEIGHBOURS.replace("SYNC", "")), expected))
    first_alone = NEIGHBOURS.replace("SYNC", "__syncthreads();", 1).replace("SYNC", "")
    assert not all(_answers(_compiled(first_alone), expected))


def test_a_copy_that_is_not_waited_for_shows():
    given = np.arange(256, dtype=np.int32)
    expected = given.reshape(64, 4)[::-1].ravel().copy()
    assert all(_answers(_compiled(COPIES.replace("WAIT", "0")), expected, given))
    assert not all(_answers(_compiled(COPIES.replace("WAIT", "1")), expected, given))


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (DIVERGING, "the lanes of a warp are at different instructions"),
        (ENDED, "threads wait for others that have ended"),
        (MISALIGNED, "a misaligned address in shared memory"),
    ],
)
def test_what_a_gpu_forbids_is_an_error(text, why):
    with pytest.raises(EmulationError, match=why):
        tensor_emulator.run(_compiled(text), (1, 1), 32, (np.zeros(32, np.int32),), seed=0)


def test_products_are_cut_off_and_never_too_far():
    generator = np.random.default_rng(0)
    a = generator.standard_normal((16, 16)).astype(np.float16)
    b = generator.standard_normal((16, 8)).astype(np.float16)
    lane = np.arange(32)
    rows, pairs = lane // 4, lane % 4 * 2
    at = [(rows + 8 * low, pairs + 8 * high) for high in (0, 1) for low in (0, 1)]
    left = np.stack([np.stack([a[r, k], a[r, k + 1]], axis=1) for r, k in at], axis=1)
    right = np.stack(
        [np.stack([b[k, rows], b[k + 1, rows]], axis=1) for k in (pairs, pairs + 8)], axis=1
    )
    out = np.zeros(128, np.float32)
    given = np.ascontiguousarray(left).view(np.uint32), np.ascontiguousarray(right).view(np.uint32)
    tensor_emulator.run(_compiled(PRODUCT), (1, 1), 32, (*given, out), seed=0)
    found = np.zeros((16, 8), np.float32)
    for i in range(4):
        found[rows + i // 2 * 8, pairs + i % 2] = out.reshape(32, 4)[:, i]
    exact = a.astype(np.float64) @ b.astype(np.float64)
    error = np.abs(found - exact)
    lengths = np.linalg.norm(a.astype(np.float64), axis=1)[:, None] * np.linalg.norm(
        b.astype(np.float64), axis=0
    )
    assert (error <= 18 * 2.0**-23 * lengths).all()
    rounded = np.abs(exact.astype(np.float32) - exact)
    assert error.mean() > 2 * rounded.mean()
