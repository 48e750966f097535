"""What a search did, stage by stage, and how quickly so much arithmetic could be done."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from kad_sdk._native import cpu_level

if TYPE_CHECKING:
    from collections.abc import Callable

    from kad_sdk.search import SearchIndex

__all__ = ["measure_work", "shortest_time"]

_STAGES = ("prepare", "seed", "narrow", "wide", "decide", "dense")

# Instructions for a product of two codes, in those for a float32 product (a fused multiply-add of
# one vector). vpmaddubsw or vpmaddwd and an addition, on 4 or 2 times as many values; with VNNI one
# instruction does both. Without vectors nobody would ask.
_CODE_COSTS = {
    "scalar": (1.0, 1.0),
    "avx2": (2 / 4, 2 / 2),
    "avx512": (2 / 4, 2 / 2),
    "avx512vnni": (1 / 4, 1 / 2),
}
_DIFFERENCE_COST = 3.0  # of a term of a distance: subtract, multiply, add


def measure_work(index: SearchIndex, search: Callable[[], object]) -> dict[str, Any]:
    """Search once and describe it.

    Returns
    -------
    dict
        ``dense_queries``, share of the queries; ``narrow_dims``, products of 8-bit codes a pair;
        ``left_by_narrow``, ``left_by_wide``, shares of the pairs that each stage was given, None
        where every query went the dense way; ``candidates``, rows for a query whose 16-bit codes
        are compared; ``decided``, rows for a query whose distance is taken;
        ``stages_s``, stage to seconds of a thread for a query; ``products``, kind to number for a
        query; ``counts``, the whole numbers that the guard holds.
    """
    before = asdict(index.stats())
    search()
    done = {name: value - before[name] for name, value in asdict(index.stats()).items()}
    n = done["queries"]
    coded, wide = max(done["narrow_pairs"], 1), max(done["wide_pairs"], 1)
    all_dense = done["dense_queries"] == n
    decided = done["decided_pairs"] + done["dense_decided_pairs"]
    wide_dims = index.info().wide_dims
    return {
        "dense_queries": done["dense_queries"] / n,
        "narrow_dims": done["narrow_products"] / coded,
        "left_by_narrow": None if all_dense else done["wide_pairs"] / coded,
        "left_by_wide": None if all_dense else min(done["decided_pairs"] / wide, 1),
        "candidates": done["wide_pairs"] / n,
        "decided": decided / n,
        "stages_s": {stage: done[f"{stage}_ns"] * 1e-9 / n for stage in _STAGES},
        "products": {
            "8-bit": (done["narrow_products"] + done["seed_products"]) / n,
            "16-bit": done["wide_pairs"] * wide_dims / n,
            "float32": (done["dense_pairs"] * index.dims) / n + wide_dims * index.dims,
            "differences": decided * index.dims / n,
        },
        "counts": {
            "code_products": done["narrow_products"] + done["seed_products"],
            "wide_pairs": done["wide_pairs"],
            "decided_pairs": decided,
            "dense_pairs": done["dense_pairs"],
            "index_bytes": index.info().bytes,
        },
    }


def shortest_time(work: dict[str, Any], gflop_per_s: float) -> float:
    """Seconds for a query if all its arithmetic ran at the peak of the float32 matrix product.

    Narrower products are counted by their instructions. Nothing else is: no memory, no comparing,
    no encoding. That queries are brought to coordinates by one product of all dimensions is more
    than base maps need.
    """
    eight, sixteen = _CODE_COSTS[cpu_level()]
    products = work["products"]
    float32 = products["float32"] + _DIFFERENCE_COST * products["differences"]
    return 2e-9 * (eight * products["8-bit"] + sixteen * products["16-bit"] + float32) / gflop_per_s
