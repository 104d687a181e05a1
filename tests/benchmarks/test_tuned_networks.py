"""The networks that passes of tuning are measured on: the digits, and what is made of them."""

from __future__ import annotations

import numpy as np
import pytest
from tuned_networks import Near, Network, digits, spread_out

import qdqc
from qdqc.tuning.columns import Product, product_of


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Network:
    return digits(tmp_path_factory.mktemp("digits"))


def test_nearness_is_by_cosine_noise_and_top_class() -> None:
    exact = np.array([[3.0, 4.0], [1.0, 0.0]])
    found = np.array([[3.0, 4.5], [0.0, 1.0]])
    near = Near.of(found, exact)
    assert near.agreement == 0.5
    cosine = (9 + 18) / (5 * np.hypot(3, 4.5))
    assert near.cosine == pytest.approx((cosine + 0) / 2)
    assert near.sqnr == pytest.approx((10 * np.log10(25 / 0.25) + 10 * np.log10(1 / 2)) / 2)
    assert near.cells() == ["0.49923", "8.49", "0.5000"]


def test_a_network_is_nearest_to_itself(small: Network) -> None:
    itself = small.near(qdqc.export_onnx(small.module))
    deployed = small.near(small.deployed(small.module))
    assert itself.agreement == 1
    assert itself.cosine == pytest.approx(1)
    assert 0.9 < deployed.agreement <= 1
    assert deployed.cosine < itself.cosine


def test_one_scale_a_weight_is_further_away_than_one_a_channel(small: Network) -> None:
    by_channel = small.near(small.deployed(small.module))
    one = small.deployed(small.module, per_tensor=True)
    assert small.near(one).sqnr < by_channel.sqnr
    scales = [i for i in one.graph.initializer if i.name.endswith("_scale")]
    assert scales
    assert all(i.dims in ([], [1]) for i in scales)


def test_spread_channels_keep_the_function_and_lie_far_apart(small: Network) -> None:
    near, far = (spread_out(small.module, reach) for reach in (0.0, 1.0))
    a, b = (small.judged(qdqc.export_onnx(m)) for m in (near, far))
    np.testing.assert_allclose(a, b, atol=2e-4 * np.abs(a).max())
    assert spread_of(far) > 10 * spread_of(near)


def spread_of(module: qdqc.Module) -> float:
    """The largest over the smallest weight of an input channel, at most over products."""
    found = [product_of(node) for node in module.graph.nodes()]
    reaches = [
        p.input_reach(p.x.tensor.shape[p.channel_axis])
        for p in found
        if isinstance(p, Product) and p.x.tensor.shape is not None
    ]
    return max(float(r.max() / r[r > 0].min()) for r in reaches)


def test_the_mask_is_an_option_where_there_is_one(small: Network) -> None:
    masked = Network("x", small.module, [], small.judged, mask="m")
    assert (small.option(), masked.option()) == ("", ' mask="m"')
