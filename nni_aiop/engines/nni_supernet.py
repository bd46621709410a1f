"""The supernet of an NNI ModelSpace.

NNI 3.0 has weight sharing of its own (`nni.nas.strategy.RandomOneShot` and others, which need a
Lightning evaluator). With PyTorch 2.13 and Lightning 2.6, RandomOneShot trains MutableConv2d and
its kin, LayerChoice and Repeat, and of NNI's hub NasBench201, DARTS, MobileNetV3Space,
ProxylessNAS, ShuffleNetSpace and AutoFormer; DARTS and Proxyless train, too. It refuses
NasBench101, finds no weights in DigitsSpace, and ENAS needs tianshou. But it labels nothing: it
measures no architecture by itself, and `freeze` of its supernet, which should give the network of a
sample with its share of the weights, raises where a convolution without bias is chosen
(MobileNetV3Space, ProxylessNAS, ShuffleNetSpace; `findings/nni-one-shot-freeze-without-bias.sh`),
and in the cell spaces (DARTS, NASNet, ENAS, AmoebaNet, PNAS) gives one whose outputs differ from
the supernet's.

So the weights are shared here as in `nni_aiop.supernet`: the network of a sample is the one that
NNI freezes, whose parameters are parts of shared tensors. This needs nothing of a space but that it
can be frozen, which takes NNI a tenth of a second to a second for each new network of its hub.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import nn

from nni_aiop.engines._nni import importing_nni
from nni_aiop.engines._references import made
from nni_aiop.engines.nni_space import _model_of, code_space_from_nni
from nni_aiop.errors import SpaceError
from nni_aiop.spaces import Sample
from nni_aiop.supernet import Supernet

__all__ = ["as_supernet", "nni_supernet"]

_CHOSEN = "_aiop_chosen"  # on a module: which candidate of a LayerChoice it is
_LOCK = threading.RLock()  # of NNI's classes, while they are watched


def as_supernet(given: Any) -> Supernet:
    """The supernet that is meant by a Supernet, an NNI space, or a reference to either.

    Args:
        given: A Supernet, what has a method `supernet()` (as the ready spaces), any of NNI's
            spaces, a class or function that makes one of these without arguments, or the text
            `module:attribute` that leads to one. The module is imported: name only modules that you
            trust.

    Raises:
        AiopError: The reference leads nowhere.
        SpaceError: What is given has no supernet.
        MissingPackageError: NNI cannot be imported.
    """
    found = made(given)
    if isinstance(found, Supernet):
        return found
    own = getattr(found, "supernet", None)
    if callable(own):
        found = own()
        if not isinstance(found, Supernet):
            raise SpaceError(
                f"supernet() of {given!r:.80} must return a Supernet, "
                f"but returned {type(found).__name__}."
            )
        return found
    if hasattr(found, "simplify"):
        return nni_supernet(found)
    raise SpaceError(
        f"{given!r:.80} must lead to a Supernet or to an NNI ModelSpace, "
        f"but gives an object of type {type(found).__name__}."
    )


def nni_supernet(space: Any, **options: Any) -> Supernet:
    """The shared weights of all networks of an NNI ModelSpace.

    Candidates of a `LayerChoice` have weights of their own, blocks of a `Repeat` keep theirs at any
    depth, and widths and kernels that are chosen (`MutableConv2d`, `MutableLinear`, ...) are parts
    of the largest. A space with a method `supernet()` is asked instead.

    Args:
        space: A `nni.nas.nn.pytorch.ModelSpace`, or what an experiment makes of it.
        options: Further ones of `Supernet`, such as `data`, `head`, `apart` and `seed`.

    Raises:
        SpaceError: The space has a mutable of an unknown kind, or none at all.
        MissingPackageError: NNI cannot be imported.

    Example:
        >>> supernet = nni_supernet(MySpace(), head="fc", data=data, seed=0)  # doctest: +SKIP
    """
    model = _model_of(space)
    own = getattr(model, "supernet", None)
    if callable(own):
        found: Supernet = own(**options)
        return found
    code_space = code_space_from_nni(model)
    labels = {str(label) for label in model.simplify()}

    def build(sample: Sample) -> nn.Module:
        with _watched_choices() as candidates:
            frozen: nn.Module = model.freeze({k: v for k, v in sample.items() if k in labels})
        network = copy.deepcopy(frozen)  # NNI passes on what is not chosen, itself
        for module, twin in zip(frozen.modules(), network.modules(), strict=True):
            setattr(twin, _CHOSEN, tuple(reversed(candidates.get(id(module), ()))))
        return network

    return Supernet(code_space, build, **{"place": _place, **options})


def _place(name: str, sample: Sample, network: nn.Module) -> str:
    """The name of a parameter, with the candidates that were chosen on the way to it."""
    module, parts = network, []
    for part in name.split("."):
        parts.append(part)
        found = getattr(module, part)
        if isinstance(found, nn.Module):
            chosen = getattr(found, _CHOSEN, ())
            parts += [f"[{candidate}]" for candidate in chosen]
            module = found
    return ".".join(parts)


@contextmanager
def _watched_choices() -> Iterator[dict[int, list[Any]]]:
    """What candidates of LayerChoices are taken within: by the module's id, the innermost first."""
    with importing_nni():
        from nni.nas.nn.pytorch import LayerChoice

    original_create = LayerChoice.__dict__["create_fixed_module"]
    original_freeze: Callable[..., nn.Module] = LayerChoice.freeze
    taken: dict[int, list[Any]] = {}
    alive: list[Any] = []  # an id is another module's when its own is gone

    def mark(module: Any, candidate: Any) -> Any:
        alive.append(module)
        known = taken.setdefault(id(module), [])
        if candidate not in known:  # one module may stand in several places
            known.append(candidate)
        return module

    def create(
        cls: Any, sample: Mapping[str, Any], candidates: Any, *args: Any, **kwargs: Any
    ) -> Any:
        chosen = original_create.__func__(cls, sample, candidates, *args, **kwargs)
        items = candidates.items() if isinstance(candidates, dict) else enumerate(candidates)
        return mark(chosen, next(k for k, module in items if module is chosen))

    def freeze(self: Any, sample: Mapping[str, Any]) -> Any:
        return mark(original_freeze(self, sample), self.choice.freeze(sample))

    with _LOCK:
        LayerChoice.create_fixed_module = classmethod(create)
        LayerChoice.freeze = freeze
        try:
            yield taken
        finally:
            LayerChoice.create_fixed_module = original_create
            LayerChoice.freeze = original_freeze
