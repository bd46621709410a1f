"""Supernet: the weights of all networks of a space, each a part of the same tensors.

A network of the space is not written a second time: it is the space's own network, whose parameters
are views of the shared tensors. What it computes is thus what the network computes that has these
weights for itself.
"""

from __future__ import annotations

import math
import os
import zlib
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from itertools import product
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.modules.batchnorm import _BatchNorm

from nni_aiop.errors import FileFormatError, SpaceError
from nni_aiop.files import checked_tensors, read_described, whole, write_described
from nni_aiop.spaces import CodeSpace, Nominal, Ordinal, Sample, Value
from nni_aiop.supernet._data import SupernetData, as_data
from nni_aiop.supernet._extremes import extreme, reaching
from nni_aiop.supernet._labelling import Labelling, make_ready, mean_score
from nni_aiop.supernet._options import SupernetTraining
from nni_aiop.supernet._slices import Part, parameters_of

__all__ = ["Supernet"]

_FORMAT = "nni_aiop.supernet"
_VERSION = 1
_KEPT = 128  # networks whose structure is remembered

Build = Callable[[Sample], nn.Module]
Place = Callable[[str, Sample, nn.Module], str]


class Supernet(nn.Module):
    """The shared weights of a space's networks.

    The network of a sample takes of each shared tensor the first channels, and of a convolution's
    window the middle. Batch normalisation uses the statistics of the batch, in training and in
    evaluation: running ones are one network's own (`ready`).

    Args:
        space: What the samples are of.
        build: From a sample (every label) to its network; parameters may be drawn at random.
        place: From the name of a parameter, the sample and its network to the name of the shared
            tensor. Two operations that stand in one place but are of different kinds need different
            names. By default the parameter's own name.
        reach: Samples whose networks together have the shared tensors at their largest; by default
            they are found from both ends of the space's dimensions. A tensor that none of them has
            is drawn when a network first needs it.
        apart: Labels each of whose values has weights of its own.
        head: Name of the linear layer that gives the networks' class scores: each architecture that
            is labelled may have one of its own (`Labelling.refit`).
        data: Gives the data to train and to label with, where the space has some.
        recipe: How it is trained unless told otherwise.
        labelling: How architectures are labelled unless told otherwise.
        seed: Of the weights; None draws them from PyTorch's global generator.

    Raises:
        SpaceError: A label of `apart` is unknown, or one name stands for tensors of different kind.

    Example:
        >>> from nni_aiop.search_spaces import digits
        >>> supernet = digits.supernet(seed=0)
        >>> sample = supernet.largest
        >>> supernet(torch.zeros(2, 1, 8, 8), sample).shape
        torch.Size([2, 10])
    """

    def __init__(
        self,
        space: CodeSpace,
        build: Build,
        *,
        place: Place | None = None,
        reach: Iterable[Mapping[str, Value]] | None = None,
        apart: Iterable[str] = (),
        head: str | None = None,
        data: Callable[[], SupernetData] | None = None,
        recipe: SupernetTraining | None = None,
        labelling: Labelling | None = None,
        seed: int | None = None,
    ) -> None:
        super().__init__()
        self.space = space
        self.apart = tuple(apart)
        for label in self.apart:
            if label not in space.labels:
                raise SpaceError(
                    f"weights are kept apart by labels of the space, {', '.join(space.labels)}, "
                    f"but got {label!r}."
                )
        self.head = head
        self.data = data
        self.recipe = recipe or SupernetTraining()
        self.labelling = labelling or Labelling()
        self._build = build
        self._place = place
        self._known: OrderedDict[str, tuple[nn.Module, list[tuple[str, Part]]]] = OrderedDict()
        self._known_on = torch.device("cpu")
        samples = list(self._with_apart(reaching(space) if reach is None else reach))
        if not samples:
            raise SpaceError(f"{space.name} must have a sample that is valid, but none was found.")
        self.weights = nn.ParameterDict()
        with torch.random.fork_rng(devices=[], enabled=seed is not None):
            if seed is not None:
                torch.manual_seed(seed)
            self._draw(samples)

    # --- the networks ---------------------------------------------------------------------------

    def forward(self, x: Any, sample: Mapping[str, Value]) -> Any:
        """What the network of a sample gives for x; gradients flow into the shared tensors.

        Args:
            x: Its input, or a tuple of several.
            sample: Inactive labels may be missing.

        Raises:
            SpaceError: The sample breaks a rule of the space.
        """
        network, parts = self._network_of(sample)
        network.train(self.training)
        weights = {part.name: part.of(self.weights[name]) for name, part in parts}
        return functional_call(network, weights, x if isinstance(x, tuple) else (x,))

    def subnet(self, sample: Mapping[str, Value]) -> nn.Module:
        """The network of a sample by itself, with a copy of its weights: to fine-tune, say.

        Its batch normalisation has no statistics yet; `ready` gives it some.

        Raises:
            SpaceError: The sample breaks a rule of the space.
        """
        settled = self._settled(sample)
        with torch.random.fork_rng(devices=[]):  # what is drawn is replaced
            network = self._build(settled)
        parts = self._parts_of(network, settled)
        own = {part.name: parameter for part, parameter in parameters_of(network)}
        with torch.no_grad():
            for name, part in parts:
                own[part.name].copy_(part.of(self.weights[name]))
        return network.to(self.device).train(self.training)

    def ready(
        self,
        sample: Mapping[str, Value],
        data: Any = None,
        labelling: Labelling | None = None,
    ) -> nn.Module:
        """The network of a sample by itself, in evaluation mode, ready to predict.

        Args:
            sample: Inactive labels may be missing.
            data: A `SupernetData`, or a pair of loaders (train, validation); by default the
                supernet's own.
            labelling: What is done to make it ready; by default the supernet's own.

        Raises:
            SpaceError: The sample breaks a rule of the space.
            ValueError: There is no data, or no head where one is to be fitted.
        """
        how = labelling or self.labelling
        return make_ready(self.subnet(sample), self.data_or(data), how, self.head)

    def evaluate(
        self,
        sample: Mapping[str, Value],
        data: Any = None,
        labelling: Labelling | None = None,
    ) -> float:
        """The label of a sample: the validation metric of its network with the shared weights.

        Arguments and errors are those of `ready`.
        """
        given = self.data_or(data)
        network = self.ready(sample, given, labelling)
        return mean_score(network, given.validation, given.score)

    def data_or(self, data: Any) -> SupernetData:
        """The data that is given, or the supernet's own.

        Raises:
            ValueError: There is neither.
        """
        if data is None and self.data is None:
            raise ValueError(
                f"a supernet of {self.space.name} must be given data to train and validate with, "
                "but got none."
            )
        return as_data(self.data() if data is None and self.data is not None else data)

    def parts(self, sample: Mapping[str, Value]) -> dict[str, tuple[str, Tensor]]:
        """Of each parameter of a sample's network the shared tensor's name and its part, a view."""
        return {
            part.name: (name, part.of(self.weights[name]))
            for name, part in self._network_of(sample)[1]
        }

    @property
    def device(self) -> torch.device:
        """Where the shared tensors are."""
        return next(self.parameters()).device

    @cached_property
    def largest(self) -> Sample:
        """The largest architecture (every label): most multiply-adds, where the space counts them.

        Raises:
            InfeasibleError: No such architecture keeps the space's constraints.
        """
        return extreme(self.space, largest=True)

    @cached_property
    def smallest(self) -> Sample:
        """The smallest architecture (every label)."""
        return extreme(self.space, largest=False)

    def code_space(self) -> CodeSpace:
        """The space: what gives a supernet names its space, too."""
        return self.space

    # --- weights --------------------------------------------------------------------------------

    def arrays(self) -> dict[str, NDArray[Any]]:
        """The shared tensors by name."""
        return {name: value.detach().cpu().numpy() for name, value in self.weights.items()}

    def load_arrays(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Take over what `arrays` gave, also tensors that no network has needed here so far.

        Raises:
            ValueError: A tensor is missing, or has another shape or type.
        """
        own = self.arrays()
        for name, value in own.items():
            checked_tensors(arrays, {name: value.shape}, str(value.dtype))
        for name, value in arrays.items():
            if name not in own:
                self._add(name, torch.as_tensor(value))
        with torch.no_grad():
            for name in own:
                self.weights[name].copy_(torch.as_tensor(arrays[name]))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the shared tensors; `load` reads them into a supernet that was made alike."""
        content = {
            "format": _FORMAT,
            "version": _VERSION,
            "space": self.space.name,
            "fingerprint": self.space.fingerprint,
            "apart": list(self.apart),
        }
        write_described(path, "supernet", content, self.arrays())

    def load(self, path: str | os.PathLike[str]) -> Supernet:
        """This supernet, with the shared tensors that `save` wrote.

        Raises:
            FileFormatError: The file is damaged, or of a supernet of another space or kind.
            OSError: There is no such file.
        """
        content, tensors = read_described(
            path, "supernet", kind=_FORMAT, version=_VERSION, what="a supernet's file"
        )
        if content.get("fingerprint") != self.space.fingerprint:
            raise FileFormatError(
                f"{path} must be of the space {self.space.name}, but is of "
                f"{content.get('space')!r:.80}."
            )
        if content.get("apart") != list(self.apart):
            raise FileFormatError(
                f"{path} must keep apart the weights of {list(self.apart)}, but keeps apart those "
                f"of {content.get('apart')!r:.80}."
            )
        with whole(path, "a supernet's file", tensors):
            self.load_arrays(tensors)
        return self

    def _settled(self, sample: Mapping[str, Value]) -> Sample:
        broken = self.space.violation(sample)
        if broken is not None:
            raise SpaceError(broken)
        return self.space.settled(sample)

    def _with_apart(self, samples: Iterable[Mapping[str, Value]]) -> Iterator[Sample]:
        """The samples, each with every value of the labels that are kept apart."""
        choices = []
        for label in self.apart:
            d = self.space.dimensions[self.space.labels.index(label)]
            if not isinstance(d, Nominal | Ordinal):
                raise SpaceError(
                    f"weights are kept apart by nominal or ordinal labels, but {label!r} is "
                    f"{type(d).__name__.lower()}."
                )
            choices.append(d.values)
        for given in samples:
            sample = self.space.complete(given)
            for values in product(*choices):
                changed = {**sample, **dict(zip(self.apart, values, strict=True))}
                if self.space.violation(changed) is None:
                    yield self.space.settled(changed)

    def _network_of(self, given: Mapping[str, Value]) -> tuple[nn.Module, list[tuple[str, Part]]]:
        """The structure of a sample's network, without weights, and what it takes of the shared."""
        key = self.space.key(given) if self.space.violation(given) is None else ""
        if self._known_on != self.device:  # their buffers are elsewhere
            self._known.clear()
            self._known_on = self.device
        if key not in self._known:
            sample = self._settled(given)
            network = _structure(self._build, sample, self.device)
            self._known[key] = network, self._parts_of(network, sample)
            if len(self._known) > _KEPT:
                self._known.popitem(last=False)
        self._known.move_to_end(key)
        return self._known[key]

    def _parts_of(self, network: nn.Module, sample: Sample) -> list[tuple[str, Part]]:
        """What a settled sample's network takes of the shared tensors; missing ones are drawn."""
        parts = [
            (self._shared(part.name, sample, network), part) for part, _ in parameters_of(network)
        ]
        self._add_missing(parts, sample)
        for name, part in parts:
            self._check(name, part, sample)
        return parts

    def _shared(self, name: str, sample: Sample, network: nn.Module) -> str:
        """The name of the shared tensor, which a ParameterDict can hold."""
        placed = name if self._place is None else self._place(name, sample, network)
        apart = "".join(f"{label}={sample[label]}|" for label in self.apart)
        return f"{apart}{placed}".replace(".", "/")

    def _add_missing(self, parts: Sequence[tuple[str, Part]], sample: Sample) -> None:
        """Draw the shared tensors that no network had before, as its widest relative has them."""
        missing = {name for name, _ in parts if name not in self.weights}
        if not missing:
            return
        widest = {**sample}
        for d in self.space.dimensions:
            if isinstance(d, Ordinal) and d.label not in self.apart:
                widest[d.label] = d.values[-1]
        valid = self.space.violation(widest) is None
        for relative in [self.space.settled(widest), sample] if valid else [sample]:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(zlib.crc32(" ".join(sorted(missing)).encode()))
                network = self._build(relative)
            for part, parameter in parameters_of(network):
                name = self._shared(part.name, relative, network)
                if name in missing and name not in self.weights:
                    self._add(name, parameter.detach())

    def _add(self, name: str, value: Tensor) -> None:
        self.weights[name] = nn.Parameter(value.clone().to(self.device))

    def _check(self, name: str, part: Part, sample: Sample) -> None:
        shape = tuple(self.weights[name].shape)
        if len(shape) != len(part.shape) or any(map(int.__lt__, shape, part.shape)):
            raise SpaceError(
                f"`reach` must reach {name} at its largest, {part.shape} of {sample}, "
                f"but reached {shape}."
            )

    def _draw(self, samples: Sequence[Sample]) -> None:
        """Make the shared tensors, and draw them as the networks that reach them do."""
        shapes: dict[str, tuple[int, ...]] = {}
        best: dict[str, tuple[int, int]] = {}  # elements, and which sample has so many
        for i, sample in enumerate(samples):
            network = _structure(self._build, sample)
            for part, _ in parameters_of(network):
                name = self._shared(part.name, sample, network)
                shape = shapes.setdefault(name, part.shape)
                if len(shape) != len(part.shape):
                    raise SpaceError(
                        f"`place` must name tensors of one kind alike, but {name} has the shapes "
                        f"{shape} and {part.shape}."
                    )
                shapes[name] = tuple(map(max, shape, part.shape))
                best[name] = max(best.get(name, (-1, 0)), (math.prod(part.shape), -i))
        drawn: dict[str, Tensor] = {}
        for i in sorted({-i for _, i in best.values()}):
            network = self._build(samples[i])
            for part, parameter in parameters_of(network):
                name = self._shared(part.name, samples[i], network)
                if -best[name][1] == i:
                    drawn[name] = _filled(shapes[name], part, parameter.detach())
        for name in shapes:
            self.weights[name] = nn.Parameter(drawn[name])


def _filled(shape: tuple[int, ...], part: Part, drawn: Tensor) -> Tensor:
    """A tensor of this shape that holds what was drawn, and beyond it numbers of that spread."""
    if shape == part.shape:
        return drawn.clone()
    mean, std = drawn.mean(), drawn.std(correction=0)
    whole = torch.randn(shape, dtype=drawn.dtype) * std + mean
    part.of(whole).copy_(drawn)
    return whole


def _structure(build: Build, sample: Sample, device: torch.device | None = None) -> nn.Module:
    """A sample's network with its buffers, but with parameters that take no memory."""
    # Not made on the meta device, where buffers would be empty and drawing weights is slower.
    with torch.random.fork_rng(devices=[]):  # how often it is built must change nothing
        network = build(sample)
    for module in network.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            empty = torch.empty_like(parameter, device="meta")
            setattr(module, name, nn.Parameter(empty, parameter.requires_grad))
        for name, buffer in list(module.named_buffers(recurse=False)):
            setattr(module, name, buffer.to(device or buffer.device))
    _use_batch_statistics(network)
    return network


def _use_batch_statistics(network: nn.Module) -> None:
    for module in network.modules():
        if isinstance(module, _BatchNorm):
            module.track_running_stats = False
            for name in ("running_mean", "running_var", "num_batches_tracked"):
                setattr(module, name, None)
