"""The models. Yours go here."""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from base import BaseDataLoader, BaseModel
from utils import ConfigError
from utils.annotations import NonNegativeInt, PositiveInt, Probability


class MnistModel(BaseModel):
    """The LeNet of the published template (after LeCun et al. 1998): two convolutions, two linear layers."""

    def __init__(self, num_classes: PositiveInt = 10, dropout: Probability = 0.5) -> None:
        """`dropout` is the probability of dropping a feature map after conv2, and a unit after fc1."""
        super().__init__()
        self.conv1 = nn.Conv2d(1, 10, kernel_size=5)
        self.conv2 = nn.Conv2d(10, 20, kernel_size=5)
        self.conv2_drop = nn.Dropout2d(dropout)
        self.fc1 = nn.Linear(320, 50)
        self.fc1_drop = nn.Dropout(dropout)
        self.fc2 = nn.Linear(50, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """(N, 1, 28, 28) float -> log-probabilities (N, num_classes)."""
        x = F.relu(F.max_pool2d(self.conv1(images), 2))  # (N, 10, 12, 12)
        x = F.relu(F.max_pool2d(self.conv2_drop(self.conv2(x)), 2))  # (N, 20, 4, 4)
        x = F.relu(self.fc1(x.flatten(1)))  # (N, 50)
        return F.log_softmax(self.fc2(self.fc1_drop(x)), dim=1)


class MLP(BaseModel):
    """A multilayer perceptron for regression, from features to targets, both in the units of the data.

    It standardises internally, with the training split's statistics. These are buffers, so a checkpoint needs no
    separate preprocessing.
    """

    feature_mean: Tensor
    feature_std: Tensor
    target_mean: Tensor
    target_std: Tensor

    def __init__(self, in_features: PositiveInt, hidden: list[PositiveInt], dropout: Probability = 0.0) -> None:
        """`hidden` is the width of each hidden layer; [] makes a linear model."""
        super().__init__()
        self.in_features = in_features
        layers: list[nn.Module] = []
        for fan_in, fan_out in zip([in_features, *hidden], hidden):
            layers += [nn.Linear(fan_in, fan_out), nn.ReLU(), nn.Dropout(dropout)]
        self.layers = nn.Sequential(*layers, nn.Linear([in_features, *hidden][-1], 1))
        self.register_buffer("feature_mean", torch.zeros(in_features))
        self.register_buffer("feature_std", torch.ones(in_features))
        self.register_buffer("target_mean", torch.zeros(1))
        self.register_buffer("target_std", torch.ones(1))

    def adapt(self, data_loader: BaseDataLoader) -> None:
        """Take the means and standard deviations of the training split's features and target."""
        num_features = data_loader.peek(1).batch[0].shape[1]
        if num_features != self.in_features:
            raise ConfigError(f"arch.args.in_features: {self.in_features}, but the data has {num_features} features")
        mean, std = _mean_and_std(torch.cat(batch, dim=1) for batch in data_loader.train_samples())
        self.feature_mean, self.target_mean = mean[:-1], mean[-1:]
        self.feature_std, self.target_std = std[:-1], std[-1:]

    def forward(self, features: Tensor) -> Tensor:
        """(N, in_features) float -> (N, 1)."""
        standardised = (features - self.feature_mean) / self.feature_std
        return self.layers(standardised) * self.target_std + self.target_mean


class PolynomialRegression(BaseModel):
    """A polynomial of one feature, in the units of the data: coefficients[k] belongs to x ** k."""

    exponents: Tensor

    def __init__(self, degree: NonNegativeInt = 2) -> None:
        super().__init__()
        self.coefficients = nn.Parameter(torch.zeros(degree + 1))
        self.register_buffer("exponents", torch.arange(degree + 1))

    def forward(self, features: Tensor) -> Tensor:
        """(N, 1) float -> (N, 1)."""
        if features.shape[1] != 1:  # several features would be taken for powers of one
            raise ConfigError(f"arch: PolynomialRegression takes one feature, but the data has {features.shape[1]}")
        return (features**self.exponents) @ self.coefficients.unsqueeze(1)


def _mean_and_std(chunks: Iterable[Tensor]) -> tuple[Tensor, Tensor]:
    """Return the float32 mean and standard deviation of each column of chunks (N, F) of rows; 1 for a constant column.

    A spread that is rounding error beside the mean, or too small for float32 to divide by, counts as constant. In
    float64 and chunk by chunk, as in Chan, Golub, LeVeque 1979, "Updating Formulae and a Pairwise Algorithm for
    Computing Sample Variances".
    """
    num_rows, mean, squares = 0, torch.zeros(()).double(), torch.zeros(()).double()  # squares of deviations, summed
    for chunk in chunks:
        chunk_var, chunk_mean = torch.var_mean(chunk.double(), dim=0, correction=0)
        total = num_rows + len(chunk)
        delta = chunk_mean - mean
        mean = mean + delta * (len(chunk) / total)
        squares = squares + chunk_var * len(chunk) + delta.square() * (num_rows * len(chunk) / total)
        num_rows = total
    std = (squares / num_rows).sqrt()
    smallest = torch.finfo(torch.float32).tiny + mean.abs() * 2.0**-44  # float32 itself resolves 2**-24
    return mean.float(), torch.where(std > smallest, std, 1.0).float()
