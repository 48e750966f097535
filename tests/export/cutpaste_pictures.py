"""Draw the pictures of docs/cutpaste.md.

    python tests/export/cutpaste_pictures.py FOLDER docs/images

FOLDER is what ``cutpaste_quality.py --keep`` has left: boards and a trained artifact. Made are
``cutpaste_augmentations.jpg``, each augmentation of the same normal tiles, and
``cutpaste_gradcam.jpg``, defects beside what the artifact says of them.
"""

from __future__ import annotations

import sys
from pathlib import Path

import cv2
import numpy as np
from kad_export.cutpaste.augment import SCENARIOS, AugmentationSettings
from kad_export.data import load_training_board

from kad_sdk.dataset import scan_dataset
from kad_sdk.detector import Detector
from kad_sdk.images import read_image
from kad_sdk.render import render_map

TILE, ROWS, GAP, BAR = 160, 4, 6, 22
SIDE = 240  # px around a defect
QUALITY = [cv2.IMWRITE_JPEG_QUALITY, 85]


def sheet(rows: list[list[np.ndarray]], titles: list[str]) -> np.ndarray:
    """Lay pictures of one size out in rows, a title above each column."""
    height, width = rows[0][0].shape[:2]
    page = np.full(
        (BAR + len(rows) * (height + GAP), len(titles) * (width + GAP) - GAP, 3), 255, np.uint8
    )
    for column, title in enumerate(titles):
        place = (column * (width + GAP) + 2, BAR - 7)
        cv2.putText(page, title, place, cv2.FONT_HERSHEY_SIMPLEX, 0.5, (0, 0, 0), 1, cv2.LINE_AA)
    for i, row in enumerate(rows):
        for j, picture in enumerate(row):
            y, x = BAR + i * (height + GAP), j * (width + GAP)
            page[y : y + height, x : x + width] = picture
    return page


def augmentations(boards: Path) -> np.ndarray:
    """Draw each augmentation into tiles of the normal boards."""
    rows, settings = [], AugmentationSettings()
    for number, sample in enumerate(scan_dataset(boards).train[:ROWS]):
        image, xy = load_training_board(sample, tile=TILE, stride=TILE // 2)
        tiles = [np.ascontiguousarray(image[y : y + TILE, x : x + TILE]) for x, y in xy]
        tile = sorted(tiles, key=np.std)[-1 if number % 2 else len(tiles) // 2]  # edges, or plain
        marked = [
            draw(tile, np.random.default_rng(number), settings)[0] for draw in SCENARIOS.values()
        ]
        rows.append([tile, *marked])
    return sheet(rows, ["normal", *SCENARIOS])


def explained(boards: Path, artifact: Path) -> np.ndarray:
    """Show a defect of each kind, its ground truth, and the artifact's map of it."""
    rows, seen = [], set()
    with Detector.open(artifact, threads=1) as detector:
        for sample in scan_dataset(boards).test:
            new = [defect for defect in sample.defects if defect.kind not in seen]
            if not new:
                continue
            image = read_image(sample.path)
            heat = render_map(detector.score(image, sample.annotation), max_side=None)
            heat = cv2.resize(heat, image.shape[1::-1], interpolation=cv2.INTER_LINEAR)
            truth = cv2.cvtColor(cv2.imread(str(sample.mask_path), 0), cv2.COLOR_GRAY2RGB)
            for defect in new[:1]:
                seen.add(defect.kind)
                rows.append([crop(picture, defect.box) for picture in (image, truth, heat)])
    return sheet(rows, ["board", "ground truth", "Grad-CAM"])


def crop(picture: np.ndarray, box: tuple[int, int, int, int]) -> np.ndarray:
    """Cut out the surroundings of a box (x, y, width, height)."""
    centre = (box[1] + box[3] // 2, box[0] + box[2] // 2)
    y, x = (
        int(np.clip(c - SIDE // 2, 0, n - SIDE))
        for c, n in zip(centre, picture.shape[:2], strict=True)
    )
    return picture[y : y + SIDE, x : x + SIDE]


def main() -> None:
    """Draw both pictures."""
    folder, out = map(Path, sys.argv[1:])
    pictures = {
        "cutpaste_augmentations.jpg": augmentations(folder / "boards"),
        "cutpaste_gradcam.jpg": explained(folder / "boards", folder / "trained.kad"),
    }
    for name, picture in pictures.items():
        cv2.imwrite(str(out / name), picture[:, :, ::-1], QUALITY)


if __name__ == "__main__":
    main()
