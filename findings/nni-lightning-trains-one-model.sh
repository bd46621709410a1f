#!/usr/bin/env bash
# On NNI's sequential engine a Lightning evaluator trains the first model only.
#
# nni 3.0, pytorch-lightning 2.6.6, torchmetrics 1.9.0, torch 2.13.0: Classification holds one
# Trainer, which all models of a search share where they run in one process. After its first fit the
# Trainer has reached max_epochs: the next fit ends at once, there are no metrics, and the evaluator
# fails with KeyError: 'val_acc'. An evaluator of one's own has to make a Trainer for each model. This
# script fails if that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet torch==2.13.0
"$folder/env/bin/pip" install --quiet numpy==2.4.6 nni==3.0 pytorch-lightning==2.6.6 \
    torchmetrics==1.9.0 "setuptools<81"
cd "$folder"
cat >search.py <<'PYTHON'
import logging
import warnings

warnings.simplefilter("ignore")
logging.disable(logging.CRITICAL)

import nni
import torch
from nni.nas.evaluator.pytorch import Classification, DataLoader
from nni.nas.execution import SequentialExecutionEngine
from nni.nas.nn.pytorch import LayerChoice, ModelSpace
from nni.nas.space import RawFormatModelSpace
from torch.utils.data import TensorDataset


class Net(ModelSpace):
    def __init__(self):
        super().__init__()
        layers = [torch.nn.Linear(4, 2), torch.nn.Linear(4, 2, bias=False)]
        self.layer = LayerChoice(layers, label="layer")

    def forward(self, x):
        return self.layer(x)


data = nni.trace(TensorDataset)(torch.zeros(8, 4), torch.zeros(8, dtype=torch.long))
evaluator = Classification(
    train_dataloaders=DataLoader(data, batch_size=4),
    val_dataloaders=DataLoader(data, batch_size=4),
    num_classes=2,
    max_epochs=1,
    accelerator="cpu",
    logger=False,
    enable_checkpointing=False,
    enable_progress_bar=False,
    enable_model_summary=False,
)
engine = SequentialExecutionEngine(max_model_count=2)
space = RawFormatModelSpace.from_model(Net(), evaluator)
told = []
for place in (0, 1):
    model = space.freeze({"layer": place})
    try:
        engine.submit_models(model)
        told.append(model.metric)
    except KeyError as err:
        told.append(repr(err))
print(told)
assert isinstance(told[0], float) and told[1] == "KeyError('val_acc')"
PYTHON
env/bin/python search.py 2>errors.txt || { cat errors.txt; exit 1; }
