"""Modules, arguments and values that the PyTorch door takes, and what it says of others."""

from __future__ import annotations

import dataclasses
import types
from collections import OrderedDict, UserDict
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nni_aiop.errors import GraphError
from nni_aiop.graphs import ComputeGraph, from_module
from nni_aiop.graphs.doors.modules._known import Known


class Do(nn.Module):
    def __init__(self, function: Callable[..., Any], **parts: nn.Module) -> None:
        super().__init__()
        self.function = function
        self.parts = nn.ModuleDict(parts)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.function(*args, **kwargs, **dict(self.parts))


def read(function: Callable[..., Any], example: Any = (2, 4)) -> ComputeGraph:
    """The graph of a function of inputs and a linear layer of 4 to 4 features."""
    return from_module(Do(function, layer=nn.Linear(4, 4)), example)


# --- convolutions without a batch ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("layers", "shape", "macs", "parameters"),
    [
        ([nn.Conv1d(4, 8, 3, padding=1), nn.Conv1d(8, 4, 3, padding=1)], (4, 9), 1728, 204),
        ([nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 3, 3, padding=1)], (3, 8, 8), 10368, 168),
        ([nn.Conv3d(2, 2, 1)], (2, 3, 3, 3), 108, 6),
        ([nn.ConvTranspose1d(4, 4, 3, padding=1)], (4, 9), 432, 52),
        ([nn.ConvTranspose2d(3, 3, 3, padding=1)], (3, 8, 8), 5184, 84),
        ([nn.ConvTranspose3d(2, 2, 1)], (2, 3, 3, 3), 108, 6),
    ],
)
def test_a_convolution_without_a_batch(
    layers: list[nn.Module], shape: tuple[int, ...], macs: int, parameters: int
) -> None:
    net = nn.Sequential(*layers)
    graph = from_module(Do(lambda x, net: x + net(x), net=net), shape)
    assert (graph.macs, graph.parameters) == (macs, parameters)
    batched = from_module(Do(lambda x, net: x + net(x), net=net), (1, *shape))
    assert graph.macs == batched.macs
    assert graph.operations["conv" if "Transpose" not in str(net) else "conv_transpose"] == len(net)


# --- writing into buffers ------------------------------------------------------------------------


def into(write: Callable[[Tensor, Tensor], Any], make: Any = torch.zeros) -> Any:
    def forward(x: Tensor, layer: nn.Module) -> Tensor:
        o = make(2, 4)
        write(o, layer(x))
        return o.sum() + x.sum()

    return forward


@pytest.mark.filterwarnings("ignore::nni_aiop.errors.UnknownCostWarning")
@pytest.mark.parametrize(
    "write",
    [
        lambda o, y: o.index_add_(0, torch.tensor([0, 1]), y),
        lambda o, y: o.index_copy_(0, torch.tensor([0, 1]), y),
        lambda o, y: o.scatter_(1, torch.zeros(2, 4, dtype=torch.long), y),
        lambda o, y: o.scatter_add_(1, torch.zeros(2, 4, dtype=torch.long), y),
        lambda o, y: o.scatter_reduce_(1, torch.zeros(2, 4, dtype=torch.long), y, "amax"),
        lambda o, y: o.index_put_((torch.tensor([0, 1]),), y),
        lambda o, y: o.__setitem__(torch.tensor([0, 1]), y),
        lambda o, y: o.__setitem__(slice(0, 1), y[:1]),
        lambda o, y: o.__setitem__(y > 0, 1.0),
        lambda o, y: o.masked_scatter_(torch.ones(2, 4, dtype=torch.bool), y),
        lambda o, y: o.masked_fill_(y > 0, 1.0),
        lambda o, y: o.fill_(y.mean()),
        lambda o, y: o[0].copy_(y[0]),
        lambda o, y: o.t().add_(y.t()),
        lambda o, y: o.view(-1).addcmul_(y.view(-1), y.view(-1)),
        lambda o, y: torch.add(y, 1, out=o),
        lambda o, y: torch.cumsum(y, 1, out=o),
        lambda o, y: torch.cat([y[:1], y[1:]], out=o),
        lambda o, y: torch.mul(y[0], 2, out=o[1]),
        lambda o, y: torch.sort(y, 1, out=(o, torch.zeros(2, 4, dtype=torch.long))),
        lambda o, y: torch._foreach_add_([o], [y]),
        lambda o, y: torch._foreach_copy_([o], [y]),
        lambda o, y: setattr(o, "data", y),
    ],
)
@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_what_is_written_into_a_buffer_is_read(write: Any, device: str) -> None:
    """2 rows of 4 by 4 multiply-adds."""
    graph = read(into(write, lambda *shape: torch.zeros(*shape, device=device)))
    assert (graph.macs, graph.parameters) == (32, 20)


def test_a_result_in_an_empty_tensor() -> None:
    graph = read(lambda x, layer: torch.add(layer(x), x, out=torch.empty(0)).relu())
    assert graph == read(lambda x, layer: torch.relu(layer(x) + x))
    graph = read(lambda x, layer: torch.matmul(layer(x), torch.ones(4, 3), out=torch.empty(2, 3)))
    assert (graph.macs, graph.output_shapes) == (32 + 24, ((2, 3),))


# --- values --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "known",
    [
        lambda x: torch.ones(2, dtype=torch.bool, device=x.device).all(),
        lambda x: torch.zeros(3, device=x.device).sum().item() == 0,
        lambda x: torch.arange(3, device=x.device).tolist() == [0, 1, 2],
        lambda x: int(torch.tensor(3, device=x.device)) == 3,
        lambda x: torch.as_tensor([1, 2], device=x.device).numpy().sum() == 3,
        lambda x: (t := torch.zeros(1), t.numpy(), t.add_(1))[1][0] == 1,
        lambda x: (t := torch.zeros(1, device=x.device), t.numpy(), t.add_(1))[1][0] == 1,
        lambda x: (t := torch.zeros(1, device=x.device), t.numpy().fill(1))[0].item() == 1,
        lambda x: (t := torch.zeros(2, device=x.device), t[1:].numpy(), t.add_(1))[1][0] == 1,
        lambda x: list(range(torch.full((), 2, device=x.device))) == [0, 1],
        lambda x: x.new_ones(3).bool().all(),
        lambda x: torch.ones_like(x).mean() == 1,
        lambda x: torch.empty((), device=x.device).fill_(2).item() == 2,
        lambda x: torch.eye(3, device=x.device).nonzero().shape == (3, 2),
        lambda x: torch.arange(9, device=x.device).view(3, 3)[1].unbind()[2].item() == 5,
        lambda x: torch.equal(torch.ones(2, device=x.device), torch.ones(2)),
        lambda x: torch.where(condition=torch.eye(3, device=x.device) > 0)[0].tolist() == [0, 1, 2],
        lambda x: torch.nonzero(input=torch.ones(2, device=x.device)).shape == (2, 1),
        lambda x: torch.where(condition=torch.ones(2) > 0, input=x.new_ones(2), other=0).all(),
        lambda x: torch.zeros(4, device=x.device).index_fill_(0, torch.tensor([1]), 2)[1] == 2,
        lambda x: (
            torch.arange(6, device=x.device)[torch.arange(6, device=x.device) > 2].sum() == 12
        ),
    ],
)
def test_values_of_constants_answer(known: Callable[[Tensor], Any]) -> None:
    graph = read(lambda x, layer: layer(x) if known(x) else x)
    assert graph.operations == {"input": 1, "linear": 1, "output": 1}


@pytest.mark.filterwarnings("ignore::nni_aiop.errors.UnknownCostWarning")
@pytest.mark.parametrize(
    "places",
    [
        torch.where,
        lambda mask: mask.nonzero(as_tuple=True),
        lambda mask: torch.nonzero(mask, as_tuple=True),
        lambda mask: torch.where(condition=mask),
        lambda mask: torch.nonzero(input=mask, as_tuple=True),
        lambda mask: (found := torch.where(mask), len(found))[0],
    ],
)
def test_what_depends_on_data_may_say_where_to_write(places: Callable[[Tensor], Any]) -> None:
    def forward(x: Tensor, layer: nn.Module) -> Tensor:
        mask = layer(x) > 0
        mask[places(mask.all(-1))] = False
        return x.masked_fill(mask, 0.0)

    graph = read(forward)
    assert graph.operations["linear"] == graph.operations["other:index_put"] == 1


@pytest.mark.parametrize(
    "asked",
    [
        lambda x, places: x[places],
        lambda x, places: x[places[0]],
        lambda x, places: next(x + i for i in places),
    ],
)
def test_how_much_depends_on_data_is_refused(asked: Callable[[Tensor, Any], Tensor]) -> None:
    def forward(x: Tensor, layer: nn.Module) -> Tensor:
        return asked(layer(x), torch.where(layer(x).sum(-1) > 0))

    with pytest.raises(GraphError, match="asks for one: the shape of what where returns"):
        read(forward)


class Annealed(nn.Module):
    """As EoMT, whose buffer says of each block whether it masks; and a scale that is one."""

    def __init__(self, share: float, scale: float) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)
        self.register_buffer("shares", torch.full((3,), share))
        self.register_buffer("scale", torch.tensor(scale))

    def forward(self, x: Tensor) -> Tensor:
        for place in range(3):
            if self.shares[place] > 0 and self.shares.sum().item() > 1:
                x = self.layer(x)
        return x * self.scale * (self.scale + 1)


def test_buffers_answer_but_are_no_numbers_of_the_graph() -> None:
    with_layers = from_module(Annealed(0.5, 2.0), (2, 4))
    assert with_layers.operations["linear"] == 3
    without = from_module(Annealed(0.0, 2.0), (2, 4))
    assert "linear" not in without.operations
    assert from_module(Annealed(0.9, 7.0), (2, 4)) == with_layers
    own = Annealed(0.5, 2.0)
    own.scale = own.scale.to("meta")
    assert from_module(own, (2, 4)) == with_layers
    with pytest.raises(GraphError, match="asks for one: item"):
        from_module(Annealed(0.5, 2.0).to("meta"), (2, 4))


@pytest.mark.parametrize(
    "made",
    [lambda s: s * 1.0, lambda s: torch.zeros(()).add_(s), lambda s: s.new_zeros(()).copy_(s)],
)
def test_what_is_made_of_buffers_is_no_number_either(made: Callable[[Tensor], Tensor]) -> None:
    """It would be a GELU by one value of a buffer, and another function by others."""

    class Scaled(nn.Module):
        def __init__(self, value: float) -> None:
            super().__init__()
            self.register_buffer("slope", torch.tensor(value))

        def forward(self, x: Tensor) -> Tensor:
            return x * torch.sigmoid(x * made(self.slope))

    assert from_module(Scaled(1.702), (2, 4)) == from_module(Scaled(3.0), (2, 4))


def test_masks_of_the_size_of_an_image_answer() -> None:
    def forward(x: Tensor, layer: nn.Module) -> Tensor:
        mask = torch.ones((1, 800, 1280), dtype=torch.bool, device=x.device)
        rows = mask.cumsum(1, dtype=torch.float32)[:, ::32, ::32]
        return layer(x) if mask.all() and rows.max() == 769 else x

    assert "linear" in read(forward).operations


def test_values_of_large_constants_take_bounded_memory() -> None:
    known = Known()
    kept = [torch.empty(1500, 1500, device="meta") for _ in range(100)]
    assert [known.fits([one]) for one in kept] == [True] * 29 + [False] * 71  # of 256 MB
    assert known.fits([torch.empty(2**16, device="meta")])
    assert not Known().fits([torch.empty(2**22 + 1, dtype=torch.bool, device="meta")])


@pytest.mark.parametrize(
    "unknown",
    [
        lambda x, y: y.sum() > 0,
        lambda x, y: torch.zeros(1).copy_(y.sum()[None]).item(),
        lambda x, y: torch.zeros(2, 4).copy_(y).tolist(),
        lambda x, y: torch.zeros(3, 2, 4)[0].copy_(y).numpy(),
        lambda x, y: (t := torch.zeros(2, 4), t.numpy(), t.copy_(y))[1][0, 0] > 0,
        lambda x, y: (t := torch.zeros(2, 4, device=x.device), t.numpy(), t.copy_(y))[1][0, 0] > 0,
        lambda x, y: (t := torch.zeros(2, 4).int(), t.numpy(), t[0].copy_(y[0]))[1][0, 0] > 0,
        lambda x, y: torch.zeros(2, 4, device=x.device).copy_(y).bool().all(),
        lambda x, y: torch.equal(x, y),
        lambda x, y: torch.zeros(2, 4).index_add_(0, torch.tensor([0, 1]), y).nonzero(),
        lambda x, y: y[y > 0],
        lambda x, y: torch.masked_select(y, y > 0),
        lambda x, y: torch.unique(y),
        lambda x, y: torch.cond(y.sum() > 0, lambda z: z, lambda z: -z, (y,)),
        lambda x, y: torch.rand(2, device=x.device).sum() > 1,
    ],
)
def test_values_of_data_are_refused_in_one_sentence(unknown: Any) -> None:
    def forward(x: Tensor, layer: nn.Module) -> Tensor:
        y = layer(x)
        return y if unknown(x, y) is not None and bool(unknown(x, y)) else x

    with pytest.raises(GraphError, match="must not depend on the values of its data") as caught:
        read(forward)
    assert len(str(caught.value)) < 250
    assert "partial=True" in str(caught.value)
    assert "0x" not in str(caught.value)


def test_integers_and_masks_that_are_given_answer() -> None:
    """As in BERT, which asks whether an attention mask masks anything."""

    def forward(x: Tensor, mask: Tensor, layer: nn.Module) -> Tensor:
        y = layer(x) * mask[..., None]
        return y if mask.all() else torch.relu(y)

    ones = torch.ones(2, 3, dtype=torch.long)
    x = torch.rand(2, 3, 4)
    assert "relu" not in read(forward, (x, ones)).operations
    masked = read(forward, (x, ones.tril()))
    assert masked.operations["relu"] == 1
    assert masked.operations["input"] == 2
    assert masked.operations["mul"] == 1
    assert torch.equal(ones, torch.ones(2, 3, dtype=torch.long))
    for unknown in (ones.float(), (2, 3)):
        with pytest.raises(GraphError, match="asks for one: item"):
            read(forward, (x, unknown))


def test_integers_that_are_given_are_not_written() -> None:
    index = torch.arange(4)
    read(lambda x, i, layer: layer(x) * i.add_(1).sum().item(), (torch.rand(2, 4), index))
    assert index.tolist() == [0, 1, 2, 3]


def test_tensors_go_to_another_device_and_stay_in_the_graph() -> None:
    graph = read(lambda x, layer: layer(x).cpu().to("cpu", torch.float64) + 1)
    assert graph.operations["linear"] == 1


# --- modules -------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore")
def test_scripted_modules_are_refused() -> None:
    for made in (
        torch.jit.script(nn.Linear(4, 4)),
        torch.jit.trace(nn.Linear(4, 4), torch.zeros(2, 4)),
    ):
        with pytest.raises(GraphError, match="written in Python, but got a scripted or traced Lin"):
            from_module(made, (2, 4))
        with pytest.raises(GraphError, match=r"traced Linear \(in 0\): give the module"):
            from_module(nn.Sequential(made), (2, 4))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("layer", [nn.LazyLinear(4), nn.LazyConv2d(4, 3), nn.LazyBatchNorm2d()])
def test_lazy_layers_are_refused_until_they_ran(layer: nn.Module) -> None:
    with pytest.raises(GraphError, match=r"\(in 1\) are not initialised: run the module once"):
        from_module(nn.Sequential(nn.ReLU(), layer), (2, 4, 5, 5))
    layer(torch.zeros(2, 4, 5, 5))
    assert from_module(layer, (2, 4, 5, 5)).parameters == sum(p.numel() for p in layer.parameters())


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("norm", "parameters"),
    [
        (torch.nn.utils.weight_norm, 15 + 3),
        (torch.nn.utils.parametrizations.weight_norm, 15 + 3),
        (torch.nn.utils.spectral_norm, 15),
        (torch.nn.utils.parametrizations.spectral_norm, 15),
    ],
)
@pytest.mark.parametrize("ran", [False, True])
def test_reparametrised_weights(norm: Any, parameters: int, ran: bool) -> None:
    net = nn.Sequential(norm(nn.Linear(4, 3)), nn.ReLU())
    if ran:
        net(torch.rand(2, 4)).sum().backward()
    graph = from_module(net, (2, 4))
    assert graph.operations == {"input": 1, "linear": 1, "output": 1, "relu": 1}
    assert (graph.macs, graph.parameters) == (24, parameters)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("layers", [1, 2])
def test_transformers_run_layer_by_layer(batch_first: bool, layers: int) -> None:
    """By hand for 2 sequences of 5: projections 4 * 8 * 8, mixing 2 * 5 * 8, two of 8 * 16."""
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=batch_first)
    net = nn.TransformerEncoder(layer, layers).eval()
    shape = (2, 5, 8) if batch_first else (5, 2, 8)
    enabled = torch.backends.mha.get_fastpath_enabled()
    mask = torch.zeros(2, 5, dtype=torch.bool)
    for kwargs in ({}, {"src_key_padding_mask": mask}, {"src_key_padding_mask": (2, 5)}):
        graph = from_module(net, shape, kwargs=kwargs)
        assert graph.macs == layers * 10 * (4 * 64 + 2 * 5 * 8 + 2 * 128)
        assert graph.operations["attention"] == layers
        assert graph.operations["input"] == 1 + len(kwargs)
        assert graph.others == ()
    assert torch.backends.mha.get_fastpath_enabled() == enabled


# --- arguments and results -----------------------------------------------------------------------


@dataclasses.dataclass
class Batch:
    x: Any
    n: int = 3


@dataclasses.dataclass(frozen=True)
class Frozen:
    x: Any
    more: Any = None

    def __post_init__(self) -> None:
        assert isinstance(self.x, Tensor)


class Pair(NamedTuple):
    a: Any
    b: Any


class Output(OrderedDict):
    """Keys that are attributes, too."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError as err:
            raise AttributeError(name) from err


@pytest.mark.parametrize(
    ("forward", "example"),
    [
        (lambda d, layer: Batch(layer(d.x), d.n), Batch(torch.rand(2, 4))),
        (lambda d, layer: Batch([layer(d.x)]), Batch((2, 4))),
        (lambda d, layer: Frozen(layer(d.more["x"]), d.x), Frozen(torch.rand(2), {"x": (2, 4)})),
        (lambda d, layer: Output(y=layer(d.x)), Output(x=torch.rand(2, 4))),
        (lambda d, layer: types.MappingProxyType({"y": layer(d["x"])}), {"x": (2, 4)}),
        (lambda d, layer: UserDict(y=layer(d["x"])), UserDict(x=torch.rand(2, 4))),
        (lambda d, layer: Pair(layer(d.a), d.b), Pair((2, 4), 3)),
    ],
)
def test_records_and_mappings(forward: Any, example: Any) -> None:
    graph = from_module(Do(forward, layer=nn.Linear(4, 4)), (example,))
    assert (graph.macs, graph.operations["linear"]) == (32, 1)
    by_name = from_module(
        Do(lambda d, layer: forward(d, layer), layer=nn.Linear(4, 4)), (), kwargs={"d": example}
    )
    assert by_name == graph


def test_records_are_not_touched() -> None:
    x = torch.rand(2, 4)
    batch = Batch([x])
    from_module(Do(lambda d, layer: layer(d.x.pop()), layer=nn.Linear(4, 4)), (batch,))
    assert batch.x == [x]


def test_tensors_in_other_objects_are_refused() -> None:
    class Holder:
        def __init__(self) -> None:
            self.x = torch.rand(2, 4)

    with pytest.raises(GraphError, match="mappings or dataclasses, but got some in Holder"):
        read(lambda d, layer: layer(d.x), (Holder(),))


class Resize(nn.Module):
    def forward(self, x: Tensor, size: tuple[int, int] | None = None) -> Tensor:
        return F.interpolate(x, size=size)


class ResizeList(nn.Module):
    def forward(self, x: Tensor, size: Sequence[int]) -> Tensor:
        return F.interpolate(x, size=list(size))


class ResizeDefault(nn.Module):
    def forward(self, x, size=(4, 4)):  # type: ignore[no-untyped-def]
        return F.interpolate(x, size=size)


class Unknown(nn.Module):
    def forward(self, x, size=None):  # type: ignore[no-untyped-def]
        return F.interpolate(x, size=size)


@pytest.mark.parametrize("net", [Resize(), ResizeList(), ResizeDefault()])
def test_whole_numbers_are_no_shape_where_forward_says_so(net: nn.Module) -> None:
    for graph in (
        from_module(net, ((1, 3, 8, 8),), kwargs={"size": (16, 16)}),
        from_module(net, ((1, 3, 8, 8), [16, 16])),
    ):
        assert graph.operations == {"input": 1, "output": 1, "resize": 1}
        assert graph.output_shapes == ((1, 3, 16, 16),)


def test_constants_are_passed_on_as_they_are() -> None:
    graph = from_module(Unknown(), ((1, 3, 8, 8),), constants={"size": (16, 16)})
    assert graph.output_shapes == ((1, 3, 16, 16),)
    with pytest.raises(GraphError, match="whole numbers that are no shape are given as constants"):
        from_module(Unknown(), ((1, 3, 8, 8),), kwargs={"size": (16, 16)})
    with pytest.raises(GraphError, match="given once, but got 'size' twice"):
        from_module(Unknown(), (), kwargs={"size": (1,)}, constants={"size": 2})


@pytest.mark.parametrize(
    ("pool", "size"),
    [
        (nn.AvgPool2d(10, ceil_mode=True), 7),
        (nn.MaxPool2d(8, ceil_mode=True), 7),
        (nn.MaxPool2d(3, 2, 1, ceil_mode=True), 7),
        (nn.MaxPool2d(2, 3, 1, ceil_mode=True), 6),
        (nn.AvgPool2d(2, 4, ceil_mode=True), 9),
        (nn.MaxPool1d(5, 4, ceil_mode=True), 4),
        (nn.AvgPool3d(3, 2, ceil_mode=True), 4),
    ],
)
def test_pools_that_round_up(pool: nn.Module, size: int) -> None:
    rank = int(type(pool).__name__[-2])
    x = torch.rand(1, 3, *(size,) * rank)
    assert from_module(pool, x).output_shapes == (tuple(pool(x).shape),)


# --- the rest of what is written ----------------------------------------------------------------


@torch.library.custom_op(
    "nni_aiop_tests::collect", mutates_args=("into",), schema="(Tensor(a!) into, Tensor x) -> ()"
)
def collect(into: Tensor, x: Tensor) -> None:
    into.add_(x)


@pytest.mark.filterwarnings("ignore::nni_aiop.errors.UnknownCostWarning")
@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_operations_of_others_that_write_are_read(device: str) -> None:
    graph = read(into(collect, lambda *shape: torch.zeros(*shape, device=device)))
    assert (graph.macs, graph.others) == (32, ("collect",))


def test_names_of_the_vocabulary_are_its_own() -> None:
    graph = read(lambda x, layer: layer(x).clone().resize_(2, 3))
    assert graph.others == ("aten_resize",)


class Cache(nn.Module):
    """Keys of the steps before, in a buffer and in a tensor that is none."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)
        self.register_buffer("keys", torch.zeros(8, 4))
        self.register_buffer("places", torch.arange(8))
        self.register_buffer("length", torch.tensor(0))
        self.more = torch.zeros(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        self.keys[self.places[:2]] = self.layer(x)
        self.more[2:4] = x
        self.length += 2
        n = int(self.length.item())
        return self.keys[:n] + self.more[n : n + 2]


def test_buffers_are_written_in_the_copy_alone() -> None:
    net = Cache()
    graph = from_module(net, (2, 4))
    assert (graph.macs, graph.others) == (32, ("index_put", "scatter"))
    assert net.length.item() == 0
    assert torch.equal(net.more, torch.zeros(8, 4))
