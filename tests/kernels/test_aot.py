"""Every kernel compiles for every architecture, without a GPU, and spills no registers."""

import pytest

pytest.importorskip("numba.cuda", reason="numba-cuda is not installed: pip install 'kad-sdk[gpu]'")

from kad_kernels import aot
from kad_kernels.tensor import program


@pytest.mark.skipif(aot.find_ptxas() is None, reason="ptxas of the CUDA toolkit is not on the PATH")
def test_kernels_compile_without_spills(tmp_path):
    built = aot.build(tmp_path)
    aot.check(built)
    assert {(b.kernel, b.architecture) for b in built} == {
        *((name, architecture) for name in aot.KERNELS for architecture in (75, 80, 86, 89, 90)),
        *((name, architecture) for name in program.KERNELS for architecture in (80, 86, 89, 90)),
    }
    for b in built:
        assert 0 < b.registers <= (255 if b.kernel == "screen" else 128)
        assert b.shared_bytes <= 48 << 10  # what a block gets without asking
        for kind in ("ptx", "cubin"):
            assert (tmp_path / f"{b.kernel}.sm_{b.architecture}.{kind}").stat().st_size > 500
    ptx = (tmp_path / "nearest_tiles.sm_80.ptx").read_text()
    assert "mul.rn.f32" in ptx
    assert "fma.rn.f32" not in ptx  # it would round once where the defined arithmetic rounds twice
    for name in ("decide", "pick"):  # screen with fma, and measure without
        assert "mul.rn.f32" in (tmp_path / f"{name}.sm_80.ptx").read_text()


TOLD = """ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function 'f' for 'sm_80'
ptxas info    : Function properties for f
    16 bytes stack frame, 8 bytes spill stores, 12 bytes spill loads
ptxas info    : Used 40 registers, used 1 barriers, 1024 bytes smem, 400 bytes cmem[0]
"""


def test_spills_are_found():
    built = aot._read("f", 80, TOLD)
    assert built == aot.Built("f", 80, 40, 1024, 16, 20)
    with pytest.raises(aot.CompileError, match="expected none: f on sm_80: 20"):
        aot.check([built])
    line = aot.table([built]).splitlines()[-1]
    assert line == "| `f` | 40 | 1,024 B | 16 B | 20 B |"


def test_missing_toolkit_is_told(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(aot, "find_ptxas", lambda: None)
    assert aot.main([]) == 1
    assert "ptxas is not on the PATH" in capsys.readouterr().err
