"""The C ABI as ctypes sees it: structs, signatures, opening the library, errors."""

from __future__ import annotations

import ctypes
import functools
import os
import sys
import weakref
from ctypes import POINTER, c_char_p, c_double, c_float, c_int32, c_int64, c_uint32, c_void_p
from pathlib import Path
from typing import Any

from kad_sdk.errors import (
    ArtifactCorruptError,
    ImageTooSmallError,
    InvalidArgumentError,
    NativeLibraryError,
    NotFiniteError,
)

ABI = (0, 1)  # major, minor; before 1.0 both have to be equal
LEVELS = ("scalar", "avx2", "avx512", "avx512vnni")


class Struct(ctypes.Structure):
    """A struct that begins with its size."""

    def __init__(self, **fields: Any) -> None:
        super().__init__(ctypes.sizeof(self), **fields)


class Image(Struct):
    _fields_ = (
        ("struct_size", c_uint32),
        ("pixel_format", c_int32),
        ("height", c_int32),
        ("width", c_int32),
        ("row_stride", c_int64),
        ("data", c_void_p),
    )


class TileGrid(Struct):
    _fields_ = (
        ("struct_size", c_uint32),
        ("image_height", c_int32),
        ("image_width", c_int32),
        ("tile", c_int32),
        ("stride", c_int32),
        ("cover_edges", c_int32),
        ("borders", c_void_p),
        ("n_borders", c_int64),
        ("labels", c_void_p),
        ("n_labels", c_int64),
    )


class BaseMaps(Struct):
    _fields_ = (
        ("struct_size", c_uint32),
        ("resampling", c_int32),
        ("grid_height", c_int32),
        ("grid_width", c_int32),
        ("n_tiles", c_int64),
        ("n_layers", c_int64),
        ("data", POINTER(c_void_p)),
        ("channels", POINTER(c_int32)),
        ("heights", POINTER(c_int32)),
        ("widths", POINTER(c_int32)),
    )


class IndexFacts(Struct):
    _fields_ = (
        ("struct_size", c_uint32),
        ("reserved", c_uint32),
        ("rows", c_int64),
        ("dims", c_int64),
        ("narrow_dims", c_int64),
        ("wide_dims", c_int64),
        ("bytes", c_int64),
    )


class SearchStatsRecord(Struct):
    _fields_ = (
        ("struct_size", c_uint32),
        ("reserved", c_uint32),
        ("queries", c_int64),
        ("dense_queries", c_int64),
        ("narrow_pairs", c_int64),
        ("narrow_products", c_int64),
        ("wide_pairs", c_int64),
        ("decided_pairs", c_int64),
        ("dense_pairs", c_int64),
        ("dense_decided_pairs", c_int64),
        ("prepare_ns", c_int64),
        ("narrow_ns", c_int64),
        ("wide_ns", c_int64),
        ("decide_ns", c_int64),
        ("dense_ns", c_int64),
        ("seed_products", c_int64),
        ("seed_ns", c_int64),
    )


class ScoreOptions(Struct):
    _fields_ = (
        ("struct_size", c_uint32),
        ("reweighting", c_int32),
        ("neighbors", c_void_p),
        ("neighbor_columns", c_int64),
        ("n_neighbors", c_int64),
    )


class Directions(Struct):
    _fields_ = (
        ("struct_size", c_uint32),
        ("reserved", c_uint32),
        ("dims", c_int64),
        ("n", c_int64),
        ("centre", c_void_p),
        ("rows", c_void_p),
    )


class KCenterStats(Struct):
    _fields_ = (
        ("struct_size", c_uint32),
        ("reserved", c_uint32),
        ("flushes", c_int64),
        ("screened_pairs", c_int64),
        ("decided_pairs", c_int64),
        ("inner_pairs", c_int64),
        ("flush_ns", c_int64),
        ("draw_ns", c_int64),
        ("inner_ns", c_int64),
    )


class Density(Struct):
    _fields_ = (
        ("struct_size", c_uint32),
        ("kind", c_int32),
        ("dims", c_int64),
        ("mean", c_void_p),
        ("cholesky", c_void_p),
        ("samples", c_void_p),
        ("n_samples", c_int64),
        ("bandwidth", c_double),
    )


class BoardOptions(Struct):
    _fields_ = (
        ("struct_size", c_uint32),
        ("image_height", c_int32),
        ("image_width", c_int32),
        ("tile", c_int32),
        ("grid_height", c_int32),
        ("grid_width", c_int32),
        ("smoothing_radius", c_int32),
        ("smoothing_sigma", c_float),
    )


class WindowsOptions(Struct):
    _fields_ = (
        ("struct_size", c_uint32),
        ("image_height", c_int32),
        ("image_width", c_int32),
        ("window", c_int32),
        ("halo", c_int32),
        ("align", c_int32),
        ("patch", c_int32),
        ("tile", c_int32),
        ("label_margin", c_int32),
        ("smoothing_radius", c_int32),
        ("smoothing_sigma", c_float),
        ("reserved", c_int32),
        ("borders", c_void_p),
        ("n_borders", c_int64),
        ("labels", c_void_p),
        ("n_labels", c_int64),
        ("xy", c_void_p),
        ("n_tiles", c_int64),
    )


class Region(ctypes.Structure):
    _fields_ = (
        ("x", c_int32),
        ("y", c_int32),
        ("width", c_int32),
        ("height", c_int32),
        ("peak_x", c_int32),
        ("peak_y", c_int32),
        ("peak", c_float),
        ("distance", c_float),
        ("area_px", c_int64),
        ("tile", c_int64),
        ("patch", c_int64),
        ("bank_row", c_int64),
    )


class Zone(ctypes.Structure):
    _fields_ = (
        ("x", c_int32),
        ("y", c_int32),
        ("width", c_int32),
        ("height", c_int32),
        ("factor", c_float),
    )


class MapRules(Struct):
    _fields_ = (
        ("struct_size", c_uint32),
        ("edge_margin_x", c_int32),
        ("edge_margin_y", c_int32),
        ("reserved", c_int32),
        ("borders", c_void_p),
        ("n_borders", c_int64),
        ("ignored", c_void_p),
        ("n_ignored", c_int64),
        ("zones", POINTER(Zone)),
        ("n_zones", c_int64),
    )


_IMAGE, _MAPS = POINTER(Image), POINTER(BaseMaps)

# Arguments of every function that returns a status.
_SIGNATURES: dict[str, tuple[Any, ...]] = {
    "kad_cpu_level_force": (c_int32,),
    "kad_image_resize": (_IMAGE, c_int32, c_int32, c_int32, c_void_p),
    "kad_tiles_plan": (POINTER(TileGrid), c_void_p, c_int64, POINTER(c_int64)),
    "kad_preprocess": (
        *(_IMAGE, c_void_p, c_int64, c_int32, c_void_p, c_void_p, c_int32, c_void_p),
    ),
    "kad_preprocess_window": (*(_IMAGE, c_void_p, c_void_p, c_void_p, c_int32, c_void_p),),
    "kad_graph_check": (c_void_p, c_int64),
    "kad_patch_features": (_MAPS, c_int32, c_void_p),
    "kad_window_features": (_MAPS, c_void_p, c_int32, c_void_p),
    "kad_index_create": (c_void_p, c_int64, c_int64, c_int32, POINTER(c_void_p)),
    "kad_index_create_for_maps": (c_void_p, c_int64, _MAPS, c_int32, POINTER(c_void_p)),
    "kad_index_store": (c_void_p, c_char_p, c_int32, c_void_p, c_int64, POINTER(c_int64)),
    "kad_index_create_stored": (
        *(c_void_p, c_int64, _MAPS, c_char_p, c_void_p, c_int64, c_int32, POINTER(c_void_p)),
    ),
    "kad_index_info": (c_void_p, POINTER(IndexFacts)),
    "kad_index_stats": (c_void_p, POINTER(SearchStatsRecord)),
    "kad_index_query": (c_void_p, c_void_p, c_int64, c_int32, c_int32, c_void_p, c_void_p),
    "kad_index_query_maps": (c_void_p, _MAPS, c_int32, c_int32, c_void_p, c_void_p),
    "kad_score_tiles": (
        *(c_void_p, _MAPS, POINTER(ScoreOptions), c_int32, c_void_p, c_void_p, c_void_p),
    ),
    "kad_kcenter_flush": (
        *(POINTER(Directions), c_void_p, c_int64, c_void_p, c_int64, c_int32, c_void_p),
        POINTER(c_int64),
    ),
    "kad_kcenter_create": (
        *(POINTER(Directions), c_void_p, c_int64, c_void_p, c_int64, c_int32, POINTER(c_void_p)),
    ),
    "kad_kcenter_pick": (
        *(c_void_p, c_int64, c_float, c_int64, c_int32, c_void_p, c_void_p, POINTER(c_int64)),
    ),
    "kad_kcenter_info": (c_void_p, POINTER(KCenterStats)),
    "kad_density_score": (POINTER(Density), c_void_p, c_int64, c_int32, c_void_p),
    "kad_board_create": (POINTER(BoardOptions), POINTER(c_void_p)),
    "kad_board_clear": (c_void_p,),
    "kad_board_add": (c_void_p, c_void_p, c_int64, c_void_p, c_void_p, c_int32),
    "kad_board_map": (c_void_p, c_int32, c_void_p),
    "kad_map_resize": (*(c_void_p, c_int32, c_int32, c_int32, c_int32, c_int32), c_void_p),
    "kad_map_judge": (c_void_p, c_int32, c_int32, POINTER(MapRules)),
    "kad_tiles_judge": (
        *(POINTER(MapRules), c_int32, c_int32, c_void_p, c_int64, c_int32, c_void_p),
    ),
    "kad_map_peak": (c_void_p, c_int32, c_int32, c_int64, POINTER(c_float)),
    "kad_board_regions": (
        *(c_void_p, c_void_p, c_float, c_int64, c_uint32, c_void_p, c_int64, POINTER(c_int64)),
    ),
    "kad_windows_create": (POINTER(WindowsOptions), POINTER(c_void_p)),
    "kad_windows_plan": (c_void_p, c_void_p, c_int64, POINTER(c_int64)),
    "kad_windows_score": (*(c_void_p, c_int64, c_void_p, _MAPS, POINTER(ScoreOptions), c_int32),),
    "kad_windows_tiles": (c_void_p, c_void_p, c_void_p, c_void_p),
    "kad_windows_map": (c_void_p, c_void_p, c_int32, c_void_p),
    "kad_windows_regions": (
        *(c_void_p, c_void_p, c_float, c_int64, c_uint32, c_void_p, c_int64, POINTER(c_int64)),
    ),
}


def _library_path() -> Path:
    override = os.environ.get("KAD_LIBRARY")
    if override:
        return Path(override)
    # An editable install has the package's Python files and its library in two folders.
    folders = [Path(folder) for folder in sys.modules["kad_sdk"].__path__]
    for folder in folders:
        if (folder / "libkad.so").is_file():
            return folder / "libkad.so"
    raise NativeLibraryError(
        f"the compiled core libkad.so is missing from {', '.join(map(str, folders))}: install the "
        "package with pip, or build it with CMake and name it in the variable KAD_LIBRARY"
    )


def _open_library(path: Path) -> ctypes.CDLL:
    try:
        library = ctypes.CDLL(str(path))
    except OSError as error:
        raise NativeLibraryError(f"the compiled core {path} cannot be loaded: {error}") from error
    try:
        library.kad_abi_version.restype = c_uint32
        found = divmod(library.kad_abi_version(), 1 << 16)
        if found != ABI:
            raise NativeLibraryError(
                f"the compiled core {path} has ABI {found[0]}.{found[1]}, expected "
                f"{ABI[0]}.{ABI[1]}: rebuild it from the same version as this package"
            )
        library.kad_version_string.restype = c_char_p
        library.kad_last_error.restype = c_char_p
        library.kad_cpu_level.restype = c_int32
        for name in (
            *("kad_index_close", "kad_kcenter_close", "kad_board_close", "kad_windows_close"),
        ):
            getattr(library, name).argtypes = (c_void_p,)
            getattr(library, name).restype = None
        for name, arguments in _SIGNATURES.items():
            getattr(library, name).argtypes = arguments
            getattr(library, name).restype = c_int32
    except AttributeError as error:
        raise NativeLibraryError(
            f"{path} is not this version's compiled core ({error}): rebuild it"
        ) from error
    return library


@functools.cache
def library() -> ctypes.CDLL:
    return _open_library(_library_path())


BUFFER_TOO_SMALL = 5
_ERRORS: dict[int, type[Exception]] = {
    1: InvalidArgumentError,
    2: NotFiniteError,
    3: MemoryError,
    6: ImageTooSmallError,
    14: ArtifactCorruptError,
    15: ArtifactCorruptError,
}


def call(name: str, *arguments: Any, accept: tuple[int, ...] = ()) -> int:
    """Call a function that returns a status; raise what the status stands for."""
    core = library()
    status: int = getattr(core, name)(*arguments)
    if status == 0 or status in accept:
        return status
    text = core.kad_last_error().decode("utf-8", "replace")
    raise _ERRORS.get(status, NativeLibraryError)(text)


class Handle:
    """What the core holds for an object: freed with it, or by :meth:`close`."""

    def _hold(self, handle: c_void_p, kind: str, *, called: str) -> None:
        """Own a handle that ``kad_<kind>_close`` frees; messages say `called`."""
        self._handle, self._called = handle, called
        self._finalizer = weakref.finalize(self, getattr(library(), f"kad_{kind}_close"), handle)

    def _open_handle(self) -> c_void_p:
        if not self._finalizer.alive:
            raise InvalidArgumentError(f"the {self._called} is closed")
        return self._handle

    def close(self) -> None:
        """Free what the core holds; the object cannot be used after."""
        self._finalizer()


def version() -> str:
    """Version of the compiled core, for example ``"0.1.0"``."""
    text: bytes = library().kad_version_string()
    return text.decode()


def cpu_level() -> str:
    """Instruction-set level in use: ``"scalar"``, ``"avx2"``, ``"avx512"`` or ``"avx512vnni"``."""
    return LEVELS[library().kad_cpu_level()]


def force_cpu_level(name: str | None) -> None:
    """Force a level for the whole process, or go back to the best one with None.

    For tests and comparisons; not to be called while other calls run.

    Raises
    ------
    NativeLibraryError
        The processor lacks that level.
    """
    if name is not None and name not in LEVELS:
        raise InvalidArgumentError(
            f"level must be one of {', '.join(LEVELS)} or None, got {name!r}"
        )
    level = -1 if name is None else LEVELS.index(name)
    call("kad_cpu_level_force", level)
