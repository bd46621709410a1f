"""Predictors of metrics from compute graphs (AIO-P): one predictor for many spaces and tasks.

`GraphPredictor` is the one to start with: `fit` pretrains its backbone, `adapt` adds a K-Adapter
for a task, and `transfer` or `few_shot` carry both to a task with a few labels. `load_shipped`
returns one that is trained. `CrossSpaceRanker` ranks networks of a space without any label.
"""

from nni_aiop.predictors.graph._adapters import KAdapter
from nni_aiop.predictors.graph._collation import GraphSet
from nni_aiop.predictors.graph._encoders import ENCODERS, Encoder, GraphEncoder, PublishedEncoder
from nni_aiop.predictors.graph._predictor import GraphPredictor, load_graph_predictor
from nni_aiop.predictors.graph._shipped import load_shipped, load_shipped_ranker, load_shipped_task
from nni_aiop.predictors.graph._tasks import TaskPredictor, learn_task, load_task, tasks_of
from nni_aiop.predictors.graph._transfer import (
    FewShotPredictor,
    TransferredPredictor,
    ZeroShotPredictor,
)
from nni_aiop.predictors.graph.cross_space import (
    CrossSpaceRanker,
    NetworkPool,
    Ranking,
    load_cross_space_ranker,
)
from nni_aiop.predictors.graph.few_shot import GPHead, RidgeHead
from nni_aiop.predictors.graph.labels import LabelScaling
from nni_aiop.weights import model_card, shipped_tasks

__all__ = [
    "ENCODERS",
    "CrossSpaceRanker",
    "Encoder",
    "FewShotPredictor",
    "GPHead",
    "GraphEncoder",
    "GraphPredictor",
    "GraphSet",
    "KAdapter",
    "LabelScaling",
    "NetworkPool",
    "PublishedEncoder",
    "Ranking",
    "RidgeHead",
    "TaskPredictor",
    "TransferredPredictor",
    "ZeroShotPredictor",
    "learn_task",
    "load_cross_space_ranker",
    "load_graph_predictor",
    "load_shipped",
    "load_shipped_ranker",
    "load_shipped_task",
    "load_task",
    "model_card",
    "shipped_tasks",
    "tasks_of",
]
