"""Bad stored indexes, and artifacts without one; what a case is, is said in hostile.py."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import tiny_artifacts as tiny
from hostile import TENSORS, manifest_of, rewrite, write_manifest
from hostile_manifest import edit, set_at
from hostile_tensors import retensored

if TYPE_CHECKING:
    from pathlib import Path

    from hostile import Named


def index_cases(other: Path) -> Named:
    """Damage of a stored index whose file is listed as it is; `other` is that of another bank."""
    name = "index.safetensors"
    yield f"{name}-of-another-bank", lambda f: rewrite(f, name, other.read_bytes()), TENSORS
    for length in (0, 1, 100, 111, 4_000, 60_000):
        cut = retensored(name, lambda t, n=length: t.update(index=t["index"][:n]))
        yield f"{name}-cut-to-{length}", cut, TENSORS
    longer = retensored(name, lambda t: t.update(index=np.append(t["index"], np.uint8(0))))
    yield f"{name}-longer", longer, TENSORS
    # Behind the magic number; in the version, which makes it one to be built anew; in the digest;
    # then anywhere: doors agree, and no sanitizer finds anything.
    yield f"{name}-magic", retensored(name, lambda t: t["index"].put(0, 0)), TENSORS
    yield f"{name}-version", retensored(name, lambda t: t["index"].put(8, 77)), "OK"
    yield f"{name}-digest", retensored(name, lambda t: t["index"].put(20, 77)), TENSORS
    generator = np.random.default_rng(tiny.SEED)
    for at in [*range(80, 112), *range(4928, 5400, 7), *generator.integers(112, 200_000, 60)]:
        change = retensored(name, lambda t, i=at: t["index"].put(i, t["index"][i] ^ 0x81))
        yield f"{name}-flipped-{at}", change, None
    yield "index-not-named", edit(set_at(("bank", "index_file"), None)), "OK"


def old_version(folder: Path) -> None:
    """Make it what the first version of the format was: no index, and no word of it."""
    (folder / "index.safetensors").unlink()
    content = manifest_of(folder)
    del content["bank"]["index_file"], content["bank"]["extended"]
    del content["patchcore"]["mode"], content["patchcore"]["windows"]
    del content["files"]["index.safetensors"]
    content["format_version"] = "1.0"
    write_manifest(folder, content)


def old_version_with_an_index(folder: Path) -> None:
    edit(set_at(("format_version",), "1.0"))(folder)
