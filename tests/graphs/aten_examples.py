"""Arguments for ATen operations: what `test_nothing_is_lost` calls them with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

__all__ = ["KNOWN", "UNKNOWN", "B", "Example", "F", "I", "call", "example"]


@dataclass(frozen=True)
class F:
    """An input of floats."""

    shape: tuple[int, ...]

    def draw(self) -> Tensor:
        return torch.rand(self.shape) * 0.8 + 0.1

    def use(self, x: Tensor) -> Tensor:
        return x


@dataclass(frozen=True)
class I(F):  # noqa: E742
    """An input of whole numbers below a limit; a float input of the network, rounded."""

    below: int = 2

    def draw(self) -> Tensor:
        return torch.randint(self.below, self.shape) + 0.5

    def use(self, x: Tensor) -> Tensor:
        return x.long()


@dataclass(frozen=True)
class B(F):
    """An input of truth values."""

    def draw(self) -> Tensor:
        return torch.rand(self.shape)

    def use(self, x: Tensor) -> Tensor:
        return x > 0.5


@dataclass(frozen=True)
class Example:
    """Arguments in which F, I and B stand for inputs."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]


def example(*args: Any, **kwargs: Any) -> Example:
    return Example(args, kwargs)


def call(function: Callable[..., Any], one: Example, tensors: Sequence[Tensor]) -> Any:
    """Calls a function with tensors in the places of inputs."""
    rest = iter(tensors)

    def put(x: Any) -> Any:
        if isinstance(x, F):
            return x.use(next(rest))
        return [put(v) for v in x] if isinstance(x, list) else x

    args = [put(x) for x in one.args]
    return function(*args, **{name: put(x) for name, x in one.kwargs.items()})


X = F((2, 3))
M = F((4, 4))
IMAGE = F((1, 4, 6, 6))
LINE = F((2, 4, 6))
CUBE = F((1, 2, 4, 4, 4))
C4 = F((4,))
LSTM = [F((8, 3)), F((8, 2)), F((8,)), F((8,))]
GRU = [F((6, 3)), F((6, 2)), F((6,)), F((6,))]
RNN = [F((2, 3)), F((2, 2)), F((2,)), F((2,))]
STATE = F((1, 2, 2))


def _of(names: str, *args: Any, **kwargs: Any) -> dict[str, Example]:
    return dict.fromkeys(names.split(), example(*args, **kwargs))


KNOWN: dict[str, Example] = {
    **_of(
        "relu relu6 sigmoid tanh silu hardswish hardsigmoid gelu mish softplus leaky_relu elu selu "
        "celu abs acos asin atan ceil cos cosh erf exp expm1 floor isfinite isinf isnan log log10 "
        "log1p log2 logical_not neg reciprocal round rsqrt sgn sign sin sinh sqrt square tan trunc "
        "log_sigmoid log_sigmoid_forward contiguous clone detach alias lift_fresh positive "
        "view_as_real_copy zero zeros_like ones_like hardtanh ravel atleast_1d sum mean prod amax "
        "amin argmax argmin all any norm std var max min t numpy_T squeeze var_mean std_mean",
        X,
    ),
    **_of(
        "add sub subtract mul multiply div divide true_divide maximum minimum pow remainder fmod "
        "floor_divide atan2 eq ne lt le gt ge logical_and logical_or logical_xor rsub type_as "
        "copy expand_as reshape_as view_as",
        X,
        X,
    ),
    **_of("bitwise_not", B((2, 3))),
    **_of("bitwise_and bitwise_or bitwise_xor", B((2, 3)), B((2, 3))),
    **_of("mT matrix_H adjoint", X),
    **_of("logsumexp linalg_vector_norm softmax log_softmax special_softmax", X, 1),
    **_of("linalg_vector_norm", X),
    **_of("frobenius_norm", X, [1]),
    **_of("_softmax _log_softmax", X, 1, False),
    **_of("max_pool1d avg_pool1d", LINE, [2]),
    **_of("adaptive_avg_pool1d adaptive_max_pool1d", LINE, [4]),
    **_of("max_pool2d max_pool2d_with_indices avg_pool2d", IMAGE, [2]),
    **_of("adaptive_avg_pool2d adaptive_max_pool2d _adaptive_avg_pool2d", IMAGE, [4, 4]),
    **_of("max_pool3d max_pool3d_with_indices avg_pool3d", CUBE, [2]),
    **_of("adaptive_avg_pool3d adaptive_max_pool3d", CUBE, [3, 2, 2]),
    **_of("dropout alpha_dropout feature_dropout feature_alpha_dropout", X, 0.5, False),
    **_of("native_dropout", X, 0.5, False),
    **_of("to _to_copy", X, dtype=torch.float64),
    **_of("cpu cuda", X),
    **_of("fill", X, F(())),
    **_of("addr", X, F((2,)), F((3,))),
    **_of("vdot", F((3,)), F((3,))),
    **_of("bilinear", X, F((2, 4)), F((5, 3, 4)), F((5,))),
    **_of("cdist", X, F((4, 3))),
    **_of("conv_tbc", F((6, 2, 4)), F((3, 4, 5)), F((5,))),
    **_of("_pack_padded_sequence", F((4, 2, 3)), torch.tensor([4, 2]), False),
    **_of("_pad_packed_sequence", F((6, 3)), torch.tensor([2, 2, 1, 1]), False, 0.0, 4),
    **_of("new_zeros new_ones", X, [2]),
    **_of("zeros ones", [2]),
    **_of("clamp clip", X, F((2, 3)), F((2, 3))),
    **_of("clamp_min clamp_max", X, F((3,))),
    **_of("prelu", F((2, 3)), F((3,))),
    **_of("glu", LINE, 1),
    **_of("where", B((2, 3)), X, X),
    **_of("masked_fill", X, B((2, 3)), F(())),
    **_of("addcmul addcdiv", X, X, X),
    **_of("lerp", X, X, F((2, 3))),
    **_of("conv1d", LINE, F((2, 4, 3)), F((2,))),
    **_of("conv2d", IMAGE, F((2, 4, 3, 3)), F((2,))),
    **_of("conv3d", CUBE, F((2, 2, 3, 3, 3)), F((2,))),
    **_of("conv_transpose1d", LINE, F((4, 2, 3)), F((2,))),
    **_of("conv_transpose2d", IMAGE, F((4, 2, 3, 3)), F((2,))),
    **_of("conv_transpose3d", CUBE, F((2, 2, 3, 3, 3)), F((2,))),
    **_of("convolution", IMAGE, F((2, 4, 3, 3)), F((2,)), [1, 1], [0, 0], [1, 1], False, [0, 0], 1),
    **_of(
        "_convolution",
        IMAGE,
        F((4, 2, 3, 3)),
        F((2,)),
        [1, 1],
        [0, 0],
        [1, 1],
        True,
        [0, 0],
        1,
        False,
        False,
        False,
        False,
    ),
    **_of("linear", X, F((4, 3)), C4),
    **_of("matmul mm", X, F((3, 4))),
    **_of("bmm", F((2, 3, 4)), F((2, 4, 3))),
    **_of("_grouped_mm", F((2, 4, 4)), F((2, 4, 4))),
    **_of("mv", X, F((3,))),
    **_of("dot", C4, C4),
    **_of("addmm", F((2, 4)), X, F((3, 4))),
    **_of("addbmm", F((3, 3)), F((2, 3, 4)), F((2, 4, 3))),
    **_of("baddbmm", F((2, 3, 3)), F((2, 3, 4)), F((2, 4, 3))),
    **_of("addmv", F((2,)), X, F((3,))),
    **_of("einsum", "ij,jk->ik", [X, F((3, 4))]),
    **_of("scaled_dot_product_attention", F((1, 2, 4, 4)), F((1, 2, 4, 4)), F((1, 2, 4, 4)), M),
    **_of("batch_norm", LINE, C4, C4, C4, C4, False, 0.1, 1e-5, False),
    **_of("native_batch_norm", LINE, C4, C4, C4, C4, False, 0.1, 1e-5),
    **_of("_native_batch_norm_legit_no_training", LINE, C4, C4, C4, C4, 0.1, 1e-5),
    **_of("cudnn_batch_norm", LINE, C4, C4, C4, C4, False, 0.1, 1e-5),
    **_of("instance_norm", LINE, C4, C4, None, None, True, 0.1, 1e-5, False),
    **_of("layer_norm", X, [3], F((3,)), F((3,))),
    **_of("native_layer_norm", X, [3], F((3,)), F((3,)), 1e-5),
    **_of("rms_norm", X, [3], F((3,))),
    **_of("_fused_rms_norm", X, [3], F((3,)), 1e-5),
    **_of("group_norm", LINE, 2, C4, C4),
    **_of("lstm", F((5, 2, 3)), [STATE, STATE], LSTM, True, 1, 0.0, False, False, False),
    **_of("gru", F((5, 2, 3)), STATE, GRU, True, 1, 0.0, False, False, False),
    **_of("rnn_tanh rnn_relu", F((5, 2, 3)), STATE, RNN, True, 1, 0.0, False, False, False),
    **_of("view reshape _unsafe_view", X, [3, 2]),
    **_of("_reshape_alias", X, [3, 2], [2, 1]),
    **_of("flatten", X),
    **_of("unflatten", F((2, 6)), 1, [2, 3]),
    **_of("unsqueeze", X, 1),
    **_of("transpose swapaxes swapdims movedim moveaxis", X, 0, 1),
    **_of("permute", LINE, [2, 0, 1]),
    **_of("expand broadcast_to", F((1, 3)), [2, 3]),
    **_of("repeat tile", X, [2, 1]),
    **_of("pixel_shuffle", IMAGE, 2),
    **_of("pixel_unshuffle", IMAGE, 2),
    **_of("channel_shuffle native_channel_shuffle", IMAGE, 2),
    **_of("slice", LINE, 1, 1, 3),
    **_of("narrow", LINE, 1, 1, 2),
    **_of("select", LINE, 1, 2),
    **_of("split chunk tensor_split unsafe_chunk unsafe_split", LINE, 2, 1),
    **_of("hsplit vsplit", LINE, 2),
    **_of("split_with_sizes", LINE, [1, 3], 1),
    **_of("unbind", LINE, 1),
    **_of("cat concat concatenate stack", [X, X], 1),
    **_of("roll", LINE, [1], []),
    **_of("flip", LINE, [1]),
    **_of("pad", IMAGE, [1, 1]),
    **_of("constant_pad_nd", IMAGE, [1, 1]),
    **_of("reflection_pad2d replication_pad2d", IMAGE, [1, 1, 1, 1]),
    **_of("reflection_pad1d", LINE, [1, 1]),
    **_of("upsample_nearest1d", LINE, [12]),
    **_of("upsample_linear1d", LINE, [12], False),
    **_of("upsample_nearest2d _upsample_nearest_exact2d", IMAGE, [12, 12]),
    **_of(
        "upsample_bilinear2d upsample_bicubic2d _upsample_bilinear2d_aa _upsample_bicubic2d_aa",
        IMAGE,
        [12, 12],
        False,
    ),
    **_of("upsample_nearest3d", CUBE, [8, 8, 8]),
    **_of("upsample_trilinear3d", CUBE, [8, 8, 8], False),
    **_of("embedding", F((5, 3)), I((2, 2), 5)),
    **_of("gather", M, 1, I((4, 2), 4)),
    **_of("index_select", M, 1, I((2,), 4)),
    **_of("index", M, [I((2,), 4), I((2,), 4)]),
}
"""Operations of the table."""

UNKNOWN: dict[str, Example] = {
    **_of("cumsum cumprod logcumsumexp cummax cummin", X, 1),
    **_of("sort argsort msort", X),
    **_of("topk", X, 2),
    **_of("kthvalue", X, 1),
    **_of("median nanmedian nansum nanmean", X),
    **_of("mode", X),
    **_of("tril triu diagonal diag_embed", M),
    **_of("unfold", LINE, 2, 2, 1),
    **_of("im2col", IMAGE, [2, 2], [1, 1], [0, 0], [1, 1]),
    **_of("index_add", M, 0, I((2,), 4), F((2, 4))),
    **_of("index_copy", M, 0, I((4,), 4), M),
    **_of("index_fill", M, 0, I((2,), 4), F(())),
    **_of("index_put", M, [I((2,), 4)], F((2, 4))),
    **_of("scatter", M, 1, I((4, 2), 4), F((4, 2))),
    **_of("scatter_add", M, 1, I((4, 2), 4), F((4, 2))),
    **_of("scatter_reduce", M, 1, I((4, 2), 4), F((4, 2)), "sum"),
    **_of("masked_scatter", M, B((4, 4)), M),
    **_of("slice_scatter", M, F((2, 4)), 0, 0, 2),
    **_of("select_scatter", M, C4, 0, 1),
    **_of("diagonal_scatter", M, C4),
    **_of("take", M, I((3,), 16)),
    **_of("take_along_dim", M, I((4, 1), 4), 1),
    **_of("searchsorted", C4, F((3,))),
    **_of("bucketize", X, C4),
    **_of("grid_sampler", IMAGE, F((1, 3, 3, 2)), 0, 0, False),
    **_of("cross", X, X),
    **_of("outer ger", C4, C4),
    **_of("kron", X, X),
    **_of("cdist", X, F((4, 3))),
    **_of("hypot logaddexp logaddexp2 copysign nextafter heaviside", X, X),
    **_of("erfinv lgamma digamma logit i0 frac sinc exp2 asinh atanh signbit", X),
    **_of("nan_to_num", X),
    **_of("rot90", M),
    **_of("trace det inverse logdet", M),
    **_of("renorm", X, 2.0, 0, 1.0),
    **_of("dist", X, X),
    **_of("bernoulli", X),
    **_of("mse_loss l1_loss smooth_l1_loss", X, X),
    **_of("hardshrink softshrink", X),
    **_of("threshold", X, 0.3, 0.0),
    **_of("real", X),
    **_of("as_strided", M, [2, 2], [4, 1]),
    **_of("_foreach_add _foreach_mul", [X, X], [X, X]),
    **_of("_foreach_exp", [X, X]),
    **_of("addr", X, F((2,)), F((3,))),
    **_of("diff", X),
    **_of("bitwise_left_shift", I((2, 3), 4), I((2, 3), 4)),
    **_of("gcd", I((2, 3), 9), I((2, 3), 9)),
    **_of("isin", X, X),
    **_of("fmax fmin", X, X),
    **_of("aminmax", X),
    **_of("block_diag", [X, X]),
    **_of("cartesian_prod", [C4, C4]),
    **_of("tensordot", X, X, [0], [0]),
    **_of("chain_matmul", [X, F((3, 4))]),
    **_of("bilinear", X, F((2, 4)), F((5, 3, 4))),
    **_of("embedding_bag", F((5, 3)), I((4,), 5), I((1,), 1)),
    **_of("huber_loss", X, X),
    **_of("nll_loss", X, I((2,), 3)),
}
"""Operations outside the table."""
