"""What a fresh process gets from ``import kad_sdk``, and how long that takes."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

HEAVY = {"torch", "torchvision", "onnx", "onnxruntime", "numba", "sklearn", "matplotlib"}

PROGRAM = """
import json, sys, time
before = set(sys.modules)
begin = time.perf_counter()
import kad_sdk
taken = time.perf_counter() - begin
{more}
print(json.dumps([taken, sorted({{m.split(".")[0] for m in set(sys.modules) - before}})]))
"""


def imported(more=""):
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(more=more)],
        check=True,
        capture_output=True,
        text=True,
    )
    seconds, modules = json.loads(done.stdout)
    return seconds, set(modules)


def test_import_is_quick_and_brings_in_nothing_heavy(capsys):
    runs = [imported() for _ in range(5)]
    seconds = min(taken for taken, _ in runs)
    with capsys.disabled():
        sys.stdout.write(f"\nimport kad_sdk: {1e3 * seconds:.0f} ms\n")
    assert seconds < 0.15
    assert not runs[0][1] & (HEAVY | {"numpy", "cv2", "click"})


def test_naming_everything_brings_in_no_training_stack():
    _, modules = imported("[getattr(kad_sdk, name) for name in kad_sdk.__all__]")
    assert {"numpy", "cv2"} <= modules
    assert not modules & HEAVY


def test_the_command_line_help_brings_in_nothing_heavy():
    _, modules = imported("import kad_sdk.cli")
    assert not modules & (HEAVY | {"numpy", "cv2"})


def test_public_names():
    import kad_sdk

    for name in kad_sdk.__all__:
        assert getattr(kad_sdk, name) is not None
    assert set(kad_sdk.__all__) <= set(dir(kad_sdk))
    with pytest.raises(AttributeError, match="no attribute 'Detektor'"):
        _ = kad_sdk.Detektor
