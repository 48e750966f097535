"""Score tiles or a board in a fresh process: how long it takes to begin, what memory it takes.

    python -m kad_bench.process_probe JSON

prints one JSON object. JSON holds the fields of :class:`Job`. A process of its own, because what
another measurement has loaded or freed would hide both.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from kad_bench.level import follow_level

__all__ = ["Job", "forget_files", "probe_process"]


@dataclass(frozen=True)
class Job:
    """What a fresh process does.

    Attributes
    ----------
    engine : str
        ``"kad"`` or ``"thesis"``.
    artifact : str
        Its folder.
    image : str
        A file.
    weights : str
        State dict of the trunk for ``"thesis"``, a file of ``torch.save``.
    threads : int
    provider : str
    batch : int
        Of kad.
    tiles : int
        The thesis' path scores so many of the image's tiles, evenly spread: its memory does not
        grow with their number.
    """

    engine: str
    artifact: str
    image: str
    weights: str
    threads: int
    provider: str = "cpu"
    batch: int = 16
    tiles: int = 1


def probe_process(job: Job) -> dict[str, Any]:
    """Do a job in a process of its own.

    Returns
    -------
    dict
        ``total_s``, from the start of the process to its answer; ``stages_s``: ``interpreter``,
        ``import``, ``open``, ``score``; ``scores``, of all tiles or those that the thesis' path
        scored; ``peak_bytes`` of the process'
        resident memory, ``opened_bytes`` before it scored, ``device_bytes`` of GPU memory; None
        where the system does not say.
    """
    command = [sys.executable, "-m", "kad_bench.process_probe", json.dumps(asdict(job))]
    start = time.monotonic()  # one clock for all processes, which setting the time does not move
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)  # noqa: S603
    found: dict[str, Any] = json.loads(done.stdout)
    found["stages_s"] = {"interpreter": found.pop("began") - start, **found["stages_s"]}
    found["total_s"] = sum(found["stages_s"].values())
    return found


def forget_files(folder: Path) -> None:
    """Ask the system to drop a folder's files from memory, so that they are read from disk again.

    Does nothing where there is no such call.
    """
    for path in folder.iterdir():
        if hasattr(os, "posix_fadvise"):
            descriptor = os.open(path, os.O_RDONLY)
            try:
                os.fsync(descriptor)  # pages that are not written yet cannot be dropped
                os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            finally:
                os.close(descriptor)


def _do(job: Job, began: float) -> dict[str, Any]:
    marks = [began]
    steps = _kad_steps(job) if job.engine == "kad" else _thesis_steps(job)
    opened_bytes, scores = None, []
    for step in steps:
        marks.append(time.monotonic())
        if step is not None:
            scores = step
        elif len(marks) == 3:
            opened_bytes = _resident("VmRSS")
    names = ("import", "open", "score")
    stages = {name: marks[i + 1] - marks[i] for i, name in enumerate(names)}
    return {
        "began": began,
        "stages_s": stages,
        "scores": scores,
        "peak_bytes": _resident("VmHWM"),
        "opened_bytes": opened_bytes,
        "device_bytes": _device_bytes(),
    }


def _kad_steps(job: Job) -> Any:
    """Yield after importing, opening, scoring."""
    from kad_sdk import Detector  # noqa: PLC0415 - its time is what is measured

    yield None
    detector = Detector.open(
        job.artifact,
        provider=job.provider,
        threads=job.threads,
        batch=job.batch,
        build_engine=job.provider == "tensorrt",
    )
    yield None
    yield [tile.score for tile in detector.score(job.image).tiles]


def _thesis_steps(job: Job) -> Any:
    """Yield after importing, opening, scoring."""
    import torch  # noqa: PLC0415 - its time is what is measured
    from kad_export.backbones import build_trunk  # noqa: PLC0415

    from kad_bench.thesis_path import BoardMap, ThesisPatchCore, spread  # noqa: PLC0415
    from kad_sdk._native import plan_tiles  # noqa: PLC0415
    from kad_sdk.images import read_image  # noqa: PLC0415
    from kad_sdk.manifest import Manifest  # noqa: PLC0415
    from kad_sdk.tensors import read_tensors  # noqa: PLC0415

    torch.set_num_threads(job.threads)
    yield None
    folder = Path(job.artifact)
    manifest = Manifest.from_json((folder / "manifest.json").read_bytes(), job.artifact)
    trunk = build_trunk(manifest.network.backbone, manifest.network.layers)
    trunk.network.load_state_dict(torch.load(job.weights, weights_only=True))
    bank = read_tensors(folder / manifest.bank.file)["bank"]
    settings = manifest.preprocessing
    device = "cpu" if job.provider == "cpu" else "cuda"
    path = ThesisPatchCore(trunk, bank, mean=settings.mean, std=settings.std, device=device)
    yield None
    image, side = read_image(job.image), settings.tile
    xy = plan_tiles(*image.shape[:2], tile=side, stride=settings.stride, borders=(), labels=())
    board_map, scores = BoardMap(*image.shape[:2]), []
    for x, y in xy[spread(job.tiles, len(xy))]:
        found = path.score(image[y : y + side, x : x + side])
        board_map.add(x, y, found.map)
        scores.append(found.score)
    board_map.map()
    yield scores


def _resident(field: str) -> int | None:
    status = Path("/proc/self/status")
    if not status.is_file():
        return None
    fields = dict(line.split(":", 1) for line in status.read_text().splitlines())
    return 1024 * int(fields[field].split()[0])


def _device_bytes() -> int | None:
    """Memory that this process has on GPUs, by nvidia-smi; None without one."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return None
    query = ["--query-compute-apps=pid,used_memory", "--format=csv,noheader,nounits"]
    done = subprocess.run([tool, *query], capture_output=True, text=True, check=False)  # noqa: S603
    rows = [line.split(", ") for line in done.stdout.splitlines()]
    own = [int(mib) << 20 for pid, mib in rows if int(pid) == os.getpid() and mib.isdigit()]
    return sum(own) if own else None


if __name__ == "__main__":
    _began = time.monotonic()
    follow_level()
    json.dump(_do(Job(**json.loads(sys.argv[1])), _began), sys.stdout)
