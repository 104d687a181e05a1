"""Three networks that passes of tuning are measured on, each with data to tune and to judge by."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from assets import DIGITS, assets_folder
from fidelity import cosine, sqnr_db
from ort_quantizer import Sample, fixed_model, session
from photos import centres, labelled_photos, photo_files
from sentences import Pairs, batch, calibration_samples, embedding

if TYPE_CHECKING:
    from qdqc.ir.graph import Module

__all__ = ["Near", "Network", "digits", "lite0", "minilm", "spread_out"]

Floats = npt.NDArray[Any]

_LITE0, _MINILM = "models/effnet_lite0.onnx", "models/minilm.onnx"
_PAIRS = 200


@dataclass(frozen=True)
class Near:
    """Of judged outputs [N,C]: mean cosine and mean SQNR in dB to float, share of equal tops."""

    cosine: float
    sqnr: float
    agreement: float

    @staticmethod
    def of(found: Floats, exact: Floats) -> Near:
        """Of outputs beside those of the float model."""
        same = found.argmax(-1) == exact.argmax(-1)
        near = cosine(found, exact).mean(), sqnr_db(found, exact).mean()
        return Near(*map(float, near), float(same.mean()))

    def cells(self) -> list[str]:
        """For a table."""
        return [f"{self.cosine:.5f}", f"{self.sqnr:.2f}", f"{self.agreement:.4f}"]


@dataclass(frozen=True)
class Network:
    """A transformed float ``module``; ``samples`` tune it, ``judged`` gives outputs of others.

    ``method`` finds its ranges, and ``mask`` names the input that is 0 for padding.
    """

    title: str
    module: Module
    samples: list[Sample]
    judged: Callable[[Any], Floats]
    method: str = "mse"
    mask: str = ""

    def tuned(self, pipeline: str) -> Module:
        """The module after passes that may measure on the samples."""
        import qdqc

        return qdqc.run(self.module, pipeline, samples=self.samples)

    def option(self) -> str:
        """The mask as an option of a pass."""
        return f' mask="{self.mask}"' if self.mask else ""

    def deployed(
        self, module: Module, *, per_tensor: bool = False, correct_bias: bool = True
    ) -> Any:
        """What model_deploy makes of a tuned module, with its own ranges; a ModelProto."""
        import qdqc
        from qdqc.calibration.masking import masking_by
        from qdqc.calibration.tables import calibrate
        from qdqc.quant.deployment import Deployment
        from qdqc.runtime.sessions.session import Runner

        masking = masking_by(module.graph, self.mask) if self.mask else None
        (table,) = calibrate(
            module,
            self.samples,
            lambda names: Runner(module, names, threads=1, cut=True).run,
            [self.method],
            masking=masking,
        ).values()
        pipeline = Deployment(correct_bias=correct_bias).stages().pipeline
        if per_tensor:
            for name in ("correct-bias{", ",quantize{"):
                pipeline = pipeline.replace(name, f'{name}scheme="per-tensor" ')
        return qdqc.export_onnx(qdqc.run(module, pipeline, table=table.as_written()))

    def near(self, deployed: Any) -> Near:
        """How near a ModelProto is to the float module."""
        return Near.of(self.judged(deployed), self.exact)

    @cached_property
    def exact(self) -> Floats:
        """The judged outputs of the float module."""
        import qdqc

        return self.judged(qdqc.export_onnx(self.module))


def lite0(folder: Path) -> Network | None:
    """EfficientNet-Lite0, 100 photos to tune, centre views of other photos to judge."""
    assets = assets_folder(_LITE0)
    if assets is None or assets_folder("imagenet_dev/labels.tsv") is None:
        return None
    data = assets / "imagenet_dev"
    net = fixed_model(assets / _LITE0, folder / "lite0.onnx", "batch", 1)
    seen = list(centres([photo.path for photo in labelled_photos(data, "val")]))
    samples = list(centres(photo_files(data / "calib")))
    return Network("EfficientNet-Lite0", _transformed(net), samples, _rows(seen))


def minilm(_: Path) -> Network | None:
    """MiniLM, calibration sentences to tune, embeddings of held-back pairs to judge."""
    assets = assets_folder(_MINILM)
    pairs_file = "sts/headlines_val.npz"
    if assets is None or assets_folder("sts/calib") is None or assets_folder(pairs_file) is None:
        return None
    pairs = Pairs.load(assets / pairs_file, _PAIRS)
    seen = [batch(pairs, [row]) for row in range(len(pairs.ids))]

    def judged(model: Any) -> Floats:
        net = session(model)
        found = [embedding(net.run(None, f)[0], f["attention_mask"]) for f in seen]
        return np.concatenate(found)

    samples = list(calibration_samples(assets / "sts" / "calib"))
    module = _transformed(assets / _MINILM)
    return Network("MiniLM", module, samples, judged, "max", "attention_mask")


def digits(_: Path) -> Network:
    """The embedded digits network; it needs no assets."""
    with np.load(DIGITS / "calib.npz") as held:
        samples = [{"image": image[None]} for image in held["image"]]
    with np.load(DIGITS / "test.npz") as held:
        seen = [{"image": held["image"]}]
    return Network("digits", _transformed(DIGITS / "digits.onnx"), samples, _rows(seen))


def _rows(seen: Sequence[Sample]) -> Callable[[Any], Floats]:
    """The first output for each of the inputs, one after another."""

    def judged(model: Any) -> Floats:
        net = session(model)
        return np.concatenate([net.run(None, feeds)[0] for feeds in seen])

    return judged


def _transformed(model: Path) -> Module:
    import qdqc

    return qdqc.run(qdqc.import_onnx(model), "@transform")


def spread_out(module: Module, reach: float = 1.0, seed: int = 0) -> Module:
    """The same function with bounds and hard swishes made Relu, and inner channels scaled apart.

    Each channel between two products is scaled by 10^u, u even from -reach to reach, and the
    weight behind it the other way: a spread of 100 times at 1. It is a network of its own.
    """
    import qdqc

    out = qdqc.run(module, "")
    for node in out.graph.nodes():
        _made_relu(node)
    out = qdqc.run(out, "@transform")
    rng = np.random.default_rng(seed)
    for product, change in _scalings(out):
        change(10 ** rng.uniform(-reach, reach, product))
    out.drop_unused_constants()
    return out


def _made_relu(node: Any) -> None:
    from qdqc.ops import HardSwish, Relu

    if getattr(node.op, "clamp", None) == (0.0, 6.0):
        node.op = replace(node.op, clamp=(0.0, float("inf")))
    if isinstance(node.op, HardSwish):
        node.op = Relu()


def _scalings(module: Module) -> Iterator[tuple[int, Callable[[Floats], None]]]:
    """For each product whose input can be scaled upstream its channels, and what scales them."""
    from qdqc.tuning.columns import Product, product_of
    from qdqc.tuning.scaling import apply, scaled_upstream

    for node in list(module.graph.nodes()):
        product = product_of(node)
        if not isinstance(product, Product) or product.x.tensor.shape is None:
            continue
        shape = [1] * len(product.x.tensor.shape)
        channels = product.x.tensor.shape[product.channel_axis]
        if isinstance(scaled_upstream(product.x, np.ones(shape), [node]), str):
            continue
        shape[product.channel_axis] = -1

        def change(factors: Floats, product: Product = product, shape: Any = shape) -> None:
            found = scaled_upstream(product.x, factors.reshape(shape), [product.node])
            assert not isinstance(found, str)
            apply(found)
            product.scale_inputs(1 / factors)

        assert isinstance(channels, int)
        yield channels, change
