"""Sweeps: many runs of one config, whose best is looked for by Optuna."""
