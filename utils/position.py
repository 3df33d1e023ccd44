"""Where a run is."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Position:
    """The next thing to do: step `step_in_epoch` (from 0) of `epoch` (from 1), after `global_step` optimizer steps."""

    epoch: int = 1
    step_in_epoch: int = 0
    global_step: int = 0

    def after_step(self) -> None:
        """Move on by one optimizer step."""
        self.step_in_epoch += 1
        self.global_step += 1

    def after_epoch(self) -> None:
        """Move on to the first step of the next epoch."""
        self.epoch += 1
        self.step_in_epoch = 0

    def state_dict(self) -> dict[str, int]:
        """Return the three integers."""
        return dict(vars(self))

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Restore what `state_dict` returned. Raises TypeError where that was not three integers."""
        if not all(type(value) is int and 0 <= value < 2**62 for value in state.values()) or state["epoch"] < 1:
            raise TypeError(f"a position is integers from 0 on, epochs from 1, not {state}")
        self.epoch, self.step_in_epoch = state["epoch"], state["step_in_epoch"]
        self.global_step = state["global_step"]
