"""Network coding propagation (Ding et al. 2022) as a sampler."""

try:
    from nni_aiop.strategies import NCPSampler
except ModuleNotFoundError as err:
    if err.name != "nni_aiop":
        raise
    raise ModuleNotFoundError(
        "this package needs nni_aiop, which is not installed: its README says how.",
        name=err.name,
    ) from err


__all__ = ["NCPSampler"]
