"""The compiled core, called through its C ABI: the only folder that knows ctypes.

Arrays are NumPy arrays; every call releases the GIL. Structs, constants and rules are those of
``kad/kad.h``. The library is ``libkad.so`` in the package's folder, or the file that the
environment variable ``KAD_LIBRARY`` names; it is opened at the first call.
"""

from kad_sdk._native.abi import cpu_level, force_cpu_level, version
from kad_sdk._native.arguments import default_threads
from kad_sdk._native.board import NativeBoard, RegionRecord, resize_map
from kad_sdk._native.density import density_score
from kad_sdk._native.gpu import find_gpu, tensorrt_version
from kad_sdk._native.graph import check_graph
from kad_sdk._native.images import plan_tiles, preprocess, preprocess_window, resize_image
from kad_sdk._native.judge import MapJudge, map_peak
from kad_sdk._native.kcenter import NativeKCenter, PrincipalDirections, lower_distances, spread_rows
from kad_sdk._native.search import (
    MapLayout,
    NativeIndex,
    StoredIndex,
    patch_features,
    window_features,
)
from kad_sdk._native.windows import NativeWindows, Window, WindowSizes

__all__ = [
    "MapJudge",
    "MapLayout",
    "NativeBoard",
    "NativeIndex",
    "NativeKCenter",
    "NativeWindows",
    "PrincipalDirections",
    "RegionRecord",
    "StoredIndex",
    "Window",
    "WindowSizes",
    "check_graph",
    "cpu_level",
    "default_threads",
    "density_score",
    "find_gpu",
    "force_cpu_level",
    "lower_distances",
    "map_peak",
    "patch_features",
    "plan_tiles",
    "preprocess",
    "preprocess_window",
    "resize_image",
    "resize_map",
    "spread_rows",
    "tensorrt_version",
    "version",
    "window_features",
]
