"""Whether a manifest's settings of windows agree with each other and with the rest of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kad_sdk.schema import expected

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kad_sdk.manifest_entries import NetworkOutput, PatchCore, Windows

__all__ = ["check_mode"]


def check_mode(patchcore: PatchCore, outputs: Sequence[NetworkOutput], tile: int) -> None:
    """Check ``patchcore.mode`` and ``patchcore.windows``.

    Raises
    ------
    SchemaError
        They contradict each other, the resampling, the layers or the tile, a side of `tile` px.
    """
    windows = patchcore.windows
    if (windows is not None) != (patchcore.mode == "windows"):
        wanted = "an object" if patchcore.mode == "windows" else "null"
        raise expected("patchcore.windows", f"{wanted} with mode {patchcore.mode!r}", windows)
    if (patchcore.resampling == "aligned-bilinear") != (windows is not None):
        wanted = "not 'aligned-bilinear'" if windows is None else "'aligned-bilinear'"
        raise expected(
            "patchcore.resampling",
            f"{wanted} with mode {patchcore.mode!r}",
            patchcore.resampling,
        )
    if windows is not None:
        _check_sizes(windows, tile)
        _check_layers(windows, patchcore.grid, outputs, tile)


def _check_sizes(windows: Windows, tile: int) -> None:
    align, patch = windows.align_px, windows.patch_px
    if align % patch or not _is_power_of_2(align // patch):
        raise expected("patchcore.windows.align_px", f"1, 2, 4 ... times {patch} px", align)
    for key, value in (
        ("patchcore.windows.window_px", windows.window_px),
        ("patchcore.windows.halo_px", windows.halo_px),
        ("preprocessing.tile", tile),
    ):
        if value % align:
            raise expected(key, f"a multiple of patchcore.windows.align_px, {align} px", value)
    least = 2 * windows.label_margin_px + 4 * patch
    if tile < least:
        wanted = f"at least 2 label_margin_px + 4 patch_px, {least} px"
        raise expected("preprocessing.tile", wanted, tile)


def _check_layers(
    windows: Windows, grid: tuple[int, int], outputs: Sequence[NetworkOutput], tile: int
) -> None:
    side = tile // windows.patch_px
    if grid != (side, side):
        wanted = f"[{side}, {side}], the patches of a tile"
        raise expected("patchcore.grid", wanted, list(grid))
    sides = {(output.height, output.width) for output in outputs}
    allowed = set()
    cell = windows.patch_px
    while cell <= windows.align_px:
        allowed.add((tile // cell, tile // cell))
        cell *= 2
    ends = {(tile // cell, tile // cell) for cell in (windows.patch_px, windows.align_px)}
    if not (sides <= allowed and ends <= sides):
        wanted = (
            f"one cell for every {windows.patch_px} to {windows.align_px} px of a tile of {tile} px"
        )
        raise expected("network.outputs", wanted, sorted(sides))


def _is_power_of_2(value: int) -> bool:
    return value & (value - 1) == 0
