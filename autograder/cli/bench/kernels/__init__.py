"""`attn bench kernels`: what attention costs, computed in several ways on the machine at hand."""

from autograder.cli.bench.kernels.run import run_bench_kernels

__all__ = ["run_bench_kernels"]
