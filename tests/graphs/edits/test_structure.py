"""Edits of structure: the edited graph is that of the module written that way."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nni_aiop.graphs import from_module
from tests.graphs.edits.edit_checks import IMAGE, Module, assert_edits_to, reasons


def kinds(module: nn.Module, example: Any = IMAGE) -> dict[str, tuple[Any, ...]]:
    """By label the options of sites of structure."""
    sites = from_module(module, example).sites()
    return {s.label: s.values for s in sites if not s.counts}


# --- residual branches --------------------------------------------------------------------------


class Block(nn.Module):
    """A residual block, which may have lost its branch."""

    def __init__(self, w: int, v: int, *, there: bool = True, relu: bool = True) -> None:
        super().__init__()
        self.relu = relu
        self.branch = (
            nn.Sequential(
                nn.Conv2d(w, v, 3, padding=1), nn.BatchNorm2d(v), nn.ReLU(),
                nn.Conv2d(v, w, 3, padding=1), nn.BatchNorm2d(w),
            )
            if there
            else None
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        y = x if self.branch is None else x + self.branch(x)
        return F.relu(y) if self.relu else y


def residual(
    w: int = 16, v: int = 8, *, first: bool = True, second: bool = True, relu: bool = True
) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, w, 3), nn.ReLU(),
        Block(w, v, there=first, relu=relu), Block(w, v, there=second, relu=relu),
        nn.Conv2d(w, 4, 1),
    ).eval()  # fmt: skip


@pytest.mark.parametrize("relu", [True, False])
@pytest.mark.parametrize(
    "gone", [{"first"}, {"second"}, {"first", "second"}], ids=["first", "second", "both"]
)
def test_a_residual_branch_that_goes(gone: set[str], relu: bool) -> None:
    def make(**options: Any) -> nn.Module:
        return residual(**{"relu": relu, **options})

    places = {"first": "branch:2.branch", "second": "branch:3.branch"}
    edits = {places[name]: "remove" for name in gone}
    assert_edits_to(make, IMAGE, edits, **dict.fromkeys(gone, False))
    narrow = {**edits, "width:0": 12}
    assert_edits_to(make, IMAGE, narrow, w=12, **dict.fromkeys(gone, False))


def test_a_width_inside_a_branch_that_goes_does_not_matter() -> None:
    graph = from_module(residual(), IMAGE)
    (inner,) = (s for s in graph.sites() if s.label == "width:2.branch.0")
    assert inner.parents == ("branch:2.branch",)
    gone = graph.edit({"branch:2.branch": "remove"})
    assert graph.edit({"branch:2.branch": "remove", inner.label: 4}) == gone


def test_a_shortcut_with_a_convolution_and_its_branch_both_may_go_or_neither() -> None:
    """Where both terms are computed from the same tensor neither is the tensor itself."""

    def forward(m: Any, x: Tensor) -> Tensor:
        x = m.stem(x)
        return m.head(m.a(x) + m.b(x))

    module = Module(
        forward,
        stem=nn.Conv2d(3, 16, 1),
        a=nn.Conv2d(16, 16, 1),
        b=nn.Conv2d(16, 16, 3, padding=1),
        head=nn.Conv2d(16, 4, 1),
    )
    assert not any(label.startswith("branch") for label in kinds(module))


def test_a_branch_without_products_stays() -> None:
    module = Module(
        lambda m, x: m.head((y := m.stem(x)) + torch.sigmoid(y)),
        stem=nn.Conv2d(3, 16, 1),
        head=nn.Conv2d(16, 4, 1),
    )
    assert not any(label.startswith("branch") for label in kinds(module))


def test_branches_of_a_transformer() -> None:
    def make(*, mix: bool = True, inner: bool = True, w: int = 16) -> nn.Module:
        def forward(m: Any, x: Tensor) -> Tensor:
            x = m.stem(x)
            if mix:
                y = m.norm1(x)
                x = x + m.out(F.scaled_dot_product_attention(m.q(y), m.k(y), m.v(y)))
            if inner:
                x = x + m.b(F.gelu(m.a(m.norm2(x))))
            return m.head(x)

        layers = {name: nn.Linear(w, 16) for name in ("q", "k", "v", "a")}
        layers |= {name: nn.Linear(16, w) for name in ("out", "b")}
        return Module(
            forward,
            stem=nn.Linear(6, w),
            norm1=nn.LayerNorm(w),
            norm2=nn.LayerNorm(w),
            head=nn.Linear(w, 4),
            **layers,
        )

    shape = (1, 5, 6)
    graph = from_module(make(), shape)
    mix, inner = (s.label for s in graph.sites() if s.kind == "branch")
    assert_edits_to(make, shape, {mix: "remove"}, mix=False)
    assert_edits_to(make, shape, {inner: "remove", "width:stem": 8}, inner=False, w=8)
    assert_edits_to(make, shape, {mix: "remove", inner: "remove"}, mix=False, inner=False)


def test_one_of_three_terms_that_goes() -> None:
    def make(*, a: bool = True, b: bool = True) -> nn.Module:
        def forward(m: Any, x: Tensor) -> Tensor:
            y = m.stem(x)
            total = y
            for there, layer in ((a, m.a), (b, m.b)):
                total = total + layer(y) if there else total
            return m.head(F.relu(total))

        return Module(
            forward,
            stem=nn.Conv2d(3, 16, 1),
            a=nn.Conv2d(16, 16, 1),
            b=nn.Conv2d(16, 16, 3, padding=1),
            head=nn.Conv2d(16, 4, 1),
        )

    assert_edits_to(make, IMAGE, {"branch:a": "remove"}, a=False)
    assert_edits_to(make, IMAGE, {"branch:a": "remove", "branch:b": "remove"}, a=False, b=False)


def test_a_norm_behind_a_branch_that_goes_is_taken_in() -> None:
    def make(*, there: bool = True, w: int = 16) -> nn.Module:
        def forward(m: Any, x: Tensor) -> Tensor:
            x = m.stem(x)
            return m.head(F.relu(m.norm(x + m.a(x) if there else x)))

        return Module(
            forward,
            stem=nn.Conv2d(3, w, 1),
            a=nn.Conv2d(w, w, 3, padding=1),
            norm=nn.BatchNorm2d(w),
            head=nn.Conv2d(w, 4, 1),
        ).eval()

    assert_edits_to(make, IMAGE, {"branch:a": "remove"}, there=False)
    assert_edits_to(make, IMAGE, {"branch:a": "remove", "width:stem": 12}, there=False, w=12)


def test_a_branch_of_a_layer_that_is_used_twice() -> None:
    def make(*, first: bool = True, second: bool = True) -> nn.Module:
        def forward(m: Any, x: Tensor) -> Tensor:
            x = m.stem(x)
            for there in (first, second):
                x = F.relu(x + m.inner(x)) if there else F.relu(x)
            return m.head(x)

        return Module(
            forward,
            stem=nn.Conv2d(3, 16, 1),
            inner=nn.Conv2d(16, 16, 3, padding=1),
            head=nn.Conv2d(16, 4, 1),
        )

    labels = [label for label in kinds(make()) if label.startswith("branch")]
    assert labels == ["branch:inner", "branch:inner#2"]
    assert_edits_to(make, IMAGE, {labels[0]: "remove"}, first=False)
    assert_edits_to(make, IMAGE, {labels[1]: "remove"}, second=False)
    assert_edits_to(make, IMAGE, dict.fromkeys(labels, "remove"), first=False, second=False)


@pytest.mark.parametrize(
    "clamp", [F.relu6, nn.ReLU6(), lambda x: x.clamp(0, 6)], ids=["function", "module", "clamp"]
)
def test_a_clamp_behind_a_branch_that_goes(clamp: Callable[[Tensor], Tensor]) -> None:
    def make(*, there: bool = True) -> nn.Module:
        def forward(m: Any, x: Tensor) -> Tensor:
            x = clamp(m.stem(x))
            return m.head(clamp(x + m.a(x) if there else x))

        return Module(
            forward,
            stem=nn.Conv2d(3, 16, 1),
            a=nn.Conv2d(16, 16, 3, padding=1),
            head=nn.Conv2d(16, 4, 1),
        )

    assert_edits_to(make, IMAGE, {"branch:a": "remove"}, there=False)


# --- gates --------------------------------------------------------------------------------------


def gated(w: int = 16, v: int = 8, *, there: bool = True, branch: bool = True) -> nn.Module:
    def forward(m: Any, x: Tensor) -> Tensor:
        x = F.relu(m.stem(x))
        if branch:
            y = F.relu(m.a(x))
            if there:
                y = y * torch.sigmoid(m.up(F.relu(m.down(y.mean((2, 3), keepdim=True)))))
            x = x + m.b(y)
        return m.head(x)

    return Module(
        forward,
        stem=nn.Conv2d(3, w, 1),
        a=nn.Conv2d(w, 2 * w, 1),
        down=nn.Conv2d(2 * w, v, 1),
        up=nn.Conv2d(v, 2 * w, 1),
        b=nn.Conv2d(2 * w, w, 1),
        head=nn.Conv2d(w, 4, 1),
    )


def test_a_gate_that_goes() -> None:
    graph = from_module(gated(), IMAGE)
    (gate,) = (s for s in graph.sites() if s.kind == "gate")
    (branch,) = (s for s in graph.sites() if s.kind == "branch")
    assert gate.parents == (branch.label,)
    assert_edits_to(gated, IMAGE, {gate.label: "remove"}, there=False)
    both = {gate.label: "remove", branch.label: "remove"}
    assert_edits_to(gated, IMAGE, both, branch=False)
    assert_edits_to(
        gated, IMAGE, {gate.label: "remove", "width:stem": 8, "width:a": 16}, there=False, w=8
    )


def test_a_product_of_two_tensors_of_one_size_is_no_gate() -> None:
    module = Module(
        lambda m, x: m.head((y := m.stem(x)) * torch.sigmoid(m.a(y))),
        stem=nn.Conv2d(3, 16, 1),
        a=nn.Conv2d(16, 16, 1),
        head=nn.Conv2d(16, 4, 1),
    )
    assert not any(label.startswith("gate") for label in kinds(module))


# --- kernels ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stride", "dilation", "padding"), [(1, 1, 3), (2, 1, 3), (1, 2, 6), (1, 1, 4)]
)
def test_a_depthwise_kernel_is_cropped(stride: int, dilation: int, padding: int) -> None:
    def make(k: int = 7, w: int = 16) -> nn.Module:
        deep = nn.Conv2d(
            w, w, k, stride=stride, dilation=dilation,
            padding=padding - dilation * (7 - k) // 2, groups=w,
        )  # fmt: skip
        return nn.Sequential(nn.Conv2d(3, w, 1), deep, nn.Conv2d(w, 4, 1))

    example = (1, 3, 16, 16)
    assert kinds(make(), example)["kernel:1"] == (7, 5, 3)
    for k in (5, 3):
        assert_edits_to(make, example, {"kernel:1": k}, k=k)
    assert_edits_to(make, example, {"kernel:1": 3, "width:0": 12}, k=3, w=12)


def test_a_depthwise_kernel_without_padding_cannot_be_cropped() -> None:
    module = nn.Sequential(nn.Conv2d(3, 16, 1), nn.Conv2d(16, 16, 5, groups=16))
    assert "kernel:1" not in kinds(module)


# --- forms of convolutions ----------------------------------------------------------------------


def convolution(
    form: str = "dense", w: int = 64, stride: int = 1, bias: bool = True, **options: Any
) -> nn.Module:
    """Three convolutions, the middle one in some form."""
    k, padding = options.pop("k", 3), options.pop("padding", 1)
    n = 64
    dilation = options.pop("dilation", 1)
    given = {"stride": stride, "dilation": dilation, "padding": padding}
    middle: list[nn.Module]
    if form == "dense":
        middle = [nn.Conv2d(w, n, k, bias=bias, **given)]
    elif form == "1x1":
        inner = padding - dilation * (k - 1) // 2
        middle = [nn.Conv2d(w, n, 1, **{**given, "padding": inner}, bias=bias)]
    elif form == "separable":
        middle = [nn.Conv2d(w, w, k, groups=w, bias=False, **given), nn.Conv2d(w, n, 1, bias=bias)]
    else:
        rank = {"rank 1/2": 32, "rank 1/4": 16}[form]
        middle = [nn.Conv2d(w, rank, k, bias=False, **given), nn.Conv2d(rank, n, 1, bias=bias)]
    return nn.Sequential(nn.Conv2d(3, w, 1), nn.ReLU(), *middle, nn.ReLU(), nn.Conv2d(n, 4, 1))


@pytest.mark.parametrize("form", ["1x1", "separable", "rank 1/2", "rank 1/4"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"stride": 2},
        {"bias": False},
        {"dilation": 2, "padding": 2},
        {"k": 5, "padding": 2},
        {"padding": 2},
    ],
    ids=["plain", "stride", "no bias", "dilation", "5x5", "wide padding"],
)
def test_another_form_of_a_convolution(form: str, options: dict[str, Any]) -> None:
    def make(form: str = "dense", w: int = 64) -> nn.Module:
        return convolution(form, w, **options)

    forms = ("dense", "1x1", "separable", "rank 1/2", "rank 1/4")
    assert kinds(make())["form:2"] == forms
    assert_edits_to(make, IMAGE, {"form:2": form}, form=form)
    assert_edits_to(make, IMAGE, {"form:2": form, "width:0": 48}, form=form, w=48)


def test_a_convolution_without_padding_has_no_1x1_form() -> None:
    assert kinds(convolution(padding=0))["form:2"] == ("dense", "separable", "rank 1/2", "rank 1/4")


def test_a_small_convolution_has_no_low_rank_and_a_1x1_no_separable_form() -> None:
    small = nn.Sequential(nn.Conv2d(8, 16, 3, padding=1), nn.Conv2d(16, 4, 3, padding=1))
    assert kinds(small, (1, 8, 8, 8)) == {"form:0": ("dense", "1x1", "separable")}
    ones = nn.Sequential(nn.Conv2d(32, 64, 1), nn.Conv2d(64, 4, 1))
    assert kinds(ones, (1, 32, 8, 8)) == {"form:0": ("dense", "rank 1/2", "rank 1/4")}


def test_a_batch_norm_stays_with_the_second_layer() -> None:
    def make(form: str = "dense") -> nn.Module:
        middle = (
            [nn.Conv2d(32, 32, 3, padding=1, bias=False)]
            if form == "dense"
            else [
                nn.Conv2d(32, 32, 3, padding=1, groups=32, bias=False),
                nn.Conv2d(32, 32, 1, bias=False),
            ]
        )
        return nn.Sequential(
            nn.Conv2d(3, 32, 1), *middle, nn.BatchNorm2d(32), nn.ReLU(), nn.Conv2d(32, 4, 1)
        ).eval()

    assert_edits_to(make, IMAGE, {"form:1": "separable"}, form="separable")


@pytest.mark.parametrize("shape", [(1, 32), (1, 5, 32)])
@pytest.mark.parametrize("option", ["rank 1/2", "rank 1/4"])
def test_a_linear_layer_of_a_low_rank(shape: tuple[int, ...], option: str) -> None:
    def make(form: str = "dense", w: int = 48) -> nn.Module:
        # Of 48: the rank is a multiple of 8.
        rank = {"rank 1/2": 24, "rank 1/4": 8}.get(form)
        middle = (
            [nn.Linear(w, 64)]
            if rank is None
            else [nn.Linear(w, rank, bias=False), nn.Linear(rank, 64)]
        )
        return nn.Sequential(nn.Linear(32, w), nn.ReLU(), *middle, nn.ReLU(), nn.Linear(64, 4))

    assert_edits_to(make, shape, {"form:2": option}, form=option)
    assert_edits_to(make, shape, {"form:2": option, "width:0": 40}, form=option, w=40)


def test_layers_that_share_their_weight_keep_their_form() -> None:
    module = Module(
        lambda m, x: m.head(m.inner(F.relu(m.inner(m.stem(x))))),
        stem=nn.Conv2d(3, 32, 1),
        inner=nn.Conv2d(32, 32, 3, padding=1),
        head=nn.Conv2d(32, 4, 1),
    )
    assert "form:inner" not in kinds(module)


def test_the_last_layer_keeps_its_width_and_may_have_a_low_rank() -> None:
    module = nn.Sequential(nn.Conv2d(3, 64, 1), nn.Flatten(), nn.Linear(64 * 64, 40))
    assert "form:2" in kinds(module)
    assert "width:2" in reasons(from_module(module, IMAGE))


def test_several_edits_at_once() -> None:
    def net(*, form: str = "dense", k: int = 5, there: bool = True) -> nn.Module:
        def forward(m: Any, x: Tensor) -> Tensor:
            x = F.relu(m.inner(m.stem(x)))
            return m.head(x + m.project(F.relu(m.deep(m.expand(x)))) if there else x)

        return Module(
            forward,
            stem=nn.Conv2d(3, 32, 1),
            inner=nn.Conv2d(32, 32, 3, padding=1)
            if form == "dense"
            else nn.Sequential(
                nn.Conv2d(32, 32, 3, padding=1, groups=32, bias=False), nn.Conv2d(32, 32, 1)
            ),
            expand=nn.Conv2d(32, 64, 1),
            deep=nn.Conv2d(64, 64, k, padding=k // 2, groups=64),
            project=nn.Conv2d(64, 32, 1),
            head=nn.Conv2d(32, 4, 1),
        )

    graph = from_module(net(), IMAGE)
    (branch,) = (s.label for s in graph.sites() if s.kind == "branch")
    edits = {"form:inner": "separable", "kernel:deep": 3}
    assert_edits_to(net, IMAGE, edits, form="separable", k=3)
    assert_edits_to(net, IMAGE, {**edits, branch: "remove"}, form="separable", there=False)


# --- what meets when something between is gone ----------------------------------------------------


def test_a_sum_of_a_sum_once_the_gate_between_is_gone() -> None:
    def make(*, there: bool = True) -> nn.Module:
        def forward(m: Any, x: Tensor) -> Tensor:
            x = m.stem(x)
            y = m.a(x) + m.b(x)
            y = y * torch.sigmoid(m.up(y.mean((2, 3), keepdim=True))) if there else y
            return m.head(F.relu(y + m.d(F.relu(m.c(x)))))

        layers = {name: nn.Conv2d(64, 64, 1) for name in ("a", "b", "c", "d", "up")}
        return Module(forward, stem=nn.Conv2d(3, 64, 1), head=nn.Conv2d(64, 4, 1), **layers)

    graph = from_module(make(), IMAGE)
    (gate,) = (s.label for s in graph.sites() if s.kind == "gate")
    assert_edits_to(make, IMAGE, {gate: "remove"}, there=False)


def test_a_sum_of_a_sum_once_the_branch_that_read_it_is_gone() -> None:
    def make(*, there: bool = True) -> nn.Module:
        def forward(m: Any, x: Tensor) -> Tensor:
            x = m.stem(x)
            y = m.a(x) + m.b(x)
            return m.head(F.relu((y + m.c(y) if there else y) + m.e(F.relu(m.d(x)))))

        layers = {name: nn.Conv2d(64, 64, 1) for name in ("a", "b", "c", "d", "e")}
        return Module(forward, stem=nn.Conv2d(3, 64, 1), head=nn.Conv2d(64, 4, 1), **layers)

    assert_edits_to(make, IMAGE, {"branch:c": "remove"}, there=False)


@pytest.mark.parametrize("kind", ["branch", "gate"])
def test_terms_of_a_sum_that_is_gone_live_as_long_as_the_later_sum(kind: str) -> None:
    """The wide tensors beside it are the peak, at which one term lives more than before."""

    def make(*, there: bool = True) -> nn.Module:
        def forward(m: Any, x: Tensor) -> Tensor:
            x = m.stem(x)
            y = m.a(x) + m.b(x)
            if there and kind == "branch":
                y = y + m.c(y)
            elif there:
                y = y * torch.sigmoid(m.c(y.mean((2, 3), keepdim=True)))
            for i in range(3):
                y = y + m.inner[i](x)
            return m.head(F.relu(y))

        def wide() -> nn.Module:
            return nn.Sequential(
                nn.Conv2d(64, 64, 1), nn.ReLU(), nn.Conv2d(64, 256, 1), nn.ReLU(),
                nn.Conv2d(256, 64, 1),
            )  # fmt: skip

        return Module(
            forward,
            stem=nn.Conv2d(3, 64, 1),
            a=nn.Conv2d(64, 64, 1),
            b=nn.Conv2d(64, 64, 1),
            c=nn.Conv2d(64, 64, 1),
            inner=nn.ModuleList([wide() for _ in range(3)]),
            head=nn.Conv2d(64, 4, 1),
        )

    graph = from_module(make(), IMAGE)
    gone = next(s.label for s in graph.sites() if s.kind == kind and "c" in s.layers)
    assert graph.edit({gone: "remove"}).peak_memory() == 294_912  # 278,528 with the sum
    assert_edits_to(make, IMAGE, {gone: "remove"}, there=False)


def test_a_clamp_that_is_read_elsewhere_too() -> None:
    def make(*, there: bool = True) -> nn.Module:
        def forward(m: Any, x: Tensor) -> Tensor:
            x = F.relu6(m.stem(x))
            y = F.relu6(x + m.a(x) if there else x)
            return m.head(torch.cat([x, y], 1))

        return Module(
            forward, stem=nn.Conv2d(3, 64, 1), a=nn.Conv2d(64, 64, 1), head=nn.Conv2d(128, 4, 1)
        )

    assert_edits_to(make, IMAGE, {"branch:a": "remove"}, there=False)
