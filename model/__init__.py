"""This project's models, losses, metrics and learning-rate schedules."""
