"""What export.py does with a trained model: writes it in a format, proves that it computes the same, describes it."""
