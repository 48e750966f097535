"""The whole comparison of selections with plain greedy in NumPy: 39,200 real features, minutes.

    python tests/export/coreset_exact.py CACHE [SEED ...]

KAD_DATA_DIR and KAD_WEIGHTS_DIR name images and weights; features are kept in the folder CACHE.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np
from kad_bench.patches import RealPatches
from kad_export.coreset import Projection, k_center
from kad_kernels import reference

FRACTION = 0.1  # its first tenth is the selection of 0.01: picks do not depend on how many follow
WAYS = ((1, 1, None), (1, 2, 4_096), (2, 2, 4_096), (7, 2, 1_000))  # shards, threads, pool


def say(text: str) -> None:
    """Tell it at once."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def compare(cache: Path, seed: int) -> None:
    """Select with one projection, by all ways."""
    features = RealPatches("hazelnut", 39_200, whole=True).prepare(cache, 2, say)
    points = Projection(*features.shape, seed=seed)(np.asarray(features))
    n = round(FRACTION * len(points))
    start = time.process_time()
    expected, radius = reference.k_center(points, n)
    told = f"seed {seed}: {n:,} of {len(points):,} x {points.shape[1]}"
    say(f"{told}: NumPy took {time.process_time() - start:.0f} s of one processor")
    for shards, threads, pool in WAYS:
        found = k_center(points, n, shards=shards, threads=threads, pool_rows=pool)
        assert np.array_equal(found.index, expected), (seed, shards, threads, pool)
        assert found.radius == radius
        passes = found.counts["passes"] + found.counts["pool_passes"]
        say(f"  equal: {shards} shards, {threads} threads, pool {pool}, {passes} passes")


if __name__ == "__main__":
    for number in map(int, sys.argv[2:] or ["0"]):
        compare(Path(sys.argv[1]), number)
