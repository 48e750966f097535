"""A CutPaste artifact in an environment with the runtime's extra alone: no PyTorch, same scores."""

from __future__ import annotations

import json
import subprocess
import sys
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PROGRAM = """
import hashlib, importlib.util, json, sys
absent = ("torch", "torchvision", "onnx", "sklearn", "matplotlib", "numba")
found = [name for name in absent if sys.argv[3] == "bare" and importlib.util.find_spec(name)]
assert not found, found
import kad_sdk
with kad_sdk.Detector.open(sys.argv[1], threads=1) as detector:
    result = detector.score(sys.argv[2])
print(json.dumps({
    "file": kad_sdk.__file__,
    "score": result.score,
    "tiles": [float(tile.score) for tile in result.tiles],
    "map": hashlib.sha256(result.map.tobytes()).hexdigest(),
    "torch": "torch" in sys.modules,
}))
"""


def _output(*words):
    done = subprocess.run([str(w) for w in words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    """Install the wheel with the extra ``cpu`` into an environment of its own; give its Python."""
    folder = tmp_path_factory.mktemp("bare")
    pip = (sys.executable, "-m", "pip", "--quiet")
    # In the build folder of the editable install, where the core is compiled already.
    _output(*pip, "wheel", ROOT, "--no-deps", "--no-build-isolation", "-w", folder)
    venv.create(folder / "venv", with_pip=True)
    (wheel,) = folder.glob("*.whl")
    python = folder / "venv" / "bin" / "python"
    limits = ("--constraint", ROOT / "constraints.txt")
    _output(python, "-m", "pip", "--quiet", "install", *limits, f"{wheel}[cpu]")
    return python


def test_it_scores_the_same_without_pytorch(bare, exported, small_dataset):
    board = small_dataset / "test" / "spot" / "000.png"
    words = ("-I", "-c", PROGRAM, exported, board)
    without = json.loads(_output(bare, *words, "bare"))
    with_torch = json.loads(_output(sys.executable, *words, "full"))
    assert Path(without.pop("file")).is_relative_to(bare.parents[1])
    with_torch.pop("file")
    assert len(without["tiles"]) > 10
    assert without == with_torch
    assert not without["torch"]


def test_its_commands_run_without_pytorch(bare, exported, small_dataset, tmp_path):
    kad = bare.with_name("kad")
    assert "cutpaste" in _output(kad, "inspect", exported)
    assert _output(kad, "verify", exported)
    board = small_dataset / "test" / "spot" / "000.png"
    _output(kad, "score", exported, board, "--out", tmp_path / "scores", "--hot")
    assert (tmp_path / "scores" / "000_hot.png").is_file()
    refused = subprocess.run(
        [kad.with_name("kad-export"), "cutpaste", small_dataset, "--out", tmp_path / "x.kad"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert refused.returncode == 1
    assert "pip install 'kad-sdk[cpu,export]'" in refused.stderr
    assert "Traceback" not in refused.stderr
