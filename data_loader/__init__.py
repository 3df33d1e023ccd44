"""This project's data: a config's `data_loader.type` is a class of any file here. Yours to change."""
