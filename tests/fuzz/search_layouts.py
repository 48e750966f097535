"""Base maps of many layouts, banks of their patches, and how an index is asked for them."""

from __future__ import annotations

import numpy as np

from kad_sdk._native import MapLayout, patch_features

__all__ = ["LAYOUTS", "ask", "made", "smooth_maps"]

ROWS = 1100
# Layers, grid, resampling; whether products of a coarse layer's positions can be mixed.
LAYOUTS = {
    "same": ([(40, 28, 28), (60, 14, 14)], (28, 28), "bilinear"),
    "valid": ([(40, 26, 26), (60, 12, 12)], (28, 28), "adaptive-average"),
    "coarse first": ([(60, 14, 14), (40, 28, 28)], (28, 28), "bilinear"),
    "two coarse": ([(40, 8, 12), (30, 4, 6), (30, 4, 6)], (8, 12), "bilinear"),
    "all coarse": ([(50, 7, 7), (50, 7, 7)], (14, 14), "bilinear"),
    "coarse between": ([(30, 8, 8), (40, 4, 4), (30, 8, 8)], (8, 8), "bilinear"),
    "three sizes": ([(30, 16, 16), (40, 8, 8), (30, 4, 4)], (16, 16), "bilinear"),
    "odd grid": ([(40, 13, 9), (60, 7, 5)], (13, 9), "bilinear"),
    "few coarse": ([(96, 8, 8), (4, 4, 4)], (8, 8), "bilinear"),
    "few fine": ([(4, 8, 8), (96, 4, 4)], (8, 8), "bilinear"),
    "one position": ([(40, 3, 3), (60, 1, 1)], (3, 3), "bilinear"),
    "large": ([(40, 48, 40), (60, 24, 20)], (48, 40), "bilinear"),
}


def smooth_maps(seed, layout, batch=2):
    """Maps whose neighbouring positions are alike, as those of images are."""
    rng = np.random.default_rng(seed)
    bend = np.random.default_rng(7)
    maps = []
    for channels, height, width in layout.layers:
        y, x = np.mgrid[:height, :width] / max(height, width)
        phase = rng.uniform(0, 6, (batch, 5, 1, 1))
        waves = np.sin(phase + 4 * np.stack([x, y, x + y, x - y, x * y]))  # (B, 5, h, w)
        mixed = np.einsum("bihw,ci->bchw", waves, bend.normal(size=(channels, 5)))
        maps.append((mixed + 0.05 * rng.normal(size=mixed.shape)).astype(np.float32))
    return maps


def made(name, seed=0, batch=2):
    """Layout, a bank of its patches, maps, and their patch features."""
    layout = MapLayout(*LAYOUTS[name])
    options = {"grid": layout.grid, "resampling": layout.resampling}
    patches = [patch_features(smooth_maps(seed + i, layout, 1), **options)[0] for i in range(18)]
    patches = np.concatenate(patches)
    bank = patches[np.random.default_rng(seed).integers(0, len(patches), ROWS)]
    bank += 0.02 * np.random.default_rng(seed + 1).normal(size=bank.shape).astype(np.float32)
    maps = smooth_maps(seed + 99, layout, batch)
    features = patch_features(maps, **options)
    return layout, bank, maps, features.reshape(-1, features.shape[2])


def ask(index, layout, maps, k, **options):
    dist, row = index.query_maps(maps, k, grid=layout.grid, resampling=layout.resampling, **options)
    return dist.reshape(-1, k), row.reshape(-1, k)
