"""What the outputs of a model mean: values, or classes and their probabilities, by name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
from torch import Tensor

from utils import ConfigError

Kind = Literal["values", "logits", "log-probabilities", "probabilities", "binary-logits", "binary-probabilities"]
KINDS: tuple[Kind, ...] = get_args(Kind)
KIND_OF_LOSS: dict[str, Kind] = {
    "cross_entropy": "logits",
    "CrossEntropyLoss": "logits",
    "nll_loss": "log-probabilities",
    "NLLLoss": "log-probabilities",
    "BCEWithLogitsLoss": "binary-logits",
    "binary_cross_entropy_with_logits": "binary-logits",
    "BCELoss": "binary-probabilities",
    "binary_cross_entropy": "binary-probabilities",
}
"""What each loss takes; the outputs of a model that was trained with any other are values."""
HOW: dict[Kind, str] = {
    "values": "outputs are written as they are",
    "logits": "probabilities are the softmax of the outputs",
    "log-probabilities": "probabilities are exp of the outputs",
    "probabilities": "the outputs are probabilities",
    "binary-logits": "probabilities are the sigmoid of the outputs",
    "binary-probabilities": "the outputs are probabilities",
}
TOLERANCE = 1e-3  # of a sum of probabilities, which bf16 rounds


class Meaning(NamedTuple):
    """What a model's outputs are, and the names of what it predicts."""

    kind: Kind
    target_names: Sequence[str] = ()
    class_names: Sequence[str] | None = None

    def columns(self, outputs: Any) -> dict[str, np.ndarray]:
        """Return columns by name of outputs (N,) or (N, C), on any device.

        Of values: one for each target. Of classes: the most probable one, by name or else index, and `p_NAME` for each.
        Of binary outputs, one is the probability of the second class; of several (multi-label), each has its own.
        Raises ConfigError where the outputs are not of this kind.
        """
        if not isinstance(outputs, Tensor) or outputs.ndim not in (1, 2):
            came = f"{list(outputs.shape)}" if isinstance(outputs, Tensor) else type(outputs).__name__
            raise ConfigError(f"outputs: {came}; let predict_batch in trainer/batch.py return a tensor (N,) or (N, C)")
        table = outputs.reshape(len(outputs), -1).float().cpu()  # (N, C)
        if self.kind == "values":
            names = list(self.target_names)
            if len(names) != table.shape[1]:
                names = ["output"] if table.shape[1] == 1 else [f"output_{i}" for i in range(table.shape[1])]
            return dict(zip(names, table.T.contiguous().numpy()))
        probabilities = self._probabilities(table)
        if self.kind.startswith("binary") and table.shape[1] == 1:
            names = self._class_names(2)[1:]
            chosen = (probabilities[:, 0] > 0.5).long()
        else:
            names = self._class_names(table.shape[1])
            chosen = table.argmax(dim=1)
        columns = {f"p_{name}": column for name, column in zip(names, probabilities.T.contiguous().numpy())}
        return columns if self.kind.startswith("binary") and len(names) > 1 else self._named(chosen) | columns

    def target_columns(self, targets: Tensor) -> dict[str, np.ndarray]:
        """Return columns by name of targets (N,), (N, 1) or (N, T), as `columns` does of outputs."""
        if self.kind in ("logits", "log-probabilities", "probabilities") and targets.ndim == 1:
            return self._named(targets.cpu())
        return Meaning("values", self.target_names or ["target"]).columns(targets)

    def _probabilities(self, outputs: Tensor) -> Tensor:
        if self.kind == "logits":
            return outputs.softmax(dim=1)
        if self.kind == "binary-logits":
            return outputs.sigmoid()
        if self.kind in ("probabilities", "binary-probabilities"):
            return outputs
        probabilities = outputs.exp()
        if bool(((probabilities.sum(dim=1) - 1).abs() > TOLERANCE).any()):
            raise ConfigError(
                "outputs: exp of them does not sum to 1: no log-probabilities, perhaps logits; see --outputs"
            )
        return probabilities

    def _named(self, chosen: Tensor) -> dict[str, np.ndarray]:
        """Return the column of the classes, by name or else index; it has the name of the target, if that is known."""
        name = self.target_names[0] if self.target_names else "class"
        return {name: np.array(self.class_names, dtype=object)[chosen.numpy()] if self.class_names else chosen.numpy()}

    def _class_names(self, num_classes: int) -> list[str]:
        names = list(self.class_names) if self.class_names else [str(i) for i in range(num_classes)]
        if len(names) != num_classes:
            raise ConfigError(f"outputs: {num_classes} classes, but the data has names for {len(names)}")
        return names


def kind_of(loss: Any) -> Kind:
    """Return the kind of the outputs of a model that was trained with `loss`, a section of the config."""
    return KIND_OF_LOSS.get(loss["type"] if isinstance(loss, dict) else str(loss), "values")
