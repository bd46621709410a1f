"""Real networks, untrained, by sets: timm, torchvision, transformers, segmentation_models_pytorch.

Every package is optional: `missing` names those of a set that are not installed. Nothing is
downloaded, and weights are not filled, which takes longer than reading a network.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

import torch
from _timm import create, input_shape, timm
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

__all__ = ["PACKAGES", "SETS", "Network", "build", "missing", "names", "torchvision"]

PACKAGES = {
    "timm": ("timm",),
    "torchvision": ("torchvision",),
    "transformers": ("transformers",),
    "segmentation_models_pytorch": ("timm", "torchvision", "segmentation_models_pytorch"),
}
"""What each set needs beside the requirements of the package; none is one of the benchmarks'."""

NEWEST = (
    "convnext_atto_rms",
    "gemma4_vit_167m",
    "hgnetv2_b0",
    "mobilenetv4_conv_small",
    "mobilenetv5_300m",
    "naflexvit_base_patch16_gap",
    "qwen3_vit_88m",
    "rdnet_tiny",
    "sam2_hiera_tiny",
    "starnet_s050",
    "vit_betwixt_patch16_reg4_gap_256",
    "vit_small_patch16_dinov3",
    "vit_small_plus_patch16_dinov3",
    "vit_wee_patch16_reg1_gap_256",
)
"""Names of timm beside one of each of its module files."""

SMALL = (
    "test_",
    "zepto",
    "atto",
    "femto",
    "pico",
    "nano",
    "xx",
    "tiny",
    "_ti",
    "_t",
    "small",
    "_s",
)

SMP = {
    "Unet": ("resnet18", "mobilenet_v2", "timm-mobilenetv3_small_100", "densenet121", "mit_b0"),
    "UnetPlusPlus": ("resnet18",),
    "MAnet": ("resnet18",),
    "Linknet": ("resnet18",),
    "FPN": ("efficientnet-b0",),
    "PSPNet": ("resnet18",),
    "DeepLabV3": ("resnet18",),
    "DeepLabV3Plus": ("tu-regnety_002",),
    "PAN": ("resnet18",),
    "UPerNet": ("tu-convnext_atto",),
    "Segformer": ("mit_b0",),
    "DPT": ("tu-vit_tiny_patch16_224",),
}

LITTLE = {
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 128,
    "vocab_size": 200,
}
TEXT = {
    "BertConfig": LITTLE,
    "RobertaConfig": LITTLE,
    "DebertaV2Config": LITTLE,
    "ModernBertConfig": {**LITTLE, "pad_token_id": 0},
    "ElectraConfig": LITTLE,
    "MPNetConfig": LITTLE,
    "NystromformerConfig": LITTLE,
    "RoFormerConfig": LITTLE,
    "FNetConfig": LITTLE,
    "AlbertConfig": {**LITTLE, "embedding_size": 32},
    "DistilBertConfig": {"dim": 64, "n_layers": 2, "n_heads": 4, "hidden_dim": 128},
    "GPT2Config": {"n_embd": 64, "n_layer": 2, "n_head": 4, "vocab_size": 200},
    "GPTNeoXConfig": LITTLE,
    "OPTConfig": {**LITTLE, "ffn_dim": 128, "word_embed_proj_dim": 64},
    "BloomConfig": {"hidden_size": 64, "n_layer": 2, "n_head": 4, "vocab_size": 200},
    "FalconConfig": LITTLE,
    "LlamaConfig": {**LITTLE, "num_key_value_heads": 2},
    "MistralConfig": {**LITTLE, "num_key_value_heads": 2},
    "Qwen2Config": {**LITTLE, "num_key_value_heads": 2},
    "Qwen3Config": {**LITTLE, "num_key_value_heads": 2, "head_dim": 16},
    "Gemma2Config": {**LITTLE, "num_key_value_heads": 2, "head_dim": 16},
    "PhiConfig": LITTLE,
    "MambaConfig": {"hidden_size": 64, "num_hidden_layers": 2, "vocab_size": 200},
    "MixtralConfig": {**LITTLE, "num_key_value_heads": 2, "num_local_experts": 4},
}
"""Classes of configs of networks that read 64 tokens."""

SEQUENCES = {
    "T5Config": {"d_model": 64, "d_kv": 16, "d_ff": 128, "num_layers": 2, "vocab_size": 200},
    "BartConfig": {"d_model": 64, "encoder_layers": 2, "decoder_layers": 2, "vocab_size": 200},
}
"""Classes of configs of networks that read 64 tokens and write 16."""

IMAGES = {
    "ViTConfig": LITTLE,
    "DeiTConfig": LITTLE,
    "BeitConfig": LITTLE,
    "Dinov2Config": LITTLE,
    "SiglipVisionConfig": LITTLE,
    "CLIPVisionConfig": LITTLE,
    "SwinConfig": {"embed_dim": 32, "depths": [2, 2], "num_heads": [2, 4]},
    "Swinv2Config": {"embed_dim": 32, "depths": [2, 2], "num_heads": [2, 4]},
    "ConvNextConfig": {"hidden_sizes": [16, 32, 64, 128], "depths": [1, 1, 2, 1]},
    "ConvNextV2Config": {"hidden_sizes": [16, 32, 64, 128], "depths": [1, 1, 2, 1]},
    "ResNetConfig": {"depths": [1, 1, 1, 1], "hidden_sizes": [64, 128, 256, 512]},
    "RegNetConfig": {},
    "MobileNetV2Config": {},
    "MobileViTConfig": {},
    "EfficientNetConfig": {"width_coefficient": 1.0, "depth_coefficient": 1.0, "hidden_dim": 1280},
    "PoolFormerConfig": {},
    "PvtV2Config": {},
    "SegformerConfig": {},
    "DPTConfig": {**LITTLE, "backbone_out_indices": [0, 1, 1, 1]},
    "DetrConfig": {"use_timm_backbone": False, "encoder_layers": 2, "decoder_layers": 2},
    "RTDetrConfig": {"decoder_layers": 2},
    "Mask2FormerConfig": {"encoder_layers": 1, "decoder_layers": 2},
}
"""Classes of configs of networks that read an image of their size, or of 224."""

HEADS = ("encoder_attention_heads", "decoder_attention_heads")
SOUNDS = {
    "Wav2Vec2Config": LITTLE,
    "HubertConfig": LITTLE,
    "WhisperConfig": {
        "d_model": 64,
        "encoder_layers": 2,
        "decoder_layers": 2,
        **dict.fromkeys(HEADS, 4),
    },
    "ASTConfig": LITTLE,
}


@dataclass(frozen=True)
class Network:
    """A network with example inputs.

    Args:
        module: Untrained, in evaluation mode.
        args: Its inputs.
        kwargs: Its inputs by keyword.
        published: What its package says of it: `gmacs`, with three digits, and `parameters`.
    """

    module: nn.Module
    args: tuple[Any, ...]
    kwargs: dict[str, Any] = field(default_factory=dict)
    published: dict[str, float] = field(default_factory=dict)


class Unfilled(TorchFunctionMode):
    """Leaves parameters as they are allocated: operations in place do nothing to them."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        name = getattr(func, "__name__", "")
        in_place = name.endswith("_") and not name.endswith("__") and name != "requires_grad_"
        if in_place and args and isinstance(args[0], nn.Parameter):
            return args[0]
        return func(*args, **(kwargs or {}))


def missing(chosen: str) -> list[str]:
    """The packages that a set needs and that are not installed."""
    return [name for name in PACKAGES[chosen] if importlib.util.find_spec(name) is None]


def torchvision() -> Any:
    """The torchvision package, also beside a torch that its compiled operators do not fit.

    Such a wheel raises while it is imported ("operator torchvision::nms does not exist"): it gives
    meta kernels to operators that its library would have defined. Defining them here, without any
    arithmetic, is all that the import needs. Detectors use `roi_align` as well. timm goes first,
    whose import takes torchvision's place for a while.
    """
    if importlib.util.find_spec("timm") is not None:
        timm()
    name = "torchvision"
    try:
        return importlib.import_module(name)
    except RuntimeError as err:
        if "does not exist" not in str(err):
            raise
    boxes = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
    for operator in ("nms", "qnms"):
        torch.library.define(f"{name}::{operator}", boxes)
    torch.library.define(
        f"{name}::roi_align",
        "(Tensor input, Tensor rois, float spatial_scale, SymInt pooled_height, "
        "SymInt pooled_width, int sampling_ratio, bool aligned) -> Tensor",
    )

    @torch.library.impl(f"{name}::roi_align", "Meta")
    def roi_align(x: Tensor, rois: Tensor, _: float, height: int, width: int, *__: Any) -> Tensor:
        return x.new_empty((rois.shape[0], x.shape[1], height, width))

    package = importlib.import_module(name)
    importlib.import_module(f"{name}.extension")._has_ops = lambda: True
    return package


def _timm_names() -> list[str]:
    """One network of each module file of timm's, a small one, and the newest."""
    registry = importlib.import_module(f"{timm().__name__}.models._registry")
    files: dict[str, list[str]] = {}
    for name in timm().list_models():
        files.setdefault(registry._model_to_module[name], []).append(name)

    def size(name: str) -> tuple[int, int, str]:
        rank = next((i for i, part in enumerate(SMALL) if part in name), len(SMALL))
        return rank, len(name), name

    known = {name for of in files.values() for name in of}
    return sorted({min(of, key=size) for of in files.values()} | known.intersection(NEWEST))


def _timm(name: str) -> Network:
    network = create(name)
    return Network(network, (torch.zeros(input_shape(network)),))


def _torchvision_names() -> list[str]:
    package = torchvision()
    return sorted(n for n in package.models.list_models() if not n.startswith("quantized_"))


def _torchvision(name: str) -> Network:
    models = torchvision().models
    weights = list(models.get_model_weights(name))
    chosen = next(
        (w for w in weights if w.name.startswith(("IMAGENET1K_V1", "KINETICS"))), weights[0]
    )
    kind = models.get_model_builder(name).__module__.split(".")[2]
    options: dict[str, Any] = {"weights": None}
    presets = getattr(chosen.transforms, "keywords", {})
    if kind in ("segmentation", "detection"):
        options["weights_backbone"] = None
    if name.startswith(("fcn", "deeplab")):
        options["aux_loss"] = True  # published figures count it
    side = presets.get("crop_size", 224)
    if name.startswith("vit_"):
        options["image_size"] = side
    module = models.get_model(name, **options)
    published = {"gmacs": chosen.meta["_ops"], "parameters": chosen.meta["num_params"]}
    args: tuple[Any, ...]
    if kind == "segmentation":
        args = (torch.zeros(1, 3, 520, 520),)
    elif kind == "video":
        height, width = (side, side) if isinstance(side, int) else side
        args = (torch.zeros(1, 3, 16, height, width),)  # the frames of the published figures
    elif kind == "optical_flow":
        args = (torch.zeros(1, 3, 520, 960),) * 2
        published = {"parameters": published["parameters"]}
    elif kind == "detection":
        # What is published depends on the boxes found in real images.
        args, published = ([torch.zeros(3, 320, 320)],), {}
    else:
        args = (torch.zeros(1, 3, side, side),)
    return Network(module, args, published=published)


def _smp_names() -> list[str]:
    return [f"{net}/{encoder}" for net, encoders in SMP.items() for encoder in encoders]


def _smp(name: str) -> Network:
    torchvision()
    architecture, encoder = name.split("/")
    package = "segmentation_models_pytorch"
    options = {"encoder_weights": None}
    module = getattr(importlib.import_module(package), architecture)(encoder, **options)
    side = 224 if architecture == "DPT" else 256
    return Network(module, (torch.zeros(1, 3, side, side),))


def _transformers_names() -> list[str]:
    return [*TEXT, *SEQUENCES, *IMAGES, *SOUNDS]


def _transformers(name: str) -> Network:
    if importlib.util.find_spec("torchvision") is not None:
        torchvision()
    package = "transformers"
    transformers = importlib.import_module(package)
    options = {**TEXT, **SEQUENCES, **IMAGES, **SOUNDS}[name]
    config = getattr(transformers, name)(**options)
    module = transformers.AutoModel.from_config(config)
    tokens = torch.ones(1, 64, dtype=torch.long)
    kwargs: dict[str, Any]
    if name in TEXT:
        kwargs = {"input_ids": tokens}
    elif name in SEQUENCES:
        kwargs = {"input_ids": tokens, "decoder_input_ids": tokens[:, :16]}
    elif name in IMAGES:
        side = getattr(config, "image_size", 224)
        side = side if isinstance(side, int) else side[0]
        kwargs = {"pixel_values": torch.zeros(1, 3, side, side)}
    elif name == "WhisperConfig":
        features = torch.zeros(1, config.num_mel_bins, 2 * config.max_source_positions)
        kwargs = {"input_features": features, "decoder_input_ids": tokens[:, :16]}
    elif name == "ASTConfig":
        kwargs = {"input_values": torch.zeros(1, config.max_length, config.num_mel_bins)}
    else:
        kwargs = {"input_values": torch.zeros(1, 16000)}
    return Network(module, (), kwargs)


SETS: dict[str, tuple[Callable[[], list[str]], Callable[[str], Network], tuple[str, ...]]] = {
    "timm": (_timm_names, _timm, ("resnet18", "vit_tiny_patch16_224", "convit_tiny")),
    "torchvision": (
        _torchvision_names,
        _torchvision,
        ("shufflenet_v2_x0_5", "swin_v2_t"),
    ),
    "transformers": (_transformers_names, _transformers, ("LlamaConfig",)),
    "segmentation_models_pytorch": (_smp_names, _smp, ("Unet/resnet18",)),
}
"""Names of a set, its builder, and the few names of a quick run."""


def names(chosen: str, quick: bool) -> list[str]:
    """The networks of a set whose packages are installed."""
    every, _, few = SETS[chosen]
    return list(few) if quick else every()


def build(chosen: str, name: str) -> Network:
    """A network of a set, in evaluation mode."""
    with Unfilled(), mock.patch.object(nn.init, "trunc_normal_", lambda x, *_, **__: x):
        network = SETS[chosen][1](name)
    network.module.eval()
    return network
