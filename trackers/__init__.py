"""Mirrors of a run's metrics in wandb, MLflow and trackio. Nothing here imports torch: each is a process of its own."""
