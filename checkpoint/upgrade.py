"""Upgrades checkpoints of earlier formats, so that a run of an earlier version resumes."""

from __future__ import annotations

from typing import Any

from torch import Tensor

FORMAT = 2
FIRST_PARTS = (
    *("model", "optimizer", "lr_scheduler", "monitor", "position"),
    *("train_metrics", "watch", "scaler", "ema"),
)
"""The parts of format 1: any other that a trainer holds begins fresh in a run of that format."""


def upgrade(state: dict[str, Any]) -> dict[str, Any]:
    """Return the content of a checkpoint of any format with what has come since; leaves its "format" as it was."""
    if state["format"] < 2:
        state.setdefault("facts", {})
        if isinstance(state.get("train_metrics"), dict) and isinstance(state.get("position"), dict):
            state["train_metrics"]["is_open"] = state["position"].get("step_in_epoch", 0) != 0
        _resolve_layout(state)
    if isinstance(state.get("monitor"), dict):  # keep_best has come since
        state["monitor"].setdefault("top", [])
    return state


def _resolve_layout(state: dict[str, Any]) -> None:
    """Say the memory layout that "auto" meant in format 1."""
    config, environment, model = (state.get(key) for key in ("config", "environment", "model"))
    if isinstance(config, dict) and isinstance(environment, dict) and isinstance(model, dict):
        trainer = config.get("trainer")
        if isinstance(trainer, dict) and trainer.get("channels_last") == "auto":
            has_images = any(isinstance(weight, Tensor) and weight.ndim == 4 for weight in model.values())
            trainer["channels_last"] = has_images and environment.get("device") in ("cpu", "cuda")
