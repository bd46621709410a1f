"""A pruner that predicts where a trial will end."""

try:
    from nni_aiop.strategies import EarlyStoppingPruner
except ModuleNotFoundError as err:
    if err.name != "nni_aiop":
        raise
    raise ModuleNotFoundError(
        "this package needs nni_aiop, which is not installed: its README says how.",
        name=err.name,
    ) from err


__all__ = ["EarlyStoppingPruner"]
