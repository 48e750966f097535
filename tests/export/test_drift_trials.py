"""The count of alarms: no board stands against itself, and the table holds what was counted."""

from __future__ import annotations

from types import SimpleNamespace

import drift_trials
import numpy as np
import pytest

from kad_sdk.drift import MEASURES


def boards(n: int, first: float) -> np.ndarray:
    """Boards that can be told apart by their first measure."""
    return first + np.arange(float(n))[:, None] + np.zeros(len(MEASURES))


@pytest.mark.parametrize("changed", [False, True])
def test_reference_and_day_are_drawn_from_different_boards(monkeypatch, changed) -> None:
    seen: list[tuple[set[float], set[float]]] = []

    def compare(day, reference, **_):
        seen.append((set(day[:, 0]), set(reference[:, 0])))
        return SimpleNamespace(alarm=True)

    monkeypatch.setattr(drift_trials, "compare_boards", compare)
    n, last = drift_trials.N_FRESH, drift_trials.N_CHANGED
    fresh = boards(n, 0)
    # A changed board keeps its number here, so that it is seen when it stands against itself.
    assert drift_trials.alarms(fresh, fresh[n - last :] if changed else None, 0.01) == len(seen)
    assert len(seen) == drift_trials.TRIALS
    for day, reference in seen:
        assert (len(day), len(reference)) == (drift_trials.N_DAY, drift_trials.N_REFERENCE)
        assert not day & reference
    assert len({frozenset(day) for day, _ in seen}) > drift_trials.TRIALS / 2


def test_the_table_counts_alarms_of_each_change(monkeypatch) -> None:
    monkeypatch.setattr(drift_trials, "TRIALS", 20)
    rng = np.random.default_rng(0)
    fresh = rng.normal(size=(drift_trials.N_FRESH, len(MEASURES)))
    found = {"none": fresh, "far": 9 + fresh[-drift_trials.N_CHANGED :]}
    none, _, far, _ = drift_trials.table(found).splitlines()[2:]
    assert far == "| far | 0.01 | 20 | 20 | 20 |"
    assert none.startswith("| none | 0.01 | ")
    assert all(int(count) <= 3 for count in none.strip(" |").split(" | ")[2:])


def test_measures_alone_leave_the_others_without_a_say() -> None:
    rows = np.arange(12.0).reshape(2, 6)
    assert drift_trials.only(rows, np.s_[-1:]).tolist() == [[0] * 5 + [5], [0] * 5 + [11]]
