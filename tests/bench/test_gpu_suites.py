"""The suites for a GPU in numba's simulator, in a process of their own: they run, and check."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pytest

pytest.importorskip("numba.cuda", reason="numba-cuda is not installed: pip install 'kad-sdk[gpu]'")

WRONG = """
import sys
import numpy as np
from kad_bench import cli, gpu_search_suite as suite
real = suite.open_rows
def open_rows(bank):
    rows = real(bank)
    query = rows.query_device
    def shifted(queries, k):
        dist, index = query(queries, k)
        dist[0, 0] = np.float32(0.5)
        return dist, index
    rows.query_device = shifted
    return rows
suite.open_rows = open_rows
cli.main(sys.argv[1:])
"""


def run(tmp_path, *suites, program=None, simulated="1"):
    start = ["-m", "kad_bench.cli"] if program is None else ["-c", program]
    words = ["run", *suites, "--profile", "smoke", "--threads", "1", "--cache", str(tmp_path)]
    done = subprocess.run(
        [sys.executable, *start, *words, "--json", str(tmp_path / "out.json")],
        env=os.environ | {"NUMBA_ENABLE_CUDASIM": simulated},
        capture_output=True,
        text=True,
        check=False,
    )
    return done, json.loads((tmp_path / "out.json").read_text())["suites"]


def test_search_and_selection(tmp_path):
    done, suites = run(tmp_path, "gpu_search", "gpu_coreset")
    assert done.returncode == 0, done.stdout + done.stderr
    search, coreset = suites["gpu_search"]["cases"], suites["gpu_coreset"]["cases"]
    assert [(case["case"], case["k"]) for case in search] == [
        ("generated 70 x 9", 1),
        ("generated 70 x 9", 2),
    ]
    assert list(search[0]["engines"]) == [
        "kad",
        "torch float32 product (FAISS's method)",
        "torch.cdist",
    ]
    assert list(coreset[0]["engines"]) == ["kad, GPU", "torch plain greedy, GPU"]
    assert "| generated 70 x 9, k = 1 | kad |" in done.stdout
    kept = json.loads((tmp_path / "gpu_search.json").read_text())
    assert kept["cases"] == search


def test_boards(tmp_path):
    done, suites = run(tmp_path, "gpu_board")
    assert done.returncode == 0, done.stdout + done.stderr
    (case,) = suites["gpu_board"]["cases"]
    engines = case["engines"]
    assert engines["kad"]["accuracy"]["largest error"] < 1e-5
    assert 0 < engines["kad, fp16 network, own bank"]["accuracy"]["largest error"] < 0.05
    stages = ["prepare", "upload", "preprocess", "network", "features", "search", "scores"]
    assert list(engines["kad"]["stages_s"])[:7] == stages


def test_a_wrong_answer_fails_its_case(tmp_path):
    done, suites = run(tmp_path, "gpu_search", program=WRONG)
    assert done.returncode == 1
    assert suites["gpu_search"]["cases"] == []
    assert len(suites["gpu_search"]["failed"]) == 2
    assert "k = 1: **failed**: kad_bench.answers.WrongAnswerError: kad has a wrong" in done.stdout
    assert "kad-bench: failed: generated 70 x 9, k = 1" in done.stderr


def test_without_a_gpu_all_is_named(tmp_path):
    device = pytest.importorskip("kad_kernels.device")
    if device.gpu_is_available():
        pytest.skip("there is a GPU")
    done, suites = run(tmp_path, "gpu", simulated="0")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "kad-bench: nothing was measured" in done.stderr
    assert list(suites) == ["gpu_search", "gpu_coreset", "gpu_board"]
    assert suites["gpu_board"]["not_run"] == {
        f"{name}": "no GPU" for name in ("resnet18, 40 rows",)
    }
    assert "- resnet18, 40 rows: not run: no GPU" in done.stdout


def test_the_networks_batch_norms_are_folded():
    torch = pytest.importorskip("torch")
    from kad_bench.torch_network import folded
    from kad_export.patchcore import build_network

    network = build_network("resnet50", ["layer2"], "same-bilinear", "random:0")
    for module in network.modules():  # statistics that are not those of a fresh network
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.uniform_(-0.1, 0.1)
            module.running_var.uniform_(0.5, 2)
    copy = folded(network)
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in copy.modules())
    assert any(isinstance(module, torch.nn.BatchNorm2d) for module in network.modules())
    tiles = torch.from_numpy(np.random.default_rng(0).standard_normal((2, 3, 64, 64), np.float32))
    for got, expected in zip(copy(tiles), network(tiles), strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)
