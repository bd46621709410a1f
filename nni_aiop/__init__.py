"""Predictor-based neural architecture search for NNI and Optuna."""

__version__ = "0.1.0"
