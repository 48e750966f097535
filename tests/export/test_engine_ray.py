"""A bank built by Ray workers is that of one process."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

ray = pytest.importorskip("ray", reason="ray is not installed: pip install 'kad-sdk[ray]'")

import bank_build  # noqa: E402
from kad_export import shards  # noqa: E402
from kad_export.engine_ray import _parts  # noqa: E402
from kad_export.errors import JobError  # noqa: E402


@pytest.fixture(scope="module")
def cluster():
    """Two processors on this machine; workers find the tests' modules."""
    runtime = {"env_vars": {"PYTHONPATH": str(Path(bank_build.__file__).parent)}}
    ray.init(
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        runtime_env=runtime,
        object_store_memory=100 << 20,
    )
    yield
    ray.shutdown()


@pytest.mark.usefixtures("cluster")
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::FutureWarning")
def test_two_workers_give_the_bank_of_one_process(tmp_path, monkeypatch):
    bank_build.patch_small(monkeypatch)
    expected = bank_build.build(tmp_path / "local")
    assert bank_build.build(tmp_path / "ray", engine="ray", workers=2) == expected
    states = sorted(path.name for path in (tmp_path / "ray").glob("state-*"))
    assert len(states) == 2
    # Another engine and another number of workers go on from what is there.
    assert bank_build.build(tmp_path / "ray") == expected
    (tmp_path / "ray" / "selected.safetensors").unlink()
    assert bank_build.build(tmp_path / "ray", engine="ray", workers=1) == expected


@pytest.mark.usefixtures("cluster")
def test_more_workers_than_processors(tmp_path):
    with pytest.raises(JobError, match="3 workers of 1 threads each are more than"):
        bank_build.build(tmp_path, engine="ray", workers=3)


@pytest.mark.parametrize("n", [1, 2, 3, 5])
def test_parts_are_consecutive_and_never_empty(n):
    boards = [
        dataclasses.make_dataclass("Board", ["xy"])(np.zeros((t, 2))) for t in (90, 1, 1, 1, 1)
    ]
    made = [s for board in boards for s in shards.plan_shards([board], 1)]
    first = np.cumsum([0, *(s.rows for s in made)])
    made = [dataclasses.replace(s, number=i, first_row=int(first[i])) for i, s in enumerate(made)]
    parts = _parts(made, n)
    assert len(parts) == n
    assert all(parts)
    assert [s for part in parts for s in part] == made
