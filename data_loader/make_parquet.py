"""Make data/quadratic/ for configs/parquet.json: the rows of make_quadratic in shards, and a shard to test on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from data_loader.make_quadratic import make_rows

NUM_SHARDS = 10  # the last of them is the test split
GROUP_ROWS = 128
PATH = Path("data/quadratic")


def write_shards(path: Path) -> None:
    """Write `path`/train/part-0.parquet and so on, and `path`/test/: columns x and y, float32."""
    rows = np.array(make_rows(), dtype=float).astype(np.float32)  # (N, 2)
    for number, part in enumerate(np.array_split(rows, NUM_SHARDS)):
        folder = path / ("train" if number < NUM_SHARDS - 1 else "test")
        folder.mkdir(parents=True, exist_ok=True)
        table = pa.table({"x": part[:, 0], "y": part[:, 1]})
        pq.write_table(table, folder / f"part-{number}.parquet", row_group_size=GROUP_ROWS)


if __name__ == "__main__":
    write_shards(PATH)
    print(f"wrote {PATH}/")
