"""Make data/digits/ for configs/image_folder.json: scikit-learn's real digits as PNG files, a directory for each."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

SIDE = 28
PATH = Path("data/digits")


def write_digits(path: Path, count: int | None = None) -> None:
    """Write the first `count` digits, by default all 1,797, as `path`/0/0000.png and so on, SIDE pixels wide."""
    from sklearn.datasets import load_digits  # Alpaydin and Kaynak 1998 (UCI)

    digits = load_digits()
    for number, (image, label) in enumerate(zip(digits.images[:count], digits.target[:count])):
        folder = path / str(label)
        folder.mkdir(parents=True, exist_ok=True)
        pixels = Image.fromarray((image * 255 / 16).round().astype(np.uint8))  # 8x8
        pixels.resize((SIDE, SIDE), Image.Resampling.BILINEAR).save(folder / f"{number:04}.png")


if __name__ == "__main__":
    write_digits(PATH)
    print(f"wrote {PATH}/")
