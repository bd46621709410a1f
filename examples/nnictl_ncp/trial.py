"""One trial: trains a small network on scikit-learn's digits, reports its validation accuracy."""

from __future__ import annotations

import warnings
from typing import Any

import nni
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier


def accuracy(parameters: dict[str, Any]) -> float:
    """Validation accuracy, a fraction, after twenty passes over a thousand images."""
    images, digits = load_digits(return_X_y=True)
    x, x_val, y, y_val = train_test_split(
        images / 16.0, digits, train_size=1000, random_state=0, stratify=digits
    )
    solver = dict(parameters["optimizer"])
    network = MLPClassifier(
        hidden_layer_sizes=[parameters["width"]] * parameters["depth"],
        activation=parameters["activation"],
        learning_rate_init=parameters["learning_rate"],
        solver=solver.pop("_name"),
        max_iter=20,
        random_state=0,
        **solver,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # twenty passes are meant to be few
        return float(network.fit(x, y).score(x_val, y_val))


if __name__ == "__main__":
    nni.report_final_result(accuracy(nni.get_next_parameter()))
