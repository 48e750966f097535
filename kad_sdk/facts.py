"""What an artifact is, in words for ``kad inspect`` and as values for ``metrics.json``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kad_sdk.manifest import CutPasteManifest, PatchCoreManifest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kad_sdk.artifact import Artifact
    from kad_sdk.inspection import CalibrationEntry, Inspection
    from kad_sdk.manifest import Manifest
    from kad_sdk.manifest_entries import Coreset, PatchCore, Thresholds
    from kad_sdk.rules import Rules

__all__ = [
    "calibration_lines",
    "certificate",
    "describe",
    "extension_notes",
    "rules_lines",
    "rules_notes",
    "summarise",
]


def describe(manifest: Manifest, inspection: Inspection | None = None) -> list[tuple[str, str]]:
    """Lay out an artifact for people: lines of a name, "" where the last one goes on, and a text.

    `inspection` is what was set on site since.
    """
    network, prep, tau = manifest.network, manifest.preprocessing, manifest.thresholds
    size = sum(entry.size for entry in manifest.files.values())
    resize = "native size" if prep.resize is None else f"resized to {_size_text(prep.resize)}"
    denoise = "" if prep.denoise is None else f", denoised with h = {prep.denoise.h:g}"
    weights = network.weights.name
    if network.weights.source == "imagenet":
        weights = f"ImageNet ({weights})"
    name = network.backbone
    if isinstance(manifest, PatchCoreManifest):
        name += f" {'+'.join(manifest.network.layers)}"
    return [
        ("method", f"{manifest.method}, format {manifest.format_version}"),
        ("network", f"{name}, weights {weights}"),
        ("", f"{network.precision}, ONNX opset {network.opset}"),
        ("boards", f"{resize}{denoise}, normalised by {prep.normalisation} statistics"),
        ("tiles", f"{prep.tile} px, stride {prep.stride} (fitted at {prep.train_stride})"),
        *_describe_method(manifest),
        ("board score", tau.board),
        *_describe_thresholds(tau, () if inspection is None else inspection.calibrations),
        *(("", note) for note in extension_notes(manifest, inspection)),
        *_describe_rules(inspection),
        ("training", f"{manifest.training.images:,} images, {manifest.training.tiles:,} tiles"),
        ("", f"SHA-256 {manifest.training.fingerprint[:16]}..."),
        ("golden tiles", f"{manifest.golden.count}, see `kad verify`"),
        ("made with", ", ".join(f"{k} {v}" for k, v in sorted(manifest.created_by.items()))),
        ("size", f"{size / 2**20:.1f} MiB; all hashes are right"),
    ]


def _describe_thresholds(
    exported: Thresholds, calibrations: Sequence[CalibrationEntry]
) -> list[tuple[str, str]]:
    """Tell the thresholds in force, and those before them, the latest first."""
    first = f"tiles {exported.tile:.6g}, map {exported.map:.6g}: {exported.method}"
    if not calibrations:
        return [("threshold", first), ("", f"found on {exported.samples:,} tiles")]
    *earlier, last = calibrations
    lines = [("threshold", _taus(last)), *(("", text) for text in calibration_lines(last))]
    before = [f"{_taus(entry)}, {entry.time}" for entry in reversed(earlier)]
    before.append(f"{first}, by the export")
    return [*lines, *zip(["before", *[""] * len(earlier)], before, strict=True)]


def _taus(entry: CalibrationEntry) -> str:
    return f"tiles {entry.tile.value:.6g}, map {entry.map.value:.6g}: {entry.method}"


def calibration_lines(entry: CalibrationEntry) -> list[str]:
    """Tell how sure a calibration is, what it was found on, and what it does."""
    between = [
        f"{name} {tau.interval[0]:.6g} to {tau.interval[1]:.6g}"
        for name, tau in (("tiles", entry.tile), ("map", entry.map))
    ]
    lines = [
        f"{entry.confidence:.0%} interval: {', '.join(between)}",
        f"found {entry.time} on {entry.good_boards:,} good boards and "
        f"{entry.defective_boards:,} defective ones, {entry.normal_tiles:,} normal tiles and "
        f"{entry.defect_tiles:,} with defects",
    ]
    for what, rate in (
        ("good boards rejected", entry.board_false_alarms),
        ("normal tiles flagged", entry.tile_false_alarms),
    ):
        if rate is not None:
            low, high = (f"{100 * share:.3g}" for share in rate.interval)
            lines.append(
                f"{what}: {100 * rate.share:.3g} % of these, {low} to {high} % of fresh ones"
            )
    return lines


def extension_notes(manifest: Manifest, inspection: Inspection | None) -> list[str]:
    """Say so where the bank was extended since the thresholds in force were found."""
    extended = isinstance(manifest, PatchCoreManifest) and manifest.bank.extended
    if not extended or (inspection and inspection.calibrations):
        return []
    return ["found before the bank was extended: find them anew with kad calibrate"]


def _describe_rules(inspection: Inspection | None) -> list[tuple[str, str]]:
    """Tell the rules in force, and what to do about thresholds that were found under others."""
    if inspection is None or not (inspection.rules or inspection.rules_of_thresholds):
        return []
    lines = [*rules_lines(inspection.rules_in_force), *rules_notes(inspection)]
    if inspection.rules:
        lines.append(f"set {inspection.rules[-1].time}")
    return list(zip(["rules", *[""] * (len(lines) - 1)], lines, strict=True))


def rules_lines(rules: Rules) -> list[str]:
    """Tell rules, one a line; rectangles as the options of ``kad rules`` take them."""
    lines = [f"ignore {','.join(map(str, rect))}" for rect in rules.ignore]
    lines += [
        f"zone {','.join(map(str, zone.rect))}={zone.factor:g}: {zone.factor:g} times the threshold"
        for zone in rules.zones
    ]
    if rules.edge_margin_px:
        lines.append(f"edge margin {rules.edge_margin_px} px")
    if rules.min_region_area_px is not None:
        lines.append(f"regions of {rules.min_region_area_px:,} px or more")
    return lines or ["none"]


def rules_notes(inspection: Inspection) -> list[str]:
    """Say so where the thresholds in force were found under other rules than those in force."""
    if inspection.rules_in_force == inspection.rules_of_thresholds:
        return []
    under = "other rules" if inspection.rules_of_thresholds else "no rules"
    return [f"the thresholds were found under {under}: find them anew with kad calibrate"]


def _describe_method(manifest: Manifest) -> list[tuple[str, str]]:
    if isinstance(manifest, PatchCoreManifest):
        return _describe_patchcore(manifest)
    if isinstance(manifest, CutPasteManifest):
        return _describe_cutpaste(manifest)
    return []


def _describe_patchcore(manifest: PatchCoreManifest) -> list[tuple[str, str]]:
    core, bank = manifest.patchcore, manifest.bank
    coreset = bank.coreset
    space = "features" if coreset.projected_dims is None else f"{coreset.projected_dims} dimensions"
    return [
        *_describe_mode(core),
        ("features", f"{core.pooling}, grid {core.grid[0]} x {core.grid[1]}"),
        ("bank", f"{bank.rows:,} x {bank.dims} of {coreset.candidates:,} patches"),
        ("", f"{coreset.method} on {space} in {coreset.points}, seed {coreset.seed}"),
        *(
            (
                "",
                f"extended by {one.rows:,} rows of {one.candidates:,} patches, {one.images:,} "
                f"images; before: manifest {one.parent[:16]}...",
            )
            for one in bank.extended
        ),
        ("covering radius", certificate(coreset)),
        ("tile score", f"re-weighting {core.reweighting} ({core.n_neighbors} neighbours)"),
    ]


def _describe_mode(core: PatchCore) -> list[tuple[str, str]]:
    windows = core.windows
    if windows is None:
        return []
    side = windows.window_px
    text = f"as large as {side} x {side} px, seen with a halo of {windows.halo_px} px"
    return [("windows", text)]


def certificate(coreset: Coreset) -> str:
    """Tell how well a bank covers the patches that it was selected from."""
    left_out = f"; {coreset.trimmed:,} patches left out" if coreset.trimmed else ""
    if not coreset.ratio or coreset.separation is None:
        return f"{coreset.radius:.4g}{left_out}"
    bound = (
        f"{coreset.radius:.4g}, {coreset.ratio:.4g} times the bound {coreset.separation / 2:.4g}"
    )
    return f"{bound} of any bank this size{left_out}"


def _describe_cutpaste(manifest: CutPasteManifest) -> list[tuple[str, str]]:
    settings, density, run = manifest.cutpaste, manifest.density, manifest.cutpaste_training
    detail = (
        f"bandwidth {density.bandwidth:.4g}"
        if density.shrinkage is None
        else f"shrinkage {density.shrinkage:.4g}"
    )
    accuracy = "" if run.validation_accuracy is None else f", {run.validation_accuracy:.4f} right"
    grid = f", grid {settings.map_grid[0]} x {settings.map_grid[1]}"
    return [
        ("embedding", f"{settings.embedding_dims} numbers, {settings.classes} classes"),
        ("tile score", f"{density.kind} density of {density.samples:,} tiles, {detail}"),
        ("map", settings.map + grid * (settings.map == "grad-cam")),
        ("trained", f"{run.epochs} epochs of {run.optimizer}, the best is {run.best_epoch}"),
        ("", f"{run.steps:,} steps of {run.batch} tiles, seed {run.seed}{accuracy}"),
    ]


def _size_text(resize: tuple[int, int] | float) -> str:
    if isinstance(resize, tuple):
        return f"{resize[0]} x {resize[1]} px"
    return f"{100 * resize:g} % of their size"


def summarise(artifact: Artifact) -> dict[str, Any]:
    """Give what identifies an artifact beside its figures, as plain values."""
    manifest = artifact.manifest
    return {
        "name": artifact.path.name,
        "method": manifest.method,
        "format_version": manifest.format_version,
        "backbone": manifest.network.backbone,
        "weights": manifest.network.weights.name,
        "precision": manifest.network.precision,
        "tile": manifest.preprocessing.tile,
        "stride": manifest.preprocessing.stride,
        "resize": manifest.preprocessing.resize,
        **_summarise_method(manifest),
        "board_score": artifact.thresholds.board,
        "threshold_method": artifact.thresholds.method,
        "rules": artifact.rules.to_dict(),
        "training_fingerprint": manifest.training.fingerprint,
        "created_by": dict(manifest.created_by),
    }


def _summarise_method(manifest: Manifest) -> dict[str, Any]:
    if isinstance(manifest, PatchCoreManifest):
        return {
            "layers": list(manifest.network.layers),
            "pooling": manifest.patchcore.pooling,
            "mode": manifest.patchcore.mode,
            "reweighting": manifest.patchcore.reweighting,
            "bank_rows": manifest.bank.rows,
            "bank_dims": manifest.bank.dims,
        }
    if isinstance(manifest, CutPasteManifest):
        return {
            "classes": manifest.cutpaste.classes,
            "embedding_dims": manifest.cutpaste.embedding_dims,
            "map": manifest.cutpaste.map,
            "density": manifest.density.kind,
            "checkpoint_sha256": manifest.cutpaste_training.checkpoint_sha256,
        }
    return {}
