"""Public architectures with random weights, small enough to export and run in seconds.

Widths and depths are reduced; the layers, and so the spellings that the exporters leave, are
those of the published networks. Needs torch, torchvision and transformers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
import transformers
from torch import Tensor, nn

__all__ = ["NETWORKS", "Made", "export"]


@dataclass(frozen=True)
class Made:
    """A network with an example of its inputs.

    ``dynamic`` gives the symbols of input dimensions by input and axis.
    """

    module: nn.Module
    inputs: dict[str, Tensor]
    outputs: list[str] = field(default_factory=lambda: ["y"])
    dynamic: dict[str, dict[int, str]] = field(default_factory=dict)


class Pick(nn.Module):
    """A network of transformers that takes one input and gives one tensor of its result."""

    def __init__(self, network: nn.Module, field: str) -> None:
        super().__init__()
        self.network = network
        self.field = field

    def forward(self, x: Tensor) -> Tensor:
        return getattr(self.network(x), self.field)


def image(size: int = 64, batch: int = 1) -> Tensor:
    return torch.randn(batch, 3, size, size)


def seen(network: nn.Module, size: int = 64, field: str = "") -> Made:
    """A network of one image."""
    module = Pick(network, field) if field else network
    return Made(module, {"x": image(size)}, dynamic={"x": {0: "N"}})


def resnet() -> Made:
    config = transformers.ResNetConfig(
        embedding_size=16, hidden_sizes=[16, 32, 48, 64], depths=[2, 2, 2, 2], layer_type="basic"
    )
    return seen(transformers.ResNetForImageClassification(config), 64, "logits")


def vit() -> Made:
    config = transformers.ViTConfig(
        hidden_size=48, num_hidden_layers=3, num_attention_heads=3, intermediate_size=96,
        image_size=64, attn_implementation="eager",
    )  # fmt: skip
    return seen(transformers.ViTModel(config, add_pooling_layer=False), 64, "last_hidden_state")


def swin() -> Made:
    config = transformers.SwinConfig(
        image_size=64, embed_dim=24, depths=[2, 2], num_heads=[2, 4], window_size=4,
        attn_implementation="eager",
    )  # fmt: skip
    return seen(transformers.SwinModel(config), 64, "last_hidden_state")


def convnext() -> Made:
    config = transformers.ConvNextConfig(hidden_sizes=[16, 32, 48, 64], depths=[1, 1, 2, 1])
    return seen(transformers.ConvNextModel(config), 64, "last_hidden_state")


def segformer() -> Made:
    config = transformers.SegformerConfig(
        depths=[1, 1, 1, 1], hidden_sizes=[16, 32, 40, 64], num_attention_heads=[1, 2, 5, 8],
        decoder_hidden_size=32,
    )  # fmt: skip
    return seen(transformers.SegformerForSemanticSegmentation(config), 64, "logits")


def detr() -> Made:
    config = transformers.DetrConfig(
        use_timm_backbone=False, use_pretrained_backbone=False, backbone=None,
        backbone_config=transformers.ResNetConfig(
            embedding_size=16, hidden_sizes=[16, 24, 32, 48], depths=[1, 1, 1, 1],
            out_features=["stage4"],
        ),
        d_model=32, encoder_layers=2, decoder_layers=2, encoder_ffn_dim=64, decoder_ffn_dim=64,
        encoder_attention_heads=4, decoder_attention_heads=4, num_queries=10,
        attn_implementation="eager",
    )  # fmt: skip
    return seen(transformers.DetrForObjectDetection(config), 64, "logits")


class CachedGpt2(nn.Module):
    """One step of GPT-2 on keys and values of the steps before."""

    def __init__(self) -> None:
        super().__init__()
        config = transformers.GPT2Config(
            n_embd=48, n_layer=2, n_head=4, vocab_size=100, n_positions=64,
            attn_implementation="eager",
        )  # fmt: skip
        self.network = transformers.GPT2LMHeadModel(config)

    def forward(
        self, ids: Tensor, key0: Tensor, value0: Tensor, key1: Tensor, value1: Tensor
    ) -> tuple[Tensor, ...]:
        cache = transformers.DynamicCache()
        cache.update(key0, value0, 0)
        cache.update(key1, value1, 1)
        made = self.network(ids, past_key_values=cache, use_cache=True)
        held = made.past_key_values
        flat = [t for layer in held.layers for t in (layer.keys, layer.values)]
        return (made.logits, *flat)


def gpt2() -> Made:
    names = [f"{kind}.{i}" for i in range(2) for kind in ("key", "value")]
    inputs = {"ids": torch.randint(0, 100, (1, 2))}
    inputs |= {f"past.{n}": torch.randn(1, 4, 5, 12) for n in names}
    dynamic = {n: {2: "past"} if "past" in n else {1: "steps"} for n in inputs}
    outputs = ["logits", *(f"present.{n}" for n in names)]
    return Made(CachedGpt2(), inputs, outputs, dynamic)


def whisper() -> Made:
    config = transformers.WhisperConfig(
        d_model=48, encoder_layers=2, encoder_attention_heads=4, encoder_ffn_dim=96,
        max_source_positions=100, num_mel_bins=20, attn_implementation="eager",
    )  # fmt: skip
    encoder = transformers.WhisperModel(config).encoder
    return Made(Pick(encoder, "last_hidden_state"), {"x": torch.randn(1, 20, 200)})


class BiLstm(nn.Module):
    """Tokens, two bidirectional layers, a tag for each."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(100, 24)
        self.lstm = nn.LSTM(24, 32, num_layers=2, bidirectional=True, batch_first=True)
        self.head = nn.Linear(64, 9)

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.lstm(self.embed(ids))[0])


def bilstm() -> Made:
    return Made(BiLstm(), {"ids": torch.randint(0, 100, (1, 12))}, dynamic={"ids": {1: "T"}})


class Block(nn.Sequential):
    """Two convolutions with their normalizations."""

    def __init__(self, cin: int, cout: int) -> None:
        steps: list[nn.Module] = []
        for c in (cin, cout):
            steps += [nn.Conv2d(c, cout, 3, padding=1, bias=False), nn.BatchNorm2d(cout)]
            steps += [nn.ReLU()]
        super().__init__(*steps)


class UNet(nn.Module):
    """Down by pooling, up by transposed convolutions, joined by concatenation."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.ModuleList([Block(3, 8), Block(8, 16)])
        self.middle = Block(16, 32)
        self.grow = nn.ModuleList(
            [nn.ConvTranspose2d(32, 16, 2, 2), nn.ConvTranspose2d(16, 8, 2, 2)]
        )
        self.up = nn.ModuleList([Block(32, 16), Block(16, 8)])
        self.head = nn.Conv2d(8, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        held = []
        for block in self.down:
            x = block(x)
            held.append(x)
            x = nn.functional.max_pool2d(x, 2)
        x = self.middle(x)
        for grow, block in zip(self.grow, self.up, strict=True):
            x = block(torch.cat([grow(x), held.pop()], dim=1))
        return self.head(x)


def unet() -> Made:
    return seen(UNet())


NETWORKS: dict[str, Callable[[], Made]] = {
    "resnet": resnet,
    "vit": vit,
    "swin": swin,
    "convnext": convnext,
    "segformer": segformer,
    "detr": detr,
    "gpt2": gpt2,
    "whisper": whisper,
    "bilstm": bilstm,
    "unet": unet,
}
"""Makers by name. Each network is made anew, with the weights of torch's current seed."""


def export(made: Made, path: Any, *, dynamo: bool, dynamic: bool) -> None:
    """Write a network as ONNX by one of PyTorch's two exporters."""
    network = made.module.eval()
    args = tuple(made.inputs.values())
    names: dict[str, Any] = {"input_names": list(made.inputs), "output_names": made.outputs}
    if dynamo:
        if dynamic and made.dynamic:
            shapes = tuple(made.dynamic.get(n, {}) for n in made.inputs)
            names["dynamic_shapes"] = shapes
        torch.onnx.export(network, args, str(path), dynamo=True, verbose=False, **names)
        return
    if dynamic:
        names["dynamic_axes"] = made.dynamic
    torch.onnx.export(network, args, str(path), dynamo=False, opset_version=17, **names)
