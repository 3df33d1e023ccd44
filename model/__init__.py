"""This project's models, losses, metrics and learning-rate schedules. Yours to change."""
