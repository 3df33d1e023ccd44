"""The models give the shapes that they promise, know their data's statistics, and equal the formulas they stand for."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from base import BaseDataLoader, BaseModel, TensorBatches
from model.model import MLP, MnistModel, PolynomialRegression
from utils import ConfigError


def features_and_targets() -> tuple[Tensor, Tensor]:
    """Return 50 rows of three features on very different scales, the last one constant, and a target."""
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(50, 3, generator=generator) * torch.tensor([1e-3, 1e4, 0]) + torch.tensor([5.0, -2e5, 0.1])
    return inputs, 3 + 2 * torch.randn(50, 1, generator=generator)


def make_loader(validation_split: int = 0) -> BaseDataLoader:
    """Return a loader of them."""
    return BaseDataLoader(TensorBatches(*features_and_targets()), 8, True, validation_split, 0)


@pytest.fixture(autouse=True)
def _seeded() -> Iterator[None]:
    """Let each test start from the same weights, and leave the generator of the process as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


@pytest.mark.parametrize("batch_size", [1, 7])
@pytest.mark.parametrize("num_classes", [10, 26])
@pytest.mark.parametrize("training", [True, False])
def test_lenet_gives_log_probabilities(batch_size: int, num_classes: int, training: bool) -> None:
    model = MnistModel(num_classes).train(training)
    outputs = model(torch.randn(batch_size, 1, 28, 28))
    assert outputs.shape == (batch_size, num_classes)
    torch.testing.assert_close(outputs.exp().sum(dim=1), torch.ones(batch_size))


def test_lenet_is_the_published_one() -> None:
    shapes = {name: tuple(parameter.shape) for name, parameter in MnistModel().named_parameters()}
    assert shapes == {
        "conv1.weight": (10, 1, 5, 5),
        "conv1.bias": (10,),
        "conv2.weight": (20, 10, 5, 5),
        "conv2.bias": (20,),
        "fc1.weight": (50, 320),
        "fc1.bias": (50,),
        "fc2.weight": (10, 50),
        "fc2.bias": (10,),
    }


def test_lenet_drops_in_training_only() -> None:
    model, images = MnistModel(), torch.randn(4, 1, 28, 28)
    assert not torch.equal(model(images), model(images))
    model.eval()
    assert torch.equal(model(images), model(images))
    undropped = MnistModel(dropout=0.0)
    undropped.load_state_dict(model.state_dict())
    assert torch.equal(undropped(images), model(images))


@pytest.mark.parametrize("model", [MnistModel(), MLP(3, [8, 4]), PolynomialRegression(4)])
def test_a_model_tells_its_number_of_trainable_parameters(model: BaseModel) -> None:
    expected = sum(parameter.numel() for parameter in model.parameters())
    assert model.num_parameters() == expected
    assert str(model).endswith(f"\nTrainable parameters: {expected:,}")
    frozen = next(model.parameters()).requires_grad_(False)
    assert model.num_parameters() == expected - frozen.numel()


@pytest.mark.parametrize(("hidden", "num_parameters"), [([], 4), ([8], 41), ([8, 5], 83)])
@pytest.mark.parametrize("batch_size", [1, 7])
def test_mlp_has_the_layers_asked_for(hidden: list[int], num_parameters: int, batch_size: int) -> None:
    model = MLP(3, hidden)
    assert model.num_parameters() == num_parameters
    assert model(torch.randn(batch_size, 3)).shape == (batch_size, 1)


@pytest.mark.parametrize("validation_split", [0, 20])
def test_mlp_adapts_to_the_statistics_of_the_training_split(validation_split: int) -> None:
    model, loader = MLP(3, [8]), make_loader(validation_split)
    model.adapt(loader)
    inputs, targets = (values.double().numpy()[loader.train_indices()] for values in features_and_targets())
    assert len(inputs) == 50 - validation_split
    for values, mean, std in (
        (inputs, model.feature_mean, model.feature_std),
        (targets, model.target_mean, model.target_std),
    ):
        deviations = values.std(axis=0, ddof=0)
        np.testing.assert_allclose(mean.numpy(), values.mean(axis=0), rtol=1e-6)
        np.testing.assert_allclose(std.numpy(), np.where(np.ptp(values, axis=0) > 0, deviations, 1.0), rtol=1e-6)
        assert (mean.dtype, std.dtype) == (torch.float32, torch.float32)


def test_mlp_adapts_to_more_samples_than_it_reads_at_once() -> None:
    generator = np.random.default_rng(0)
    values = (generator.normal(size=(200_001, 4)) * [1e-3, 1, 0, 100] + [1e3, -1e6, 0.1, 0]).astype(np.float32)
    values[150_000:] += [0, 1000, 0, 50]
    model = MLP(3, [])
    table = torch.from_numpy(values)
    model.adapt(BaseDataLoader(TensorBatches(table[:, :3], table[:, 3:]), 8, True, 0, 0))
    mean, std = values.mean(axis=0, dtype=np.float64), values.std(axis=0, dtype=np.float64)
    std[2] = 1
    np.testing.assert_allclose(torch.cat([model.feature_mean, model.target_mean]).numpy(), mean, rtol=1e-6)
    np.testing.assert_allclose(torch.cat([model.feature_std, model.target_std]).numpy(), std, rtol=1e-6)


TINY = 2.0**-149  # the smallest float32
COLUMNS = {
    "constant": [0.1] * 50,
    "zero": [0.0] * 50,
    "large constant": [1.7e9] * 50,
    "largest constant": [3.4e38] * 50,
    "tiny constant": [TINY] * 50,
    "subnormal spread": [TINY * (i % 3) for i in range(50)],
    "subnormal spread of subnormal numbers": [1e-40 + TINY * i for i in range(50)],
    "just normal spread": [1e-37 * i for i in range(50)],
    "one ulp": [1.0 + 2.0**-23 * (i % 2) for i in range(50)],
    "one ulp in one row": [1.0 + 2.0**-23 * (i == 7) for i in range(50)],
    "one ulp beside a million": [1e6 + 0.0625 * (i % 2) for i in range(50)],
    "large": [1e37 * (i - 25) for i in range(50)],
    "Unix times": [1.7e9 + 128 * i for i in range(50)],
}


@pytest.mark.parametrize("column", COLUMNS.values(), ids=COLUMNS)
def test_mlp_standardises_any_finite_column_to_finite_numbers_of_its_spread(column: list[float]) -> None:
    values = torch.tensor(column).unsqueeze(1)
    model = MLP(1, [])
    model.adapt(BaseDataLoader(TensorBatches(values, values), 8, True, 0, 0))
    standardised = (values - model.feature_mean) / model.feature_std
    assert bool(standardised.isfinite().all())
    assert bool(model(values).isfinite().all())
    spread = values.double().std(correction=0).item()
    if spread > torch.finfo(torch.float32).tiny and len(set(column)) > 1:
        np.testing.assert_allclose(standardised.double().std(correction=0).item(), 1, rtol=1e-3)
    else:
        assert standardised.abs().max().item() < 1e-6 + 1e-6 * abs(column[0])
        assert model.feature_std.item() == 1


def test_mlp_takes_the_rounding_of_a_constants_mean_for_no_spread() -> None:
    values = torch.full((200_001, 1), 0.1)  # in several chunks, whose means differ in the last bit of float64
    model = MLP(1, [])
    model.adapt(BaseDataLoader(TensorBatches(values, values), 8, True, 0, 0))
    assert (model.feature_std.item(), model.target_std.item()) == (1, 1)


def test_mlp_takes_and_gives_the_units_of_the_data() -> None:
    model = MLP(3, [8])
    model.adapt(make_loader())
    inputs, targets = (values.double().numpy() for values in features_and_targets())
    std = np.where(np.ptp(inputs, axis=0) > 0, inputs.std(axis=0, ddof=0), 1.0)
    standardised = torch.from_numpy((inputs - inputs.mean(axis=0)) / std).float()
    expected = model.layers(standardised).detach().numpy() * targets.std(ddof=0) + targets.mean()
    np.testing.assert_allclose(model(features_and_targets()[0]).detach().numpy(), expected, rtol=0.01, atol=0.01)


def test_mlp_keeps_its_statistics_in_the_state_dict() -> None:
    adapted, loaded = MLP(3, [8]), MLP(3, [8])
    adapted.adapt(make_loader())
    loaded.load_state_dict(adapted.state_dict())
    inputs, _ = features_and_targets()
    assert torch.equal(loaded(inputs), adapted(inputs))
    assert loaded.num_parameters() == MLP(3, [8]).num_parameters()


def test_an_mlp_for_other_data_is_refused_with_both_numbers() -> None:
    with pytest.raises(ConfigError) as caught:
        MLP(4, [8]).adapt(make_loader())
    assert str(caught.value) == "arch.args.in_features: 4, but the data has 3 features"


@pytest.mark.parametrize("degree", [0, 1, 2, 5])
def test_polynomial_equals_numpys_polyval(degree: int) -> None:
    model = PolynomialRegression(degree).double()
    coefficients = np.random.default_rng(degree).normal(size=degree + 1)
    with torch.no_grad():
        model.coefficients.copy_(torch.from_numpy(coefficients))
    x = np.array([-2.5, -1.0, 0.0, 0.5, 3.0])
    outputs = model(torch.from_numpy(x).unsqueeze(1))
    assert outputs.shape == (5, 1)
    np.testing.assert_allclose(outputs.detach().numpy()[:, 0], np.polyval(coefficients[::-1], x), rtol=1e-12)


def test_polynomials_gradient_is_the_powers_of_x() -> None:
    model = PolynomialRegression(3)
    model(torch.tensor([[2.0], [0.0]])).sum().backward()
    assert model.coefficients.grad is not None
    assert model.coefficients.grad.tolist() == [2, 2, 4, 8]


def test_a_model_that_needs_nothing_of_the_data_adapts_to_nothing() -> None:
    model = PolynomialRegression(2)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model.adapt(make_loader())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_model_must_say_what_its_forward_is() -> None:
    with pytest.raises(TypeError, match="abstract"):
        BaseModel()  # type: ignore[abstract]
    assert issubclass(BaseModel, nn.Module)
