"""What `make gpu-check` runs, and how it ends, without a GPU."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path

import pytest


@pytest.fixture
def gpu_check(monkeypatch):
    path = Path(__file__).with_name("gpu_check.py")
    spec = importlib.util.spec_from_file_location("gpu_check", path)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "gpu_check", module)
    spec.loader.exec_module(module)
    return module


def _chosen(words, name):
    """Whether pytest -k takes a test."""
    terms = re.sub(r"[\w-]+", lambda m: m[0] if m[0] in {"and", "or", "not"} else repr(m[0]), words)
    return eval(re.sub(r"'[\w-]+'", lambda m: str(m[0][1:-1] in name), terms))


@pytest.mark.parametrize(
    ("file", "name", "chosen"),
    [
        ("cuda_stages", "test_tiles_are_those_of_the_reference[order0-shape0]", True),  # cut
        ("cuda_stages", "test_tiles_are_those_of_the_reference[order0-shape3]", False),
        ("cuda_stages", "test_scores_of_the_other_forms[paper]", True),  # resample, peaks, clear
        ("cuda_kernels", "test_search_is_that_of_the_reference[2-65-17-2]", True),  # merge
        ("cuda_kernels", "test_search_is_that_of_the_reference[2-65-17-16]", False),
        (
            "cuda_kernels",
            "test_pool_stops_where_a_point_outside_precedes[4]",
            True,
        ),  # lower, choose
        ("tensor_tier", "test_search_is_that_of_the_reference", True),  # project, screen, decide
        ("tensor_tier", "test_pool_selects_as_the_reference[3000-spread]", True),  # pick
        ("tensor_tier", "test_pool_selects_as_the_reference[20000-spread]", False),  # too slow
    ],
)
def test_the_sanitizer_sees_every_kernel_in_small_cases(gpu_check, file, name, chosen):
    path = f"tests/kernels/test_{file}.py"
    assert _chosen(gpu_check.SANITIZED[path], name) == chosen
    assert name.partition("[")[0] in (gpu_check.ROOT / path).read_text()
