"""The CUDA kernels in numba's simulator, which must be chosen before numba is imported."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("numba.cuda", reason="numba-cuda is not installed: pip install 'kad-sdk[gpu]'")

TESTS = Path(__file__).parents[1]


@pytest.mark.parametrize(
    "cases",
    [
        "kernels/test_cuda_kernels.py",
        "kernels/test_cuda_stages.py",
        "kernels/test_cuda_scorer.py",
        "kernels/test_cuda_selection.py",
        "kernels/test_tensor_emulator.py",
        "kernels/test_tensor_tier.py",
        "sdk/test_cuda_detector.py",
    ],
)
def test_kernels_in_the_simulator(cases):
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(TESTS / cases)]
    done = subprocess.run(
        command,
        env=os.environ | {"NUMBA_ENABLE_CUDASIM": "1"},
        cwd=TESTS.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "skipped" not in done.stdout
