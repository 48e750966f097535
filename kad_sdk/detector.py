"""The front door: open an artifact, score boards."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from kad_sdk._native import NativeIndex
from kad_sdk.annotations import find_annotation
from kad_sdk.artifact import Artifact, PatchCoreArtifact
from kad_sdk.errors import (
    AnnotationError,
    ArtifactError,
    ImageReadError,
    ImageTooSmallError,
    InvalidArgumentError,
    UnsupportedImageError,
)
from kad_sdk.images import is_image_file, read_image
from kad_sdk.result import Nearest, Region, Result, TileScore
from kad_sdk.scoring import BoardScorer, Stopwatch
from kad_sdk.session import NetworkSession, default_threads

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Iterator, Mapping
    from types import TracebackType
    from typing import Self

    from numpy.typing import NDArray

    from kad_sdk._native import RegionRecord
    from kad_sdk.annotations import Annotation
    from kad_sdk.scoring import BoardScores

__all__ = ["Detector", "list_images"]

_MASK_SUFFIXES = ("_groundtruth.png", "_mask.png")


class Detector:
    """An opened artifact with its network and its search index.

    Immutable once open: one detector may score in several threads at the same time. Use it as a
    context manager, or call :meth:`close`.

    Attributes
    ----------
    artifact
        The artifact, with its manifest.
    provider, device, precision
        What the network really runs on, for example ``"cpu"``, ``"cpu"``, ``"fp32"``.
    threads, batch
        Threads used, and tiles in memory at a time. Scores depend on neither.
    tile_threshold, map_threshold
        tau of tiles and of the map.
    threshold
        tau of boards: one of the two, as the artifact says.
    """

    def __init__(
        self,
        artifact: PatchCoreArtifact,
        session: NetworkSession,
        *,
        threads: int,
        batch: int,
        tile_threshold: float | None,
        map_threshold: float | None,
    ) -> None:
        thresholds = artifact.manifest.thresholds
        self.artifact = artifact
        self.threads, self.batch = threads, batch
        self.tile_threshold = _threshold("tile_threshold", tile_threshold, thresholds.tile)
        self.map_threshold = _threshold("map_threshold", map_threshold, thresholds.map)
        self._by_map = thresholds.board == "map-peak"
        self.threshold = self.map_threshold if self._by_map else self.tile_threshold
        self.provider, self.device = session.provider, session.device
        self.precision = session.precision
        self._index = NativeIndex(artifact.bank, threads=threads)
        self._scorer: BoardScorer | None = BoardScorer(
            session,
            self._index,
            preprocessing=artifact.manifest.preprocessing,
            patchcore=artifact.manifest.patchcore,
            map_settings=artifact.manifest.map,
            neighbors=artifact.neighbors,
            threads=threads,
            batch=batch,
        )

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        provider: str = "cpu",
        threads: int | None = None,
        batch: int = 16,
        *,
        device_id: int = 0,
        tile_threshold: float | None = None,
        map_threshold: float | None = None,
    ) -> Detector:
        """Open an artifact.

        Parameters
        ----------
        path
            The folder ``NAME.kad``.
        provider
            ``"cpu"``, ``"cuda"`` or ``"tensorrt"``: what runs the network. Never replaced by
            another.
        threads
            Threads of one call; None: all that the process may use.
        batch
            Tiles in memory at a time.
        device_id
            Which GPU.
        tile_threshold, map_threshold
            Used instead of the artifact's own, when given.

        Raises
        ------
        ArtifactError
            The artifact is missing, damaged or too new.
        ProviderUnavailableError, MissingDependencyError
            The network cannot run as asked.
        InvalidArgumentError
            An option is out of range.
        """
        threads = default_threads() if threads is None else threads
        if threads < 1 or batch < 1:
            raise InvalidArgumentError(
                f"threads and batch: expected at least 1, got {threads} and {batch}"
            )
        artifact = Artifact.open(path)
        if not isinstance(artifact, PatchCoreArtifact):
            raise ArtifactError(f"{path}: method {artifact.manifest.method!r} cannot be scored yet")
        session = NetworkSession(
            artifact.network,
            provider=provider,
            threads=threads,
            device_id=device_id,
            max_batch=batch,
        )
        session.check(artifact.manifest)
        return cls(
            artifact,
            session,
            threads=threads,
            batch=batch,
            tile_threshold=tile_threshold,
            map_threshold=map_threshold,
        )

    def close(self) -> None:
        """Free the index and the network; no other thread may be scoring. Safe to call twice."""
        self._scorer = None
        self._index.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Detector({str(self.artifact.path)!r}, provider={self.provider!r})"

    def score(
        self,
        image: NDArray[Any] | str | os.PathLike[str],
        annotation: Annotation | None = None,
        pixel_format: str | None = None,
    ) -> Result:
        """Score a board.

        Parameters
        ----------
        image
            A file, or an array: (H, W) grey, (H, W, 3) RGB or (H, W, 4) RGBA, uint8 or uint16,
            any row stride.
        annotation
            Active areas and label stickers; None: all of the image is scored.
        pixel_format
            Where dtype and shape do not say it: ``"bgr8"``, ``"bgra8"``, ``"bgr16"``.

        Raises
        ------
        ImageReadError, UnsupportedImageError
            The file cannot be read, or its pixels are of a kind that is not scored.
        ImageTooSmallError
            The image, or an active area, is smaller than a tile.
        AnnotationError
            A rectangle leaves the image, or the stickers leave no tile.
        """
        if self._scorer is None:
            raise InvalidArgumentError("this detector is closed; open the artifact again")
        if isinstance(image, np.ndarray):
            return self._result(self._scorer.score(image, annotation, pixel_format), image.shape)
        if pixel_format is not None:
            raise InvalidArgumentError("pixel_format is for arrays; a file says its own")
        watch = Stopwatch()
        with watch.stage("read"):
            pixels = read_image(image)
        try:
            scores = self._scorer.score(pixels, annotation)
        except (AnnotationError, ImageTooSmallError, UnsupportedImageError) as error:
            raise type(error)(f"{image}: {error}") from error
        result = self._result(scores, pixels.shape)
        return replace(
            result, image_name=Path(image).name, timings_ms={**watch.ms, **result.timings_ms}
        )

    def score_batch(
        self,
        images: Iterable[NDArray[Any] | str | os.PathLike[str]],
        annotations: Iterable[Annotation | None] | None = None,
    ) -> list[Result]:
        """Score several boards, as :meth:`score` does each.

        The results hold the maps: for many large boards iterate and call :meth:`score`.
        """
        if annotations is None:
            return [self.score(image) for image in images]
        return [self.score(i, a) for i, a in zip(images, annotations, strict=True)]

    def score_folder(
        self,
        folder: str | os.PathLike[str],
        annotations: Mapping[str, Annotation] | None = None,
    ) -> Iterator[tuple[Path, Result]]:
        """Score the images of a folder and its subfolders one by one, by name.

        Parameters
        ----------
        folder
            Ground truth (``*_groundtruth.png``, ``*_mask.png``) and hidden files are left out.
        annotations
            What :func:`kad_sdk.read_annotations` gives; every image has to be in it.
        """
        for path in list_images(folder):
            annotation = None if annotations is None else find_annotation(annotations, path)
            yield path, self.score(path, annotation)

    def _result(self, scores: BoardScores, shape: tuple[int, ...]) -> Result:
        """Apply the thresholds, and bring map and regions to the image's own pixels."""
        size, frame = (shape[0], shape[1]), (scores.map.shape[0], scores.map.shape[1])
        watch = Stopwatch()
        with watch.stage("regions"):
            records = scores.board.regions(
                scores.map,
                threshold=self.map_threshold,
                min_area_px=self.artifact.manifest.thresholds.min_region_area_px,
            )
            regions = tuple(self._region(record, size, frame) for record in records)
            board_map = scores.map if size == frame else _resize_map(scores.map, size)
            scores.board.close()
        settings = self.artifact.manifest.thresholds
        tau, scale = self.tile_threshold, settings.tile_scale
        tiles = tuple(
            TileScore(x, y, score, _normalised(score, tau, scale), score >= tau)
            for (x, y), score in zip(scores.xy.tolist(), scores.scores.tolist(), strict=True)
        )
        score = float(np.nanmax(scores.map) if self._by_map else scores.scores.max())
        scale = settings.map_scale if self._by_map else settings.tile_scale
        return Result(
            score=score,
            normalised_score=_normalised(score, self.threshold, scale),
            anomalous=score >= self.threshold,
            threshold=self.threshold,
            tile_threshold=self.tile_threshold,
            map_threshold=self.map_threshold,
            tiles=tiles,
            map=board_map,
            regions=regions,
            timings_ms={**scores.timings, **watch.ms},
            image_size=size,
            frame_size=frame,
        )

    def _region(
        self,
        record: RegionRecord,
        size: tuple[int, int],
        frame: tuple[int, int],
    ) -> Region:
        source_x, source_y = self.artifact.source_xy[record.bank_row].tolist()
        image = self.artifact.manifest.bank.images[self.artifact.source_image[record.bank_row]]
        sy, sx = size[0] / frame[0], size[1] / frame[1]
        x, y = math.floor(record.x * sx), math.floor(record.y * sy)
        return Region(
            x=x,
            y=y,
            width=min(math.ceil((record.x + record.width) * sx), size[1]) - x,
            height=min(math.ceil((record.y + record.height) * sy), size[0]) - y,
            area_px=max(1, round(record.area_px * sx * sy)),
            peak=record.peak,
            peak_xy=(int((record.peak_x + 0.5) * sx), int((record.peak_y + 0.5) * sy)),
            distance=record.distance,
            nearest=Nearest(image, source_x, source_y),
        )


def _normalised(score: float, tau: float, scale: float) -> float:
    return 0.5 * (1 + math.tanh(0.5 * (score - tau) / scale))  # the logistic function, unoverflown


def _threshold(name: str, value: float | None, own: float) -> float:
    if value is None:
        return own
    if not math.isfinite(value) or value <= 0:
        raise InvalidArgumentError(f"{name}: expected a number above 0, got {value}")
    return float(value)


def _resize_map(anomaly_map: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float32]:
    """Bilinear to (height, width); NaN stays out of its neighbours' values."""
    to = (size[1], size[0])
    scored = ~np.isnan(anomaly_map)
    if scored.all():
        return np.asarray(cv2.resize(anomaly_map, to, interpolation=cv2.INTER_LINEAR))
    values = cv2.resize(np.where(scored, anomaly_map, 0), to, interpolation=cv2.INTER_LINEAR)
    weight = cv2.resize(scored.astype(np.float32), to, interpolation=cv2.INTER_LINEAR)
    values[weight < 0.5] = np.nan
    np.divide(values, weight, out=values, where=weight >= 0.5)
    return np.asarray(values)


def list_images(folder: str | os.PathLike[str]) -> list[Path]:
    """List the images in a folder and its subfolders, sorted; ground truth is left out.

    Raises
    ------
    ImageReadError
        There is no such folder, or no image in it.
    """
    root = Path(folder)
    if not root.is_dir():
        raise ImageReadError(f"{root}: no such folder")
    found = sorted(
        path
        for path in root.rglob("*")
        if is_image_file(path) and not path.name.endswith(_MASK_SUFFIXES) and path.is_file()
    )
    if not found:
        raise ImageReadError(f"{root}: no images in this folder")
    return found
