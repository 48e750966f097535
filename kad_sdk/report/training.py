"""Training patches as pictures: from the data set's own training images, when they are those.

An artifact holds where each of its patches came from, and no training image. The images that lie in
the data set are shown only when names and contents are those that the artifact was fitted on.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from functools import cached_property
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, NamedTuple

from kad_sdk.images import read_image
from kad_sdk.manifest import PatchCoreManifest
from kad_sdk.prepare import frame_size
from kad_sdk.report.pictures import Window, photo

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from kad_sdk.manifest import Manifest
    from kad_sdk.report.gather import Finding

__all__ = ["TrainingImages", "TrainingPatch"]


class TrainingPatch(NamedTuple):
    """A training patch as shown: the picture, and where in it the patch lies."""

    photo: str
    window: Window
    place: tuple[float, float]


class TrainingImages:
    """The training images of an artifact, looked for in a data set's folder."""

    def __init__(self, manifest: Manifest, root: Path) -> None:
        self._manifest, self._root = manifest, root

    @cached_property
    def reason(self) -> str:
        """Why none can be shown; empty when they can."""
        manifest = self._manifest
        if not isinstance(manifest, PatchCoreManifest):
            return f"{manifest.method} keeps no training patches to compare with"
        if manifest.bank.extended:
            return "the bank was extended, and its images are not those of one folder"
        digest = hashlib.sha256()
        for name in manifest.bank.images:
            path = self._path(name)
            if path is None:
                return f"the training image {name} is not in {self._root.name}"
            with path.open("rb") as file:
                content = hashlib.file_digest(file, "sha256").hexdigest()
            digest.update(f"{name}\0{content}\n".encode())
        if digest.hexdigest() != manifest.training.fingerprint:
            return (
                f"the training images in {self._root.name} are not those that the artifact was "
                "fitted on (their SHA-256 differs)"
            )
        return ""

    def _path(self, name: str) -> Path | None:
        """Where an image lies; None when it is not there, or its name leads out of the folder."""
        inside = PurePosixPath(name)
        if inside.is_absolute() or ".." in inside.parts:
            return None
        path = self._root / inside
        return path if path.is_file() else None

    def patches(self, findings: Sequence[Finding]) -> dict[int, TrainingPatch]:
        """Cut out the nearest patch of each finding, by its number; each image is read once."""
        wanted: dict[str, list[int]] = defaultdict(list)
        for i, finding in enumerate(findings):
            if finding.nearest is not None and not self.reason:
                wanted[finding.nearest.image].append(i)
        shown = {}
        for name, numbers in wanted.items():
            image = read_image(self._root / name)
            size = (image.shape[0], image.shape[1])
            frame = frame_size(size, self._manifest.preprocessing.resize)
            for i in numbers:
                nearest = findings[i].nearest
                if nearest is None:
                    continue
                x = (nearest.x + 0.5) * size[1] / frame[1]
                y = (nearest.y + 0.5) * size[0] / frame[0]
                side = findings[i].window.side
                window = Window(int(x) - side // 2, int(y) - side // 2, side)
                shown[i] = TrainingPatch(photo(window.cut(image)), window, (x, y))
        return shown
