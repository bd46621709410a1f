"""Predictors of metrics from compute graphs (AIO-P): one predictor for many spaces and tasks."""
