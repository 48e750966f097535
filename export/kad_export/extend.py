"""Good boards added to the bank of an artifact: the steps of ``kad-export extend`` in order.

The selection goes on where it stopped: the rows of the bank are centres already, the patches of the
new boards are the candidates, and greedy k-center takes the farthest ones until none is farther
than the bank's own radius, so that the new boards are covered as well as the old ones. The network,
the preprocessing and the thresholds stay.
"""

from __future__ import annotations

import dataclasses
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kad_export.bank import nearest_rows, run_engine
from kad_export.budget import BankSettings, make_plan, probe, scratch_folder
from kad_export.describe import INDEX_FILE, describe_training, versions
from kad_export.engine import LocalEngine
from kad_export.errors import ExportError
from kad_export.features import ExtractorSpec
from kad_export.holdout import is_clear
from kad_export.job import Job
from kad_export.options import PatchCoreOptions, check_options
from kad_export.report import Silent
from kad_export.steps import check_output, write
from kad_export.stored_index import store_index
from kad_export.survey import survey_boards
from kad_export.suspects import warn_of_anomalous
from kad_export.verify import Expected, expected_of_maps, parity_gate
from kad_sdk import manifest as schema
from kad_sdk._native import NativeIndex, default_threads
from kad_sdk.artifact import Artifact, PatchCoreArtifact
from kad_sdk.artifact_folder import read_inspection, read_manifest
from kad_sdk.dataset import scan_dataset
from kad_sdk.errors import InvalidArgumentError, OutputError
from kad_sdk.inspection import manifest_digest
from kad_sdk.prepare import resize_text
from kad_sdk.session import NetworkSession
from kad_sdk.verify import golden_inputs

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

    from kad_export.coreset import Coreset
    from kad_export.features import BoardTiles
    from kad_sdk.rules import RulesEntry

__all__ = ["ExtendOptions", "extend_artifact", "joint_certificate"]


@dataclass(frozen=True)
class ExtendOptions:
    """How a bank is extended; the command line has the same names and defaults.

    Attributes
    ----------
    max_rows : int or None
        Rows to add at most; None: as many as the first export would have taken of so many patches,
        by its fraction and its largest bank.
    memory_bytes, scratch, threads, batch
        Budget, folder for temporary files, processor threads (None: all), tiles computed at a time.
    force : bool
        Replace an artifact that exists.
    """

    max_rows: int | None = None
    memory_bytes: int = 4 * 2**30
    scratch: Path | None = None
    threads: int | None = None
    batch: int = 16
    force: bool = False

    def __post_init__(self) -> None:
        checks = {
            "max_rows": (self.max_rows is None or self.max_rows >= 1, "at least 1 row"),
            "memory_bytes": (self.memory_bytes >= 1, "at least 1 byte"),
            "threads": (self.threads is None or self.threads >= 1, "at least 1"),
            "batch": (self.batch >= 1, "at least 1 tile"),
        }
        check_options(self, checks)


@dataclass(frozen=True)
class _Addition:
    """What the new boards give: rows, where they came from, and the certificate."""

    bank: np.ndarray  # (k, D) float32
    image: np.ndarray  # (k,) int32, into the new boards
    xy: np.ndarray  # (k, 2) int32
    coreset: Coreset
    candidates: int


def extend_artifact(
    parent: str | os.PathLike[str],
    data: str | os.PathLike[str],
    out: str | os.PathLike[str],
    options: ExtendOptions | None = None,
    *,
    console: Silent | None = None,
) -> Path:
    """Add good boards to an artifact's bank, verify the result, and write it as a new artifact.

    Parameters
    ----------
    parent : path
        A PatchCore artifact; it stays as it is.
    data : path
        The good boards: a folder of them, or one with ``train/``.
    out : path
        The artifact to make, ``NAME.kad``.
    options : ExtendOptions, optional
    console : Silent, optional
        Told the progress; silent by default.

    Returns
    -------
    Path
        The artifact.

    Raises
    ------
    ExportError
        The new boards have nothing that the bank does not cover.
    InvalidArgumentError
        The artifact has no memory bank.
    OutputError
        `out` is the artifact itself, and it was calibrated or replaced meanwhile.
    KadError
        Each other way to fail has its own class, see :mod:`kad_sdk.errors` and
        :mod:`kad_export.errors`.
    """
    options, console = options or ExtendOptions(), console or Silent()
    target = check_output(Path(out), force=options.force)
    artifact = _opened(parent)
    manifest, threads = artifact.manifest, options.threads or default_threads()
    dataset = scan_dataset(data)
    boards = survey_boards(
        dataset.train,
        [],
        _survey_options(manifest, threads),
        console,
        fixed=_fixed(artifact),
    )
    _warn_of_names(boards, manifest, console)
    session = NetworkSession(artifact.network, threads=threads)
    session.check(manifest.graph())
    with scratch_folder(options.scratch) as scratch:
        settings = _settings(manifest, options, scratch)
        addition = _select(artifact, boards, session, settings, console, batch=options.batch)
    _tell(addition, manifest, console)
    samples = [board.sample for board in boards]
    warn_of_anomalous(artifact, samples, console, threads=threads, batch=options.batch)
    tensors = _joint_tensors(artifact, addition, threads)
    console.line("comparing the runtime with PyTorch on the golden tiles")
    with console.step("parity gate"):
        golden, figures = _verify(artifact, tensors, session, threads)
    with console.step("index"):
        index = store_index(tensors, manifest.network.outputs, manifest.patchcore, threads=threads)
    extended = dataclasses.replace(
        manifest,
        created_by=versions(),
        bank=_describe_bank(artifact, boards, addition, has_index=bool(index)),
        thresholds=artifact.thresholds,
        golden=dataclasses.replace(manifest.golden, count=len(golden["score"])),
        training=_joint_training(manifest.training, describe_training(dataset, boards)),
        verification={**manifest.verification, **figures},  # of the network all is as it was
        files={},
        format_version=schema.FORMAT_VERSION,
    )
    files = {
        manifest.network.file: artifact.network,
        manifest.bank.file: tensors,
        manifest.golden.file: golden,
        **index,
    }
    rules, before = _rules_now(artifact), None
    if target.exists() and target.samefile(artifact.path):
        before = dataclasses.replace(artifact.inspection, rules=rules)
    return write(target, extended, files, console, force=options.force, rules=rules, before=before)


def joint_certificate(before: schema.Coreset, radius: float, candidates: int) -> schema.Coreset:
    """Give the certificate of a bank and what was added to it, over the candidates of both.

    Old candidates are within the old radius, and more rows bring them no farther away. Any two old
    rows are at least the old separation apart, as each was picked before the patch that gave it;
    the new ones, and the patch that would have been next, are at least `radius` from all before
    them. So of one more point than there are rows, any two are at least the smaller one apart.

    Parameters
    ----------
    before : Coreset
        The manifest's entry of the old bank.
    radius : float
        That of the extension: how far its next row would have been.
    candidates : int
        Patches of the new boards.
    """
    joint = max(before.radius, radius)
    separation = None
    if before.separation is not None and radius > 0:
        separation = min(before.separation, radius)
    return dataclasses.replace(
        before,
        candidates=before.candidates + candidates,
        radius=joint,
        separation=separation,
        ratio=joint / (separation / 2) if separation else None,
    )


def _opened(path: str | os.PathLike[str]) -> PatchCoreArtifact:
    artifact = Artifact.open(path)
    if not isinstance(artifact, PatchCoreArtifact):
        raise InvalidArgumentError(
            f"{path}: is of method {artifact.manifest.method}, which has no memory bank to add "
            f"boards to: train on all boards with kad-export {artifact.manifest.method}"
        )
    if artifact.manifest.patchcore.mode != "tiles":
        raise InvalidArgumentError(
            f"{path}: was fitted with --mode {artifact.manifest.patchcore.mode}, and only banks of "
            "--mode tiles can be extended: export all boards anew"
        )
    return artifact


def _rules_now(artifact: PatchCoreArtifact) -> tuple[RulesEntry, ...]:
    """Give the rules of the parent as they are now: some may have been set meanwhile."""
    digest = manifest_digest(read_manifest(artifact.path))
    if digest != artifact.inspection.manifest:
        raise OutputError(f"{artifact.path}: was replaced meanwhile: run the command again")
    return read_inspection(artifact.path, manifest=digest).rules


def _survey_options(manifest: schema.PatchCoreManifest, threads: int) -> PatchCoreOptions:
    """Say how the first export cut its boards into tiles."""
    settings = manifest.preprocessing
    return PatchCoreOptions(
        tile=settings.tile,
        stride=settings.stride,
        train_stride=settings.train_stride,
        resize=settings.resize,
        threads=threads,
    )


def _fixed(artifact: PatchCoreArtifact) -> str:
    """Say what the new boards have to suit, and what to do about those that do not."""
    settings = artifact.manifest.preprocessing
    resize = "no resize" if settings.resize is None else f"resize {resize_text(settings.resize)}"
    return (
        f"{artifact.path} has tiles of {settings.tile} x {settings.tile} px and {resize}, which "
        "the new boards have to suit: leave such boards out, or export all boards anew with "
        "kad-export patchcore and another --resize or a smaller --tile"
    )


def _settings(
    manifest: schema.PatchCoreManifest, options: ExtendOptions, scratch: Path
) -> BankSettings:
    coreset, bank = manifest.bank.coreset, manifest.bank
    limits: dict[str, Any] = {"fraction": coreset.fraction}
    if coreset.max_rows is not None:
        limits["max_rows"] = coreset.max_rows
    if options.max_rows is not None:
        limits = {"fraction": 1.0, "max_rows": options.max_rows}
    return BankSettings(
        scratch=scratch,
        **limits,
        seed=coreset.seed,
        points=coreset.points,
        memory_bytes=options.memory_bytes,
        threads=options.threads or default_threads(),
        before=bank.rows,
        projected_dims=coreset.projected_dims or bank.dims,
    )


def _warn_of_names(
    boards: Sequence[BoardTiles], manifest: schema.PatchCoreManifest, console: Silent
) -> None:
    same = {board.sample.name for board in boards} & set(manifest.bank.images)
    if same:
        console.warn(
            f"{len(same)} of {len(boards)} boards have names of images that the bank is of, such "
            f"as {min(same)}: what is said to come from it may come from either"
        )


def _select(
    artifact: PatchCoreArtifact,
    boards: Sequence[BoardTiles],
    session: NetworkSession,
    settings: BankSettings,
    console: Silent,
    *,
    batch: int,
) -> _Addition:
    """Compute the features of the boards, and select among them."""
    manifest, job = artifact.manifest, Job(settings.scratch)
    extract = ExtractorSpec(
        artifact.network,
        manifest.preprocessing,
        manifest.patchcore.grid,
        manifest.patchcore.resampling,
        batch,
        settings.threads,
    ).build(session)
    measured = probe(boards, extract, settings.memory_bytes)
    plan = make_plan(boards, extract.patches, measured, settings)
    console.line(f"beside {settings.before:,} rows at most: {plan}")
    engine = LocalEngine(boards, extract, plan, settings, job, before=artifact.bank)
    radius = manifest.bank.coreset.radius
    coreset, rows = run_engine(engine, plan, settings, job, console, enough=radius)
    return _Addition(*rows, coreset, plan.candidates)


def _tell(addition: _Addition, manifest: schema.PatchCoreManifest, console: Silent) -> None:
    """Say what was added, and whether it is enough."""
    n, before, radius = len(addition.bank), manifest.bank.coreset.radius, addition.coreset.radius
    if not n:
        raise ExportError(
            f"nothing to add: of the {addition.candidates:,} new patches none is farther than "
            f"{radius:.4g} from the bank, whose own radius is {before:.4g}; the artifact covers "
            "these boards as it is"
        )
    console.line(f"{n:,} rows added; no new patch is farther than {radius:.4g} from the bank")
    if radius > before:
        console.warn(
            f"the new boards are covered to {radius:.4g}, the old ones to {before:.4g}: the limit "
            f"of {n:,} rows was reached. Raise --max-rows, or export all boards anew"
        )


def _joint_tensors(
    artifact: PatchCoreArtifact, addition: _Addition, threads: int
) -> dict[str, np.ndarray]:
    """Give the tensors of ``bank.safetensors``: the old rows first, as they were."""
    bank = np.concatenate([artifact.bank, addition.bank])
    image = addition.image + np.int32(len(artifact.manifest.bank.images))
    return {
        "bank": bank,
        "neighbors": nearest_rows(bank, threads),
        "source_image": np.concatenate([artifact.source_image, image]),
        "source_xy": np.concatenate([artifact.source_xy, addition.xy]),
    }


def _describe_bank(
    artifact: PatchCoreArtifact,
    boards: Sequence[BoardTiles],
    addition: _Addition,
    *,
    has_index: bool,
) -> schema.Bank:
    bank, radius = artifact.manifest.bank, addition.coreset.radius
    extension = schema.Extension(
        parent=artifact.inspection.manifest,
        rows=len(addition.bank),
        images=len(boards),
        candidates=addition.candidates,
        radius=radius,
    )
    return dataclasses.replace(
        bank,
        rows=bank.rows + extension.rows,
        images=(*bank.images, *(board.sample.name for board in boards)),
        coreset=joint_certificate(bank.coreset, radius, addition.candidates),
        index_file=INDEX_FILE if has_index else None,
        extended=(*bank.extended, extension),
    )


def _joint_training(old: schema.Training, new: schema.Training) -> schema.Training:
    """Give the entry of both sets of boards; its fingerprint is one of both fingerprints."""
    both = hashlib.sha256(f"{old.fingerprint}\0{new.fingerprint}\n".encode())
    return dataclasses.replace(
        old,
        images=old.images + new.images,
        tiles=old.tiles + new.tiles,
        fingerprint=both.hexdigest(),
    )


def _verify(
    artifact: PatchCoreArtifact,
    tensors: dict[str, np.ndarray],
    session: NetworkSession,
    threads: int,
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Pass the parity gate with the golden tiles that are there, and their PyTorch base maps.

    Tiles that now score at the threshold are left out, as an export leaves them out.
    """
    manifest, golden, tau = artifact.manifest, artifact.golden(), artifact.thresholds.tile
    common = {"neighbors": tensors["neighbors"], "settings": manifest.patchcore, "tau": tau}
    base_maps = [maps.copy() for maps in golden.base_maps]  # PyTorch wants them writable
    whole = expected_of_maps(base_maps, bank=tensors["bank"], **common)
    keep = is_clear(whole.score, tau)
    if not keep.any():
        raise ExportError(
            f"all golden tiles score within 1 % of the threshold {tau:g} with this bank: calibrate "
            "the artifact first, or export all boards anew"
        )
    expected = Expected(
        base_maps=tuple(maps[keep] for maps in whole.base_maps),
        dist=whole.dist[keep],
        score=whole.score[keep],
        anomalous=whole.anomalous[keep],
    )
    index = NativeIndex(tensors["bank"], threads=threads)
    figures = parity_gate(
        expected,
        session,
        index,
        golden_inputs(golden.tiles[keep], manifest.preprocessing),
        layers=manifest.network.layers,
        tolerance=manifest.golden.tolerance,
        threads=threads,
        **common,
    )
    index.close()
    maps = {f"base_map_{i}": maps for i, maps in enumerate(expected.base_maps)}
    own = {name: getattr(expected, name) for name in ("dist", "score", "anomalous")}
    return {**maps, **own, "tiles": golden.tiles[keep]}, figures
