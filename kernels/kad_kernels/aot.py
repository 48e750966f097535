"""Compile every kernel to PTX and cubin, without a GPU.

    python -m kad_kernels.aot [FOLDER]

prints registers, shared memory and spills of each kernel on each architecture as a Markdown table,
and fails when a register is spilled. FOLDER: PTX and cubins are kept there. numba makes the PTX
with the NVVM of its own package, NVRTC that of the tensor tier; `ptxas` of the CUDA toolkit makes
the cubin, and may not be older than either.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from numba import float32, int32, int64, uint8

from kad_kernels import kcenter, stages, tiles
from kad_kernels._cuda import SIMULATED, cuda
from kad_kernels.tensor import program

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["ARCHITECTURES", "KERNELS", "Built", "CompileError", "build", "find_ptxas", "table"]

ARCHITECTURES = (75, 80, 86, 89, 90)
_F1, _F2, _F3 = float32[::1], float32[:, ::1], float32[:, :, ::1]
_F4 = float32[:, :, :, ::1]
_I1, _I2, _I3 = int32[::1], int32[:, ::1], int32[:, :, ::1]
_TAPS = (_I1, _I1, _F2)
KERNELS = {  # name to kernel and the types it is launched with
    "arrange": (tiles.arrange, (_F2, _F2)),
    "nearest_tiles": (tiles.nearest_tiles, (_F2, _F2, int64, int64, int64, _F3, _I3)),
    "clear": (tiles.clear, (_F3, _I3)),
    "merge": (tiles.merge, (_F3, _I3)),
    "cut": (stages.cut, (uint8[::1], int64, int64, _I1, _F2, _I2, int64, _F4)),
    "resample": (stages.resample, (_F4, *_TAPS, *_TAPS, int64, _F2, _I1)),
    "peaks": (stages.peaks, (int64, _F2, _I2, _F2, _F2, _I2, int64, int64, _F1, _F2)),
    "lower": (kcenter.lower, (_F2, int64, _I1, _F1, _F1, _I1)),
    "choose": (kcenter.choose, (_F1, _I1, float32, int32, _I1, int64, _I1, _F1)),
}


class CompileError(RuntimeError):
    """A kernel does not compile, or spills registers."""


@dataclass(frozen=True)
class Built:
    """A kernel for an architecture.

    Attributes
    ----------
    kernel : str
        Its name.
    architecture : int
        Compute capability, 10 times.
    registers : int
        Of a thread.
    shared_bytes : int
        Of a block.
    stack_bytes, spilled_bytes : int
        Of a thread; spilled: written and read.
    """

    kernel: str
    architecture: int
    registers: int
    shared_bytes: int
    stack_bytes: int
    spilled_bytes: int


def find_ptxas() -> str | None:
    """Path of ``ptxas``; None where the CUDA toolkit is not installed."""
    return shutil.which("ptxas")


def build(folder: Path, architectures: Sequence[int] = ARCHITECTURES) -> list[Built]:
    """Compile all kernels into ``folder``: ``NAME.sm_80.ptx`` and ``NAME.sm_80.cubin``.

    Raises
    ------
    CompileError
        A kernel does not compile.
    """
    ptxas = find_ptxas()
    if SIMULATED or ptxas is None:
        missing = "NUMBA_ENABLE_CUDASIM is set" if SIMULATED else "ptxas is not on the PATH"
        raise CompileError(f"kernels cannot be compiled: {missing}")
    return [
        _build(name, _source(name, architecture), architecture, folder, ptxas)
        for name, oldest in _names().items()
        for architecture in architectures
        if architecture >= oldest
    ]


def _names() -> dict[str, int]:
    """Kernels of both tiers, and the oldest architecture of each."""
    return dict.fromkeys(KERNELS, 0) | dict.fromkeys(program.KERNELS, program.OLDEST)


def _source(name: str, architecture: int) -> bytes:
    """PTX of a kernel: by NVVM from Python, by NVRTC from CUDA C++."""
    if name not in KERNELS:
        return program.compile_kernel(name, architecture, to="ptx").rstrip(b"\0")
    kernel, signature = KERNELS[name]
    capability = divmod(architecture, 10)
    ptx, _ = cuda.compile_ptx(kernel.py_func, signature, device=False, cc=capability)
    return ptx.encode()


def _build(name: str, ptx: bytes, architecture: int, folder: Path, ptxas: str) -> Built:
    source = folder / f"{name}.sm_{architecture}.ptx"
    source.write_bytes(ptx)
    target = source.with_suffix(".cubin")
    done = subprocess.run(  # noqa: S603 - the user's own toolkit
        [ptxas, "-v", f"-arch=sm_{architecture}", str(source), "-o", str(target)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise CompileError(f"ptxas refuses {source.name}: {done.stderr.strip()}")
    return _read(name, architecture, done.stderr)


def _read(name: str, architecture: int, told: str) -> Built:
    """Take figures out of what ``ptxas -v`` says."""

    def number(pattern: str) -> int:
        found = re.search(pattern, told)
        return int(found[1]) if found else 0

    return Built(
        kernel=name,
        architecture=architecture,
        registers=number(r"Used (\d+) registers"),
        shared_bytes=number(r"(\d+) bytes smem"),
        stack_bytes=number(r"(\d+) bytes stack frame"),
        spilled_bytes=number(r"(\d+) bytes spill stores") + number(r"(\d+) bytes spill loads"),
    )


def check(built: Sequence[Built]) -> None:
    """Refuse kernels that spill registers.

    Raises
    ------
    CompileError
    """
    bad = [
        f"{b.kernel} on sm_{b.architecture}: {b.spilled_bytes}" for b in built if b.spilled_bytes
    ]
    if bad:
        raise CompileError("bytes of spilled registers, expected none: " + ", ".join(bad))


def table(built: Sequence[Built]) -> str:
    """Lay out as Markdown: a line for each kernel, registers by architecture."""
    architectures = sorted({b.architecture for b in built})
    names = dict.fromkeys(b.kernel for b in built)
    header = ["kernel", *(f"sm_{a}" for a in architectures), "shared memory", "stack", "spilled"]
    lines = [header, ["---"] * len(header)]
    for name in names:
        mine = {b.architecture: b for b in built if b.kernel == name}
        largest = [
            max(getattr(b, field) for b in mine.values())
            for field in ("shared_bytes", "stack_bytes", "spilled_bytes")
        ]
        registers = [str(mine[a].registers) if a in mine else "–" for a in architectures]
        lines.append([f"`{name}`", *registers, *(f"{n:,} B" for n in largest)])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; its exit code."""
    parser = argparse.ArgumentParser(prog="python -m kad_kernels.aot", description="Compile.")
    parser.add_argument("folder", nargs="?", type=Path, help="keep PTX and cubins here")
    folder = parser.parse_args(arguments).folder
    try:
        if folder is None:
            with TemporaryDirectory() as temporary:
                built = build(Path(temporary))
        else:
            folder.mkdir(parents=True, exist_ok=True)
            built = build(folder)
        sys.stdout.write(table(built) + "\n")
        check(built)
    except CompileError as error:
        sys.stderr.write(f"kad_kernels.aot: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
