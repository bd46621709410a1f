"""Rules of the label pass for norms, and for products with weights and of tensors."""

from __future__ import annotations

from typing import Any

from torch import fx

from nni_aiop.graphs.edits import Marks
from nni_aiop.networks import _mark_rules as marks_of
from nni_aiop.networks._pass import Pass, argument, packet_name, rule_of

__all__: list[str] = []


@rule_of("prelu")
def _prelu(p: Pass, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return marks_of.with_channels(p.coupler, p.shape(node), p.of(args[0]), [p.of(args[1])])


@rule_of("batch_norm", "_native_batch_norm_legit_no_training", "instance_norm")
def _batch_norm(p: Pass, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    vectors = [p.of(a) for a in args[1:5] if isinstance(a, fx.Node)]
    return marks_of.with_channels(p.coupler, p.shape(node), p.of(args[0]), vectors)


@rule_of("group_norm")
def _group_norm(p: Pass, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    vectors = [p.of(a) for a in args[2:4] if isinstance(a, fx.Node)]
    made = marks_of.with_channels(p.coupler, p.shape(node), p.of(args[0]), vectors)
    grid = marks_of.grouped(p.coupler, p.of(args[0]), int(args[1]))
    if grid is not None:
        p.groups[node.name] = grid
    return made


@rule_of("layer_norm", "rms_norm", "_fused_rms_norm")
def _layer_norm(p: Pass, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    x = p.of(args[0])
    vectors = [p.of(a) for a in args[2:4] if isinstance(a, fx.Node)]
    first = len(x.shape) - len(args[1])
    return marks_of.layer_norm(p.coupler, p.shape(node), x, vectors, first)


@rule_of("conv1d", "conv2d", "conv3d", "convolution", "conv_transpose1d", "conv_transpose2d",
       "conv_transpose3d")  # fmt: skip
def _conv(p: Pass, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    name = packet_name(node)
    bias = argument(args, kwargs, 2, "bias", None)
    transposed, place = "transpose" in name, 6
    if name == "convolution":
        transposed, place = bool(args[6]), 8
    made, grid = marks_of.convolution(
        p.coupler,
        p.shape(node),
        p.of(args[0]),
        p.of(args[1]),
        p.of(bias) if isinstance(bias, fx.Node) else None,
        groups=int(argument(args, kwargs, place, "groups", 1)),
        transposed=transposed,
    )
    if grid is not None:
        p.groups[node.name] = grid
    return made


@rule_of("linear")
def _linear(p: Pass, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    x, weight = p.of(args[0]), p.of(args[1])
    if len(weight.shape) != 2:
        return p.freeze_all(node, "its weight has other than two axes")
    bias = argument(args, kwargs, 2, "bias", None)
    given = p.of(bias) if isinstance(bias, fx.Node) else None
    return marks_of.linear(p.coupler, p.shape(node), x, weight, given)


@rule_of("addmm", "baddbmm")
def _addmm(p: Pass, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    made = marks_of.products(p.coupler, p.shape(node), p.of(args[1]), p.of(args[2]))
    return p.coupler.merged(p.shape(node), [made, p.of(args[0])])


@rule_of("matmul", "bmm", "mm")
def _matmul(p: Pass, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return marks_of.products(p.coupler, p.shape(node), p.of(args[0]), p.of(args[1]))


@rule_of("scaled_dot_product_attention")
def _attention(p: Pass, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    q, k, v = (p.of(a) for a in args[:3])
    mask = argument(args, kwargs, 3, "attn_mask", None)
    given: Marks | None = p.of(mask) if isinstance(mask, fx.Node) else None
    return marks_of.attention(p.coupler, p.shape(node), q, k, v, given)


@rule_of("embedding")
def _embedding(p: Pass, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return marks_of.embedding(p.coupler, p.shape(node), p.of(args[1]), p.of(args[0]))
