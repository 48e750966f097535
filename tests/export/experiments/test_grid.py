"""Reading grids, and planning their runs: the thesis' own, and every way to be wrong."""

from __future__ import annotations

import pytest
from kad_export.errors import GridError
from kad_export.experiments.grid import Setting, parse_setting, read_grid
from kad_export.experiments.plan import plan_runs
from kad_export.experiments.published import PUBLISHED, best_published, find_published

from kad_sdk.errors import DatasetError

RUN = "runs: [{method: patchcore, backbone: [resnet18, resnet50]}]\n"


@pytest.fixture
def plan(tmp_path, categories):
    """Plan the runs of a grid's text, or of the thesis' grid."""

    def make(text: str, *settings: str, **given):
        path = "thesis"
        if text != "thesis":
            path = tmp_path / "grid.yaml"
            path.write_text(text, encoding="utf-8")
        chosen = [parse_setting(one) for one in settings]
        return plan_runs(read_grid(path), categories, settings=chosen, **given)

    return make


# ---- the thesis' figures -------------------------------------------------------------------------


@pytest.mark.parametrize("row", PUBLISHED, ids=lambda row: f"{row.table}-{row.number}")
def test_published_figures_follow_from_their_confusion_matrix(row):
    """A figure that was copied wrong would not; the thesis cuts digits off, not rounds."""
    (tn, fp), (fn, tp) = row.confusion_matrix
    assert row.accuracy == pytest.approx((tn + tp) / (tn + fp + fn + tp), abs=1.1e-4)
    assert row.precision == pytest.approx(tp / (tp + fp), abs=1.1e-4)
    assert row.recall == pytest.approx(tp / (tp + fn), abs=1.1e-4)
    tiles = {"white": (8926, 244), "white-with-edges": (7723, 140)}
    as_printed = "white" if (row.table, row.number) == ("6.1", 5) else row.category
    assert (tn + fp, fn + tp) == tiles[as_printed]


def test_best_rows_are_those_of_tables_6_3_and_6_4():
    best = {
        (method, category): best_published(method, category).roc_auc
        for method in ("patchcore", "cutpaste")
        for category in ("white", "white-with-edges")
    }
    assert best == pytest.approx(
        {
            ("patchcore", "white"): 0.8906,
            ("cutpaste", "white"): 0.8482,
            ("patchcore", "white-with-edges"): 0.8763,
            ("cutpaste", "white-with-edges"): 0.8256,
        }
    )
    assert best_published("patchcore", "oak") is None
    assert find_published("patchcore", "white", "resnet18", denoised=True) is None


# ---- plans ---------------------------------------------------------------------------------------


def test_the_thesis_grid_is_the_published_rows(plan):
    runs = plan("thesis")
    rows = [find_published(r.method, r.category, r.backbone, denoised=r.denoised) for r in runs]
    assert sorted(rows, key=PUBLISHED.index) == list(PUBLISHED)
    for run in runs:
        values = run.values
        assert (values["tile"], values["stride"], values["threshold"]) == (224, 112, "youden")
        if run.method == "patchcore":
            wide = 512 if run.category == "white" else 448
            assert (values["train-stride"], values["pooling"]) == (wide, "valid-adaptive")
            assert values["layers"] == ("layer2", "layer3")
        else:
            keys = ("optimizer", "learning-rate", "momentum", "weight-decay", "epochs", "batch")
            assert [values[k] for k in keys] == ["sgd", 1e-4, 0.9, 3e-5, 15, 64]


def test_settings_reach_the_runs_that_they_are_for(plan):
    runs = plan(
        "thesis",
        *("max-bank=7", "epochs=2", "resnet50:weights=random:1", "white:resnet50:weights=random:2"),
        *("cutpaste:augment=transparency=25 jitter=0.2", "train-stride=96", "learning_rate=1e-3"),
    )
    weights = {(r.category, r.backbone): r.values["weights"] for r in runs}
    assert weights == {
        ("white", "resnet18"): "imagenet",
        ("white-with-edges", "resnet18"): "imagenet",
        ("white", "resnet50"): "random:2",
        ("white-with-edges", "resnet50"): "random:1",
    }
    for run in runs:
        assert run.values["train-stride"] == 96  # more than the grid's own, whatever its scopes
        if run.method == "patchcore":
            assert run.values["max-bank"] == 7
            assert "--max-bank=7" in run.words()
        else:
            assert (run.values["epochs"], run.values["learning-rate"]) == (2, 1e-3)
            assert [list(pair) for pair in run.values["augment"]] == [
                ["transparency", 25],
                ["jitter", 0.2],
            ]
            assert "--augment=jitter=0.2" in run.words()


def test_none_leaves_out_what_has_no_default(plan):
    block = "{method: patchcore, denoise: [none, '3,4,7,21'], reweighting: none}"
    plain, denoised = plan(f"categories: white\nruns: [{block}]")
    assert plain.words() == ["--reweighting=none"]
    assert denoised.words() == ["--denoise=3,4,7,21", "--reweighting=none"]
    assert (plain.denoised, denoised.denoised) == (False, True)
    assert denoised.name == "patchcore-white-denoise-3,4,7,21"


def test_a_grid_without_categories_is_of_the_folder_itself(plan, small_dataset, tmp_path):
    path = tmp_path / "one.yaml"
    path.write_text(RUN, encoding="utf-8")
    runs = plan_runs(read_grid(path), small_dataset)
    assert [run.data for run in runs] == [small_dataset] * 2
    assert runs[0].name == f"patchcore-{small_dataset.name}-resnet18"
    assert [run.category for run in plan("thesis", categories=["white"])] == ["white"] * 7


def test_resources_are_not_part_of_what_a_run_is(plan):
    text = f"categories: white\n{RUN}"
    before, _ = plan(text, "memory=1GB", "threads=1")
    after, _ = plan(text, "memory=2GB")
    other, _ = plan(text, "coreset=0.2")
    assert before.subject() == after.subject() != other.subject()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "keys with values are expected, got nothing"),
        ("runs: [", "not YAML that can be read"),
        ("categories: white", "the key runs is missing"),
        (f"{RUN}tables: 3", "unknown key 'tables': expected categories, runs, options"),
        ("runs: []", r"runs: a list of blocks is expected, got \[\]"),
        ("runs: [{backbone: resnet18}]", r"runs\[0\]: the key method is missing"),
        ("runs: [{method: padim}]", "unknown method 'padim': expected one of patchcore, cutpaste"),
        ("runs: [{method: patchcore, coreset: []}]", r"runs\[0\].coreset: at least one value"),
        ("runs: [{method: patchcore, coreset: [{a: b}]}]", r"runs\[0\].coreset: a value"),
        (
            "runs: [{method: patchcore, max_banks: 5}]",
            "unknown option of patchcore 'max-banks': .*; is 'max-bank' meant?",
        ),
        ("runs: [{method: patchcore, out: x}]", "unknown option of patchcore 'out'"),
        ("runs: [{method: patchcore, method: cutpaste}]", "the key 'method' is given twice"),
        ("runs: [{method: patchcore, tile: 0}]", "Invalid value for '--tile': 0 is not in"),
        ("runs: [{method: patchcore, tile: no}]", "'no' is not a valid integer"),
        ("runs: [{method: cutpaste, augment: x}]", "NAME=VALUE or NAME=LOW,HIGH"),
        (f"{RUN}options: {{epochs: 3}}", "unknown option of patchcore 'epochs'"),
        (f"{RUN}options: {{resnet34: {{batch: 3}}}}", "backbone 'resnet34': .*'resnet50' meant"),
        (f"{RUN}options: {{patchcore: {{batch: [3]}}}}", "options.patchcore.batch: a value"),
        (f"{RUN}options: {{backbone: resnet18}}", "tells the grid's runs of patchcore apart"),
        (RUN.replace("resnet50", "resnet18"), "patchcore-.*-resnet18 is in the grid twice"),
    ],
)
def test_a_bad_grid_is_refused_with_what_is_wrong(tmp_path, small_dataset, text, message):
    path = tmp_path / "bad.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(GridError, match=message):
        plan_runs(read_grid(path), small_dataset)


def test_no_such_grid(tmp_path):
    with pytest.raises(GridError, match=r"nowhere.yaml: the grid cannot be read: No such file"):
        read_grid(tmp_path / "nowhere.yaml")


@pytest.mark.parametrize("text", ["epochs", "=3", "epochs=", ":epochs=3", "a::epochs=3"])
def test_a_bad_setting_is_refused(text):
    with pytest.raises(GridError, match="NAME=VALUE or SCOPE:NAME=VALUE is expected"):
        parse_setting(text)


def test_a_setting_may_hold_signs():
    assert parse_setting("cutpaste:oak:augment=jitter=0.1 fade=1") == Setting(
        "augment", "jitter=0.1 fade=1", ("cutpaste", "oak")
    )


def test_a_category_without_a_folder_is_named(plan, categories):
    with pytest.raises(DatasetError, match=r"oak: no such folder: .* holds white, white-"):
        plan("thesis", categories=["oak"])


def test_a_category_without_test_images_is_named(tmp_path, small_dataset):
    (tmp_path / "white").mkdir()
    (tmp_path / "white" / "train").symlink_to(small_dataset / "train")
    (tmp_path / "grid.yaml").write_text(f"categories: white\n{RUN}", encoding="utf-8")
    with pytest.raises(DatasetError, match="white: no test images"):
        plan_runs(read_grid(tmp_path / "grid.yaml"), tmp_path)
