"""The same model trained on the same data, once in each way. Each is written as its own documentation writes it."""
