"""The report: what is on the page, that it needs nothing else, and that it works in a browser."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import importlib.util
import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from click.testing import CliRunner

from kad_sdk import Detector, evaluate, scan_dataset
from kad_sdk.cli import main
from kad_sdk.errors import DatasetError, MissingDependencyError, OutputError
from kad_sdk.report import charts, write_report
from kad_sdk.report.disagreement import disagreement
from kad_sdk.report.gather import _Kept
from kad_sdk.report.pictures import heat_layer
from kad_sdk.report.training import TrainingImages
from kad_sdk.storage import write_atomic

pytest.importorskip("sklearn")

NAME = "<i>&'\".png"  # what a file may be called
TRAINING = ("train/good/0.png", "train/good/1.png")


def write(path: Path, image: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), image)


def square(y: int, x: int, side: int = 12) -> np.ndarray:
    mask = np.zeros((90, 140), np.uint8)
    mask[y : y + side, x : x + side] = 255
    return mask


@pytest.fixture(scope="module")
def data(make_board, tmp_path_factory) -> Path:
    """hole/0: found; hole/1: one found, one missed; good/0: passed; good/<i>..: a false alarm."""
    root = tmp_path_factory.mktemp("report") / "kitchen"
    for i, name in enumerate(TRAINING):
        write(root / name, make_board(20 + i, 90, 140, defect=False))
    test, truth = root / "test", root / "ground_truth" / "hole"
    write(test / "good" / "0.png", make_board(1, 90, 140, defect=False))
    write(test / "good" / NAME, make_board(2, 90, 140, defect=True))
    for i in (0, 1):
        write(test / "hole" / f"{i}.png", make_board(3 + i, 90, 140, defect=True))
    write(truth / "0_mask.png", square(40, 70))
    write(truth / "1_mask.png", square(40, 70) | square(4, 4, 6))
    return root


@pytest.fixture(scope="module")
def artifact(tiny, data, tmp_path_factory) -> Path:
    """The tiny artifact, said to be fitted on the data set's training images."""
    digest = hashlib.sha256()
    for name in TRAINING:
        content = hashlib.sha256((data / name).read_bytes()).hexdigest()
        digest.update(f"{name}\0{content}\n".encode())
    manifest = dataclasses.replace(
        tiny.manifest,
        bank=dataclasses.replace(tiny.manifest.bank, images=TRAINING),
        training=dataclasses.replace(tiny.manifest.training, fingerprint=digest.hexdigest()),
    )
    return tiny.write(tmp_path_factory.mktemp("artifact") / "tiny.kad", manifest=manifest)


@pytest.fixture(scope="module")
def page(artifact, data, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("page") / "new" / "report.html"
    result = CliRunner().invoke(main, ["report", str(artifact), str(data), "--out", str(out)])
    assert result.exit_code == 0, result.output
    assert "ROC-AUC" in result.stdout
    assert [path.name for path in out.parent.iterdir()] == ["report.html"]
    return out


class Tree(HTMLParser):
    """Checks that elements close in order; keeps elements, and text by the class around it."""

    VOID = ("meta", "img", "input", "path", "circle", "br", "i/")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open, tag
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)

    def of(self, tag: str, style: str = "") -> list[dict[str, str]]:
        return [
            attributes
            for name, attributes in self.elements
            if name == tag and (not style or style in attributes.get("class", "").split())
        ]

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


@pytest.fixture(scope="module")
def tree(page) -> Tree:
    return Tree(page.read_text("utf-8"))


def test_the_page_says_what_was_found_and_missed(tree: Tree) -> None:
    text = tree.text
    assert "2 of 2 defective boards flagged, 1 of 2 good boards flagged wrongly." in text
    assert "2 / 3 defects found" in text
    assert "0.25 false regions a board" in text
    assert "Missed defects: 1" in text
    assert "False alarms: 1" in text
    outcomes = [row["data-outcome"] for row in tree.of("tr") if "data-outcome" in row]
    assert outcomes == ["false alarm", "found", "found", "passed"]  # wrong ones first
    assert len(tree.of("article", "finding")) == 2
    assert len([a for a in tree.of("article") if "data-outcome" in a]) == 4
    assert "PatchCore compares patches and has no embedding" in text
    for fact in ("tiny layer2+layer3", "32 px, stride 16", "all hashes are right"):
        assert fact in text


def test_figures_are_those_of_kad_evaluate(artifact, data, tree, tmp_path, monkeypatch) -> None:
    pytest.importorskip("matplotlib")
    for name in ("curves_png", "scores_png", "examples_png"):
        monkeypatch.setattr(f"kad_sdk.plots.{name}", lambda *_: b"")
    with Detector.open(artifact, threads=1) as detector:
        figures = evaluate(detector, scan_dataset(data), tmp_path / "out")
    assert f"{figures['image_roc_auc']:.4f} board ROC-AUC" in tree.text
    assert f"{figures['aupro']:.4f} AUPRO" in tree.text
    assert f"tiles, ROC-AUC {figures['tile_roc_auc']:.4f}" in tree.text
    assert figures["data"]["fingerprint"] in tree.text


def test_defects_where_nothing_is_judged_are_told(artifact, data, tmp_path) -> None:
    ruled = tmp_path / "ruled.kad"
    shutil.copytree(artifact, ruled)
    for command in (
        ["rules", str(ruled), "--ignore", "0,0,24,24"],
        ["report", str(ruled), str(data), "--out", str(tmp_path / "report.html")],
    ):
        result = CliRunner().invoke(main, command)
        assert result.exit_code == 0, result.output
    words = (tmp_path / "report.html").read_text("utf-8")
    assert "1 marked defect lies where nothing is judged" in words
    assert "and counts neither as found nor as missed" in words
    assert "2 / 2" in words


def test_the_page_asks_for_nothing_and_its_links_lead_somewhere(page: Path, tree: Tree) -> None:
    text = page.read_text("utf-8")
    assert "default-src 'none'" in text
    code = re.sub(r"base64,[\w+/=]+|// .*", "", text)
    assert len(code) < 60_000
    assert not re.search(r"https?:|//|@import|url\(", code)
    ids = [attributes["id"] for _, attributes in tree.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    links = [a["href"] for a in tree.of("a")]
    assert len(links) == 1 + 10 + 4  # skip link, sections, boards
    assert all(link[0] == "#" and link[1:] in ids for link in links)
    for name, attributes in tree.elements:
        assert name not in ("link", "iframe", "object", "embed")
        assert not {key for key in attributes if key.startswith("on")}
        source = attributes.get("src")
        assert source is None or source.startswith(("data:image/jpeg;base64,", "data:image/png"))


def test_every_picture_can_be_decoded(tree: Tree) -> None:
    sources = [image["src"] for image in tree.of("img")]
    assert len(sources) == 4 * 3 + 2 * (1 + 1 + 2 + 1)  # boards: three layers; findings: panels
    for source in sources:
        data = np.frombuffer(base64.b64decode(source.split(",")[1]), np.uint8)
        assert cv2.imdecode(data, cv2.IMREAD_UNCHANGED) is not None


def test_names_from_files_are_text_and_not_markup(page: Path, tree: Tree) -> None:
    assert NAME not in page.read_text("utf-8")
    assert NAME in tree.text
    assert f"test/good/{NAME}" in {button.get("data-name", "") for button in tree.of("button")}


def test_each_board_links_to_its_own_picture(page: Path) -> None:
    """Two boards are called 0.png."""
    text = page.read_text("utf-8")
    rows = dict(re.findall(r'<th scope="row"><a href="#(board-\d)">([^<]*)<', text))
    cards = dict(re.findall(r'<article id="(board-\d)".*?<h3>([^<]*)<', text, re.DOTALL))
    assert rows == cards
    assert {"test/good/0.png", "test/hole/0.png"} < set(rows.values())
    assert len(rows) == 4
    assert text.count("<h3>test/hole/1.png</h3>") == 2  # its picture, and what was missed on it


def test_training_patches_are_shown_with_their_place(tree: Tree) -> None:
    place = r"most alike in training: train/good/[01]\.png at \(\d+, \d+\)"
    assert len(re.findall(place, tree.text)) == 2
    assert "not shown" not in tree.text


@pytest.mark.parametrize("change", ["another image", "no image"])
def test_training_patches_of_other_images_are_not_shown(artifact, data, tmp_path, change) -> None:
    manifest = json.loads((artifact / "manifest.json").read_text())
    root = tmp_path / "kitchen"
    for name in TRAINING:
        write(root / name, cv2.imread(str(data / name)))
    with Detector.open(artifact, threads=1) as detector:
        assert TrainingImages(detector.artifact.manifest, data).reason == ""
        if change == "no image":
            (root / TRAINING[1]).unlink()
        else:
            write(root / TRAINING[1], np.zeros((90, 140, 3), np.uint8))
        images = TrainingImages(detector.artifact.manifest, root)
    expected = {
        "no image": "the training image train/good/1.png is not in kitchen",
        "another image": "not those that the artifact was fitted on",
    }
    assert expected[change] in images.reason
    finding = SimpleNamespace(nearest=SimpleNamespace(image=TRAINING[0], x=1, y=1))
    assert images.patches([finding]) == {}
    assert manifest["bank"]["images"] == list(TRAINING)


@pytest.mark.parametrize("name", ["../secret.png", "/etc/passwd", "train/../../x.png"])
def test_names_in_an_artifact_do_not_lead_out_of_the_data(artifact, data, name) -> None:
    with Detector.open(artifact, threads=1) as detector:
        manifest = detector.artifact.manifest
    bank = dataclasses.replace(manifest.bank, images=(name,))
    images = TrainingImages(dataclasses.replace(manifest, bank=bank), data)
    assert images.reason == f"the training image {name} is not in kitchen"


def test_what_a_page_cannot_hold_is_counted(artifact, data, tmp_path) -> None:
    out = tmp_path / "r.html"
    with Detector.open(artifact, threads=1) as detector:
        write_report(detector, scan_dataset(data), out, max_boards=2, max_findings=0, max_side=70)
    tree = Tree(out.read_text("utf-8"))
    assert "2 of 4 boards are shown" in tree.text
    shown = [a["data-outcome"] for a in tree.of("article") if "data-outcome" in a]
    assert shown == ["false alarm", "found"]  # the wrong verdict, and the board with a miss
    assert "Missed defects: 1" in tree.text
    assert not tree.of("article", "finding")


def test_a_data_set_of_good_boards_alone_gives_a_page_that_says_so(
    artifact, make_board, tmp_path
) -> None:
    write(tmp_path / "d" / "train" / "good" / "0.png", make_board(9, 90, 140, defect=False))
    write(tmp_path / "d" / "test" / "good" / "0.png", make_board(9, 90, 140, defect=False))
    with Detector.open(artifact, threads=1) as detector:
        figures = write_report(detector, scan_dataset(tmp_path / "d"), tmp_path / "r.html")
    text = Tree((tmp_path / "r.html").read_text("utf-8")).text
    assert figures["image_roc_auc"] is None
    assert "A curve takes both normal and defective boards." in text
    assert "No board is known to be defective." in text
    assert "no aupro" in text.lower()


def test_errors_leave_no_file(artifact, data, tmp_path, monkeypatch) -> None:
    with Detector.open(artifact, threads=1) as detector:
        empty = dataclasses.replace(scan_dataset(data), test=())
        with pytest.raises(DatasetError, match="no test images"):
            write_report(detector, empty, tmp_path / "new" / "r.html")
        monkeypatch.setattr("kad_sdk.metrics.importlib.import_module", _absent)
        with pytest.raises(MissingDependencyError, match=r"kad-sdk\[evaluate\]"):
            write_report(detector, scan_dataset(data), tmp_path / "new" / "r.html")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", ["report", "evaluate"])
def test_a_place_that_is_read_only_is_told_before_the_work(
    artifact, data, tmp_path, mount, monkeypatch, command
) -> None:
    place, hidden = tmp_path / "ro", tmp_path / "rw"
    place.mkdir()
    hidden.mkdir()
    mount(hidden, place, ["-o", "remount,bind,ro", place])
    monkeypatch.setattr(Detector, "score", lambda *_, **__: pytest.fail("a board was scored"))
    monkeypatch.setattr(Detector, "board_scores", Detector.score)
    out = place / "e.html" if command == "report" else place
    result = CliRunner().invoke(main, [command, str(artifact), str(data), "--out", str(out)])
    assert result.exit_code == 1
    assert result.stderr.endswith(
        f"kad: cannot write {place}: Read-only file system. Check that the folder exists and may "
        "be written to.\n"
    )
    assert list(hidden.iterdir()) == []


def test_a_place_that_becomes_read_only_is_told_by_its_own_name(tmp_path, mount) -> None:
    place = tmp_path / "ro"
    place.mkdir()
    mount(place, place, ["-o", "remount,bind,ro", place])
    with pytest.raises(OutputError, match=r"cannot write .*/ro/e\.html: Read-only file system"):
        write_atomic(place / "e.html", b"")


def _absent(name: str) -> None:
    raise ImportError(name)


def test_a_smaller_heat_layer_keeps_every_peak_and_clears_what_is_not_scored() -> None:
    values = np.zeros((100, 161), np.float32)
    values[:, :80] = np.nan
    values[99, 160] = values[50, 80] = 9
    data = base64.b64decode(heat_layer(values, 1, side=80).split(",")[1])
    layer = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    assert layer.shape == (50, 80, 4)
    assert np.argwhere(layer[..., 3]).tolist() == [[25, 40], [49, 79]]


# ---- how far tiles disagree ---------------------------------------------------------------------


def spread_of(xy: list[tuple[int, int]], patches: list[list[float]], **changes: object):
    settings = {"grid": (2, 2), "tile": 4, "stride": 2, "frame": (4, 6), "threshold": 5.0}
    values = np.array(patches, np.float32)
    return disagreement(np.array(xy), values, **{**settings, **changes})


def test_disagreement_is_the_range_of_the_tiles_that_cover_a_cell() -> None:
    found = spread_of([(0, 0), (2, 0)], [[1, 2, 3, 4], [7, 9, 4, 9]])
    nan = np.nan
    # Cells of 2 px; the tiles share the middle column: 2 against 7, 4 against 4.
    np.testing.assert_array_equal(found.spread, [[nan, 5, nan], [nan, 0, nan]])
    assert found.n_lone == 1  # 7 reaches 5, the mean 4.5 does not
    assert found.quantile(0.5) == 2.5


def test_tiles_without_overlap_have_no_disagreement() -> None:
    found = spread_of([(0, 0)], [[1, 2, 3, 9]])
    assert np.isnan(found.spread).all()
    assert (found.n_lone, found.quantile(0.5)) == (0, None)


def test_a_tile_flush_with_the_border_counts_at_the_nearest_cell() -> None:
    found = spread_of([(0, 0), (1, 0)], [[1, 1, 1, 1], [4, 4, 4, 4]], frame=(4, 5))
    assert np.nanmax(found.spread) == 3
    assert found.spread.shape[0] == 2


def test_one_value_a_tile_is_compared_at_the_strides_resolution() -> None:
    found = spread_of([(0, 0), (2, 0)], [[1], [4]], grid=(1, 1))
    np.testing.assert_array_equal(found.spread, [[np.nan, 3, np.nan]] * 2)


@pytest.mark.parametrize("limit", [0, 1, 3, 50])
def test_only_the_highest_ranks_are_kept_and_made(limit: int) -> None:
    ranks = np.random.default_rng(0).integers(0, 9, 40).tolist()
    kept, made = _Kept(limit), []
    for i, rank in enumerate(ranks):
        kept.offer(rank, lambda i=i: made.append(i) or i)
    best = sorted(range(40), key=lambda i: (-ranks[i], i))[:limit]
    assert kept.by_rank() == best
    assert kept.in_order() == sorted(best)
    assert kept.offered == 40
    assert len(made) < 40 or limit == 50


def test_curves_are_thinned_to_what_can_be_seen() -> None:
    x = np.linspace(0, 1, 100_000)
    curve = charts.Curve("tiles", "tiles", x, np.sqrt(x), (0.5, 0.7))
    svg = charts.curves("<c>", "x", "y", [curve], chance=True)
    assert len(svg) < 30_000
    assert 'aria-label="&lt;c&gt;"' in svg
    path = re.findall(r'class="line tiles" d="M([^"]+)"', svg)[0]
    points = np.array([point.split() for point in path.split("L")], float)
    assert points[0].tolist() == [52.0, 284.0]  # the corners of the frame
    assert points[-1].tolist() == [428.0, 12.0]
    on_curve = 284 - 272 * np.sqrt((points[:, 0] - 52) / 376)
    assert np.abs(points[:, 1] - on_curve).max() < 5  # rounding to 0.1, where it is steep


@pytest.mark.parametrize(("low", "high"), [(0, 1), (0.7, 3.2), (-5, 900), (1e-7, 3e-7)])
def test_ticks_are_round_and_inside(low: float, high: float) -> None:
    ticks = charts.Axis("x", low, high).ticks()
    assert 3 <= len(ticks) <= 9
    assert min(ticks) >= low - 1e-12
    assert max(ticks) <= high + 1e-12
    assert all(len(f"{tick:.3g}") <= 7 for tick in ticks)


# ---- in a browser -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def browser():
    spec = importlib.util.spec_from_file_location("browser", Path(__file__).with_name("browser.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    program = module.find()
    if program is None:
        pytest.skip("no Chromium: the report in a browser is not tested (package chromium)")
    with module.Browser(program) as running:
        yield running


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1440, 390])
def test_in_chromium_it_fits_makes_no_request_and_no_error(browser, page, width, scheme) -> None:
    browser.open(page.as_uri(), width, scheme=scheme)
    requests = [
        event["params"]["request"]["url"]
        for event in browser.events
        if event.get("method") == "Network.requestWillBeSent"
    ]
    assert [url for url in requests if not url.startswith("data:")] == [page.as_uri()]
    errors = ("Runtime.exceptionThrown", "Log.entryAdded", "Runtime.consoleAPICalled")
    assert [event for event in browser.events if event.get("method") in errors] == []
    assert browser.run("document.documentElement.scrollWidth <= innerWidth")
    assert browser.run("[...document.images].every((i) => i.complete && i.naturalWidth > 0)")
    assert browser.run("getComputedStyle(document.body).backgroundColor") == (
        "rgb(255, 255, 255)" if scheme == "light" else "rgb(20, 23, 26)"
    )
    assert browser.run(CONTRAST) >= 4.5  # WCAG 2.2, level AA
    picture = cv2.imdecode(np.frombuffer(browser.screenshot(), np.uint8), cv2.IMREAD_COLOR)
    assert picture.shape[1] == width
    assert picture.std() > 20


# The lowest contrast of any text with the ground behind it.
CONTRAST = """(() => {
  const parse = (c) => c.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map((v) => v / 255)
    .map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const ground = (e) => {
    for (; e; e = e.parentElement) {
      const c = parse(getComputedStyle(e).backgroundColor);
      if (c.length === 3 || c[3] === 1) return c;
    }
  };
  let lowest = 21;
  const walker = document.createTreeWalker(document.getElementById("main"), NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const e = walker.currentNode.parentElement;
    if (!walker.currentNode.textContent.trim() || e.closest("script, style")) continue;
    const style = getComputedStyle(e);
    const ink = parse(e.closest("svg") ? style.fill : style.color);
    const [a, b] = [light(ink), light(ground(e.closest("svg")?.parentElement ?? e))];
    lowest = Math.min(lowest, (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05));
  }
  return lowest;
})()"""


def test_in_chromium_tables_sort_and_filter_by_keyboard(browser, page) -> None:
    browser.open(page.as_uri(), 1440)
    first = "document.querySelector('#verdicts tbody tr').dataset.outcome"
    assert browser.run(first) == "false alarm"
    browser.run("document.querySelectorAll('#verdicts th button')[2].focus()")  # score
    browser.press("Enter", 13)
    assert browser.run("document.querySelectorAll('#verdicts th')[2].ariaSort") == "ascending"
    assert browser.run(first) == "passed"
    browser.press("Enter", 13)
    scores = browser.run(
        "[...document.querySelectorAll('#verdicts tbody tr')].map((r) => +r.cells[2].dataset.v)"
    )
    assert scores == sorted(scores, reverse=True)
    browser.run("document.querySelector('[data-only=\"passed\"]').focus()")
    browser.press("Enter", 13)
    shown = "[...document.querySelectorAll('{}')].filter((e) => e.offsetParent).length"
    assert browser.run(shown.format("#verdicts tbody tr")) == 1
    assert browser.run(shown.format("#maps article")) == 1


def test_in_chromium_the_viewer_zooms_and_closes_by_keyboard(browser, page) -> None:
    browser.open(page.as_uri(), 390)
    browser.run("document.querySelectorAll('.open')[1].focus()")
    before = browser.run("document.querySelector('#maps').offsetHeight")
    browser.press("Enter", 13)
    assert browser.run("document.getElementById('viewer').open")
    width = "document.querySelector('.stage .stack').getBoundingClientRect().width"
    assert browser.run(width) == pytest.approx(390)  # fits
    browser.press("+")
    browser.press("+")
    assert browser.run(width) == pytest.approx(390 * 2.25)
    left = "document.querySelector('.stage .stack').getBoundingClientRect().left"
    at = browser.run(left)
    browser.press("ArrowRight", 39)
    assert browser.run(left) == pytest.approx(at - 60)
    heat = "getComputedStyle(document.querySelector('.stage .heat')).display"
    assert browser.run(heat) == "none"
    browser.run("document.querySelector('[data-layer=heat]').click()")
    assert browser.run(heat) == "block"
    name = browser.run("document.getElementById('viewer-name').textContent")
    browser.run("document.querySelector('.stage').focus()")
    browser.press("n")
    assert browser.run("document.getElementById('viewer-name').textContent") != name
    browser.press("p")
    assert browser.run("document.getElementById('viewer-name').textContent") == name
    browser.press("Escape", 27)
    assert not browser.run("document.getElementById('viewer').open")
    # The picture goes back on the dialog's close event, which is a task of its own.
    browser.wait_until("document.querySelectorAll('.open .stack').length === 4")
    assert browser.run("document.activeElement === document.querySelectorAll('.open')[1]")
    assert browser.run("document.querySelector('#maps').offsetHeight") == before
