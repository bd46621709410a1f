"""Edits of the user's own module, in place: where all that changes are plain layers."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from nni_aiop.errors import GraphError
from nni_aiop.files import brief
from nni_aiop.graphs import from_module
from nni_aiop.networks._network import Network
from nni_aiop.networks._pass import packet_name, path_of
from nni_aiop.networks._removal import Scores
from nni_aiop.networks._surgery import arguments_of

__all__ = ["edit_in_place"]

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.InstanceNorm2d)
_PLAIN = (
    *_CONVOLUTIONS, *_TRANSPOSED, *_BATCH_NORMS, nn.Linear, nn.LayerNorm, nn.GroupNorm, nn.PReLU,
    nn.Embedding, nn.RMSNorm,
)  # fmt: skip


def edit_in_place(
    module: nn.Module,
    network: Network,
    edits: Mapping[str, Any],
    *,
    scores: Scores | None = None,
) -> nn.Module:
    """The module, its layers as narrow as an edit says; its class and forward stay its own.

    Widths, heads, and the kernels of convolutions can be edited so; branches, gates and other forms
    of layers need the captured network (`Network.edit`), whose weights the module gets.

    Args:
        module: What the network was captured from.
        network: See `Network.capture`.
        edits: As of `Network.edit`.
        scores: As of `Network.edit`.

    Raises:
        GraphError: An edit is one of the structure; a tensor that changes is no plain layer's, or
            the module's forward has sizes of its own. The module is as it was then.
    """
    structural = [
        site.label
        for site in network.sites()
        if site.label in edits
        and not site.counts
        and site.kind != "kernel"
        and edits[site.label] != site.value
    ]
    if structural:
        raise GraphError(
            f"an edit in place must be of widths, heads or kernels, but got {structural[0]!r}: "
            f"Network.edit can do it."
        )
    small = network.edit(edits, scores=scores)
    new = dict(small.state_dict())
    old = dict(module.state_dict())
    changed = [
        path for path, value in old.items() if path not in new or new[path].shape != value.shape
    ]
    odd = [path for path in changed if not _is_plain(module, path)]
    if odd:
        raise GraphError(
            f"what an edit in place changes must be the weights of plain layers, but {odd[0]!r} "
            f"is none{f' (nor are {len(odd) - 1} others)' if len(odd) > 1 else ''}."
        )
    groups = _groups_of(small)
    trial = copy.deepcopy(module)
    _take_over(trial, new, changed, groups)
    try:
        made = from_module(trial, tuple(network.example))
    except GraphError as err:
        raise GraphError(
            f"a module that is edited in place must not have sizes of its own in its forward, but "
            f"{type(module).__name__} cannot run: {brief(err)}"
        ) from err
    if made != small.graph:
        raise GraphError(
            f"a module that is edited in place must come to the edited graph, but "
            f"{type(module).__name__} does not: its forward has sizes of its own."
        )
    _take_over(module, new, changed, groups)
    return module


def _groups_of(network: Network) -> dict[str, int]:
    """The number of groups of each layer that has some, by its path."""
    found = {}
    for node in network.program.graph.nodes:
        if node.op == "call_function" and packet_name(node).startswith(("conv", "group_norm")):
            given = arguments_of(node)
            found[path_of(node)] = int(given.get("groups") or given.get("num_groups") or 1)
    return found


def _is_plain(module: nn.Module, path: str) -> bool:
    prefix, _, name = path.rpartition(".")
    try:
        owner = module.get_submodule(prefix)
    except AttributeError:
        return False
    return isinstance(owner, _PLAIN) and name in {**owner._parameters, **owner._buffers}


def _take_over(
    module: nn.Module,
    new: Mapping[str, Tensor],
    changed: Sequence[str],
    groups: Mapping[str, int],
) -> None:
    """Gives layers the tensors of the edited network, and the numbers that go with them."""
    for path in changed:
        if path not in new:
            continue
        prefix, _, name = path.rpartition(".")
        owner = module.get_submodule(prefix)
        value = new[path].detach().clone()
        if name in owner._parameters:
            before = owner._parameters[name]
            assert before is not None
            owner._parameters[name] = nn.Parameter(value.to(before), before.requires_grad)
        else:
            owner._buffers[name] = value
    for prefix in dict.fromkeys(path.rpartition(".")[0] for path in changed):
        _renumber(module.get_submodule(prefix), groups.get(prefix, 1))
    for path, value in module.state_dict(keep_vars=True).items():
        if path in new and path not in changed:
            value.data.copy_(new[path])


def _renumber(layer: Any, groups: int) -> None:
    """Lets a layer's numbers follow from its weights and the number of its groups."""
    if isinstance(layer, (*_CONVOLUTIONS, *_TRANSPOSED)):
        first, second, *kernel = layer.weight.shape
        layer.groups = groups
        ends = (first, second * groups)
        layer.in_channels, layer.out_channels = (
            ends if isinstance(layer, _TRANSPOSED) else ends[::-1]
        )
        cut = [a - b for a, b in zip(layer.kernel_size, kernel, strict=True)]
        if any(cut) and not isinstance(layer.padding, str):
            layer.padding = tuple(
                p - d * n // 2 for p, d, n in zip(layer.padding, layer.dilation, cut, strict=True)
            )
        layer.kernel_size = tuple(kernel)
    elif isinstance(layer, nn.Linear):
        layer.out_features, layer.in_features = layer.weight.shape
    elif isinstance(layer, _BATCH_NORMS):
        layer.num_features = len(layer.running_mean if layer.weight is None else layer.weight)
    elif isinstance(layer, (nn.LayerNorm, nn.RMSNorm)):
        layer.normalized_shape = tuple(layer.weight.shape)
    elif isinstance(layer, nn.GroupNorm):
        layer.num_channels, layer.num_groups = len(layer.weight), groups
    elif isinstance(layer, nn.PReLU):
        layer.num_parameters = len(layer.weight)
    elif isinstance(layer, nn.Embedding):
        layer.num_embeddings, layer.embedding_dim = layer.weight.shape
