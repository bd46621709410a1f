#!/usr/bin/env bash
# NNI's strategies save a state that NNI cannot load, or one that holds nothing.
#
# nni 3.0, torch 2.13.0, pytorch-lightning 2.6.6: what NasExperiment.resume reads is written by
# TorchSerializer, whose load is torch.load as it was before torch 2.6. The states of Random,
# GridSearch and RegularizedEvolution hold numpy's generator, and are refused ("Weights only load
# failed"). JsonSerializer, which NNI names as the alternative, cannot write these states, as they hold
# a frozenset. TPE's state is read by either, and is the count of models: what was learned is not in
# it. Whoever wants to go on after an end has to keep the results himself. This script fails if that
# changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet torch==2.13.0
"$folder/env/bin/pip" install --quiet numpy==2.4.6 nni==3.0 pytorch-lightning==2.6.6 "setuptools<81"
cd "$folder"
cat >states.py <<'PYTHON'
import logging
import pickle
import warnings
from pathlib import Path

warnings.simplefilter("ignore")
logging.disable(logging.CRITICAL)

import nni
from nni.nas.evaluator import FunctionalEvaluator
from nni.nas.execution import SequentialExecutionEngine
from nni.nas.nn.pytorch import ModelSpace
from nni.nas.space import SimplifiedModelSpace
from nni.nas.strategy import TPE, GridSearch, Random, RegularizedEvolution
from nni.nas.utils.serializer import JsonSerializer, TorchSerializer


class Net(ModelSpace):
    def __init__(self):
        super().__init__()
        self.width = self.add_mutable(nni.choice("width", [8, 16, 32]))
        self.depth = self.add_mutable(nni.choice("depth", [1, 2, 3]))


def score(model):
    nni.report_final_result(1.0)


def kept(state, serializer):
    path = Path(f"state-{type(serializer).__name__}")
    try:
        serializer.save(state, path)
    except TypeError:
        return "cannot be written"
    try:
        return serializer.load(path)
    except pickle.UnpicklingError as err:
        return "cannot be read" if "Weights only load failed" in str(err) else str(err)


strategies = (
    Random(seed=1),
    GridSearch(seed=1),
    RegularizedEvolution(population_size=2, sample_size=1, seed=1),
    TPE(seed=1),
)
for strategy in strategies:
    space = SimplifiedModelSpace.from_model(Net(), FunctionalEvaluator(score))
    strategy(space, SequentialExecutionEngine(max_model_count=4))
    found = [kept(strategy.state_dict(), one) for one in (TorchSerializer(), JsonSerializer())]
    print(type(strategy).__name__, *found)
    if isinstance(strategy, TPE):
        assert found == [{"model_count": 4}] * 2
    else:
        assert found == ["cannot be read", "cannot be written"]
PYTHON
env/bin/python states.py 2>errors.txt || { cat errors.txt; exit 1; }
