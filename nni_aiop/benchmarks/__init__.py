"""Readers of published benchmark tables, each from its publisher's original file."""

from nni_aiop.benchmarks._tables import load_table
from nni_aiop.benchmarks.naap440 import NAAP440, held_out, load_naap440
from nni_aiop.benchmarks.nas_bench_101 import NASBench101, load_nas_bench_101
from nni_aiop.benchmarks.nas_bench_201 import (
    NASBench201,
    load_nas_bench_201,
    load_nas_bench_201_csv,
)
from nni_aiop.benchmarks.nas_bench_mr import SETTINGS, NASBenchMR, Setting, load_nas_bench_mr
from nni_aiop.benchmarks.ofa_mbv3 import OFAMobileNetV3, load_ofa_mbv3
from nni_aiop.benchmarks.task_zoo import TaskZoo, load_task_zoo
from nni_aiop.benchmarks.transnas_bench_101 import TransNASBench101, load_transnas_bench_101

__all__ = [
    "NAAP440",
    "SETTINGS",
    "NASBench101",
    "NASBench201",
    "NASBenchMR",
    "OFAMobileNetV3",
    "Setting",
    "TaskZoo",
    "TransNASBench101",
    "held_out",
    "load_naap440",
    "load_nas_bench_101",
    "load_nas_bench_201",
    "load_nas_bench_201_csv",
    "load_nas_bench_mr",
    "load_ofa_mbv3",
    "load_table",
    "load_task_zoo",
    "load_transnas_bench_101",
]
