"""From a grid and a data folder to runs: which, on what, with which options."""

from __future__ import annotations

import hashlib
import itertools
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kad_export.errors import GridError
from kad_export.experiments.options import (
    METHODS,
    RESOURCES,
    known_options,
    option_words,
    parse_options,
    unknown,
)
from kad_sdk.dataset import scan_dataset
from kad_sdk.errors import DatasetError
from kad_sdk.evaluation import check_test_images

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator, Mapping, Sequence

    from kad_export.experiments.grid import Block, Grid, Setting
    from kad_sdk.dataset import Dataset

__all__ = ["Run", "plan_runs"]


@dataclass(frozen=True)
class Run:
    """One export and its evaluation.

    Attributes
    ----------
    name : str
        Of its folder; unique in its grid.
    method, category : str
    data : Path
        The category's folder.
    options : mapping of str to str
        Options that the grid gives, as on the command line.
    values : mapping of str to Any
        All options' values.
    images : str
        SHA-256 over the names and sizes of the category's images, and its annotations.
    """

    name: str
    method: str
    category: str
    data: Path
    options: Mapping[str, str]
    values: Mapping[str, Any]
    images: str

    @property
    def backbone(self) -> str:
        """The network."""
        return str(self.values["backbone"])

    @property
    def denoised(self) -> bool:
        """Whether boards are denoised: "blur" in the thesis."""
        return self.values["denoise"] is not None

    def words(self) -> list[str]:
        """Give the options as words of the command line."""
        return option_words(self.method, self.options)

    def subject(self) -> dict[str, Any]:
        """Give all that the figures depend on, as JSON values."""
        values = {k: str(v) for k, v in self.values.items() if k not in RESOURCES}
        return {"method": self.method, "category": self.category, "images": self.images, **values}


def plan_runs(
    grid: Grid,
    data: str | os.PathLike[str],
    *,
    categories: Sequence[str] = (),
    settings: Sequence[Setting] = (),
) -> list[Run]:
    """List the runs of a grid on a data folder, everything checked that can be before the first.

    Parameters
    ----------
    grid
    data
        Holds a folder for each category.
    categories
        Instead of the grid's own.
    settings
        Come after the grid's own, and so count more. Among the grid's, and among these, one with
        more scopes counts more; else the later one.

    Raises
    ------
    GridError
        An unknown method, option or scope, a value that the option refuses, or a run twice.
    DatasetError
        A category has no folder, or no test images.
    KadError
        A category's folder cannot be read as a data set.
    """
    chosen = tuple(categories) or grid.categories
    _check_methods(grid)
    _check_settings(grid, (*grid.settings, *settings), {*grid.categories, *chosen})
    images = {name: _digest(_dataset(Path(data), name)) for name in dict.fromkeys(chosen)}
    ordered = [
        *sorted(grid.settings, key=lambda s: len(s.scopes)),
        *sorted(settings, key=lambda s: len(s.scopes)),
    ]
    runs = [
        _run(
            block.method, category, axes, settings=ordered, data=Path(data), images=images[category]
        )
        for block in grid.blocks
        for category in images
        for axes in _combinations(block)
    ]
    names = [run.name for run in runs]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise GridError(f"the run {twice} is in the grid twice: leave one out")
    return runs


def _check_methods(grid: Grid) -> None:
    for block in grid.blocks:
        if block.method not in METHODS:
            raise unknown("method", block.method, METHODS)
        for name in block.axes:
            if name not in known_options(block.method):
                raise unknown(f"option of {block.method}", name, known_options(block.method))


def _check_settings(grid: Grid, settings: Sequence[Setting], categories: set[str]) -> None:
    methods = {block.method for block in grid.blocks}
    backbones = {v for block in grid.blocks for v in block.axes.get("backbone", ())}
    backbones |= {setting.value for setting in settings if setting.name == "backbone"}
    for setting in settings:
        known = [*sorted(METHODS), *sorted(categories), *sorted(backbones)]
        for scope in setting.scopes:
            if scope not in known:
                raise unknown("method, category or backbone", scope, known)
        named = set(setting.scopes) & METHODS.keys() or methods
        options = {name for method in named for name in known_options(method)}
        if setting.name not in options:
            raise unknown(f"option of {' and '.join(sorted(named))}", setting.name, sorted(options))


def _combinations(block: Block) -> Iterator[dict[str, str]]:
    for values in itertools.product(*block.axes.values()):
        yield dict(zip(block.axes, values, strict=True))


def _run(
    method: str,
    category: str,
    axes: Mapping[str, str],
    *,
    settings: Sequence[Setting],
    data: Path,
    images: str,
) -> Run:
    options = _options(method, {method, category}, axes, settings)
    backbone = str(parse_options(method, options)["backbone"])
    options = _options(method, {method, category, backbone}, axes, settings)
    return Run(
        name=_name(method, data.resolve().name if category == "." else category, axes),
        method=method,
        category=category,
        data=data / category,
        options=options,
        values=parse_options(method, options),
        images=images,
    )


def _options(
    method: str, scopes: set[str], axes: Mapping[str, str], settings: Sequence[Setting]
) -> dict[str, str]:
    options = dict(axes)
    for setting in settings:
        if setting.name not in known_options(method) or not scopes.issuperset(setting.scopes):
            continue
        if setting.name in axes:
            raise GridError(
                f"{setting}: {setting.name} tells the grid's runs of {method} apart: leave it out, "
                "or write a grid of your own"
            )
        options[setting.name] = setting.value
    return options


def _name(method: str, category: str, axes: Mapping[str, str]) -> str:
    parts = [method, category, axes.get("backbone", "")]
    parts += [f"{k}-{v}" for k, v in axes.items() if k != "backbone" and v != "none"]
    return "-".join(re.sub(r"[^\w.,=+-]+", "_", part) for part in parts if part)


def _dataset(data: Path, category: str) -> Dataset:
    folder = data / category
    if not folder.is_dir():
        there = (
            sorted(path.name for path in data.iterdir() if path.is_dir()) if data.is_dir() else []
        )
        listed = f"it holds {', '.join(there)}" if there else "it holds no folders"
        raise DatasetError(
            f"{folder}: no such folder: {data} should hold a folder for each category, with train/ "
            f"and test/ in it, and {listed}; name them with --category, or --category . for "
            f"{data} itself"
        )
    dataset = scan_dataset(folder)
    check_test_images(dataset)
    return dataset


def _digest(dataset: Dataset) -> str:
    """Names and sizes of images and masks, and the content of annotations."""
    digest = hashlib.sha256()
    for sample in (*dataset.train, *dataset.test):
        mask = sample.mask_path.stat().st_size if sample.mask_path else None
        facts = (sample.name, sample.path.stat().st_size, mask, sample.annotation, sample.defects)
        digest.update(f"{facts}\n".encode())
    return digest.hexdigest()
