"""The command ``kad-bench``, as it is started: OpenBLAS is told which kernels to take first."""

from kad_bench.blas import take_best_kernels

__all__ = ["main"]


def main() -> None:
    """Run the command."""
    take_best_kernels()
    from kad_bench.cli import main as command  # noqa: PLC0415 - it brings in NumPy, and OpenBLAS

    command()


if __name__ == "__main__":
    main()
