"""Read one CSV file in a process of its own, and print seconds and megabytes: see csv_scaling.py."""

from __future__ import annotations

import json
import resource
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

COLUMNS = [f"x{i}" for i in range(10)]
READERS = ("this project", "its second run", "pandas")


def read(reader: str, path: Path) -> dict[str, float]:
    """Read the file; return the seconds, and the megabytes of the peak above that of `import torch`."""
    import torch

    before = peak_memory()
    if reader == "pandas":
        import pandas

        started = time.perf_counter()
        torch.from_numpy(pandas.read_csv(path).to_numpy("float32", copy=True))
    else:
        from data_loader.csv_data import CsvDataLoader

        started = time.perf_counter()
        cache_dir = str(path.parent / "cache")
        loader = CsvDataLoader(str(path), COLUMNS[-1], 128, validation_split=0.1, cache_dir=cache_dir)
        if reader == "its second run":
            next(loader.epoch_steps(1, seed=0))
    seconds = time.perf_counter() - started
    return {"seconds": seconds, "megabytes": (peak_memory() - before) / 1e6}


def peak_memory() -> int:
    """Return the most bytes of memory that this process has held."""
    status = Path("/proc/self/status")
    if status.exists():  # Linux, where getrusage begins with the peak of the process that started this one
        return next(int(line.split()[1]) * 1024 for line in status.read_text().splitlines() if line.startswith("VmHWM"))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # macOS: in bytes


if __name__ == "__main__":
    print(json.dumps(read(sys.argv[1], Path(sys.argv[2]))))
