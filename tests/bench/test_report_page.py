"""The page of `kad-bench report` in a browser, made from committed results."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pytest
from kad_bench.report import report_html
from kad_bench.report_plots import _COLOURS, plots_of
from kad_bench.suites import read_document

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
DARK = (25, 25, 25)  # ground of the page
ERRORS = ("Runtime.exceptionThrown", "Log.entryAdded", "Runtime.consoleAPICalled")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    path = ROOT / "tests/sdk/browser.py"
    spec = importlib.util.spec_from_file_location("browser", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    program = module.find()
    if program is None:
        pytest.skip("no Chromium: the page is not tested in a browser (package chromium)")
    with module.Browser(program) as running:
        yield running


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    document = read_document(ROOT / "benchmarks/results/regular.json")
    document["suites"] = {"board": document["suites"]["board"]}
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(report_html(document, list(plots_of(document))))
    return path


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1440, 390])
def test_it_fits_makes_no_request_and_no_error(
    browser: Any, page: Path, width: int, scheme: str
) -> None:
    browser.open(page.as_uri(), width, scheme=scheme)
    requests = [
        event["params"]["request"]["url"]
        for event in browser.events
        if event.get("method") == "Network.requestWillBeSent"
    ]
    assert [url for url in requests if not url.startswith("data:")] == [page.as_uri()]
    assert [event for event in browser.events if event.get("method") in ERRORS] == []
    assert browser.run("document.documentElement.scrollWidth <= innerWidth")
    assert browser.run("[...document.images].every((i) => i.complete && i.naturalWidth > 0)")
    picture = cv2.imdecode(np.frombuffer(browser.screenshot(), np.uint8), cv2.IMREAD_COLOR)
    assert picture.shape[1] == width
    ground = (255, 255, 255) if scheme == "light" else DARK
    # Most of the page, its plots too, is the ground; what is drawn and written stands out.
    different = np.abs(picture.astype(int) - ground).max(axis=2)
    assert np.mean(different <= 8) > 0.5
    assert np.mean(different > 100) > 0.02


@pytest.mark.parametrize("dark", [False, True])
def test_every_colour_of_a_plot_stands_out(dark: bool) -> None:
    """By 3 to 1 at least (WCAG 2.2, graphics), in the dark after the page turned it round."""
    ground = np.array(DARK) / 255 if dark else np.ones(3)
    for colour in _COLOURS:
        rgb = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
        drawn = _turned_round(rgb) if dark else rgb
        bright, dim = sorted((_luminance(drawn), _luminance(ground)), reverse=True)
        assert (bright + 0.05) / (dim + 0.05) >= 3, colour


def _turned_round(rgb: np.ndarray) -> np.ndarray:
    """CSS' invert(.9) hue-rotate(180deg) of a colour in 0..1 (Filter Effects Module Level 1)."""
    luma = np.array([0.213, 0.715, 0.072])
    inverted = 0.9 - 0.8 * rgb
    return np.clip(2 * luma @ inverted - inverted, 0, 1)


def _luminance(rgb: np.ndarray) -> float:
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])
