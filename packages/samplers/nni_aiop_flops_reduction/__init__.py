"""Edits that shrink a network to parts of its multiply-adds, as a sampler."""

try:
    from nni_aiop.strategies import FlopsReductionSampler
except ModuleNotFoundError as err:
    if err.name != "nni_aiop":
        raise
    raise ModuleNotFoundError(
        "this package needs nni_aiop, which is not installed: its README says how.",
        name=err.name,
    ) from err


__all__ = ["FlopsReductionSampler"]
