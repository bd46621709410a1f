"""Readers of published benchmark tables, each from its publisher's original file."""

from nni_aiop.benchmarks._tables import load_table
from nni_aiop.benchmarks.nas_bench_201 import (
    NASBench201,
    load_nas_bench_201,
    load_nas_bench_201_csv,
)
from nni_aiop.benchmarks.nas_bench_mr import SETTINGS, NASBenchMR, Setting, load_nas_bench_mr

__all__ = [
    "SETTINGS",
    "NASBench201",
    "NASBenchMR",
    "Setting",
    "load_nas_bench_201",
    "load_nas_bench_201_csv",
    "load_nas_bench_mr",
    "load_table",
]
