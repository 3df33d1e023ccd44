"""Tables that many try first train from a few lines of config, in the very format in which they are published.

Each is some of the lines of the UCI repository, several times: no header, runs of blanks, `?` for gaps.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

import predict as predict_script
from example_runs import evaluate, train
from helpers import epochs_of

TIMES = 12  # that the lines are repeated
HOUSING = """\
 0.00632  18.00   2.310  0  0.5380  6.5750  65.20  4.0900   1  296.0  15.30 396.90   4.98  24.00
 0.02731   0.00   7.070  0  0.4690  6.4210  78.90  4.9671   2  242.0  17.80 396.90   9.14  21.60
 0.02729   0.00   7.070  0  0.4690  7.1850  61.10  4.9671   2  242.0  17.80 392.83   4.03  34.70
 0.03237   0.00   2.180  0  0.4580  6.9980  45.80  6.0622   3  222.0  18.70 394.63   2.94  33.40
88.97620   0.00  18.100  0  0.6710  6.9680  91.90  1.4165  24  666.0  20.20 396.90  17.21  10.40
"""
ABALONE = """\
M,0.455,0.365,0.095,0.514,0.2245,0.101,0.15,15
M,0.35,0.265,0.09,0.2255,0.0995,0.0485,0.07,7
F,0.53,0.42,0.135,0.677,0.2565,0.1415,0.21,9
M,0.44,0.365,0.125,0.516,0.2155,0.114,0.155,10
I,0.33,0.255,0.08,0.205,0.0895,0.0395,0.055,7
"""
IMPORTS = """\
3,?,alfa-romero,gas,std,two,convertible,rwd,front,88.60,168.80,64.10,48.80,2548,dohc,four,130,mpfi,3.47,2.68,9.00,111,5000,21,27,13495
1,?,alfa-romero,gas,std,two,hatchback,rwd,front,94.50,171.20,65.50,52.40,2823,ohcv,six,152,mpfi,2.68,3.47,9.00,154,5000,19,26,16500
2,164,audi,gas,std,four,sedan,fwd,front,99.80,176.60,66.20,54.30,2337,ohc,four,109,mpfi,3.19,3.40,10.00,102,5500,24,30,13950
0,?,audi,gas,turbo,two,hatchback,4wd,front,99.50,178.20,67.90,52.00,3053,ohc,five,131,mpfi,3.13,3.40,7.00,160,5500,16,22,?
1,148,dodge,gas,turbo,?,sedan,fwd,front,93.70,157.30,63.80,50.60,2191,ohc,four,98,mpfi,3.03,3.39,7.60,102,5500,24,30,8558
"""
COLIC = """\
2 1 530101 38.50 66 28 3 3 ? 2 5 4 4 ? ? ? 3 5 45.00 8.40 ? ? 2 2 11300 00000 00000 2 
1 1 534817 39.2 88 20 ? ? 4 1 3 4 2 ? ? ? 4 2 50 85 2 2 3 2 02208 00000 00000 2 
2 1 530334 38.30 40 24 1 1 3 1 3 3 1 ? ? ? 1 1 33.00 6.70 ? ? 1 2 00000 00000 00000 1 
1 9 5290409 39.10 164 84 4 1 6 2 2 4 4 1 2 5.00 3 ? 48.00 7.20 3 5.30 2 1 02208 00000 00000 1 
2 1 530255 37.30 104 35 ? ? 6 2 ? ? ? ? ? ? ? ? 74.00 7.40 ? ? ? 2 04300 00000 00000 2 
"""  # noqa: W291  # each line ends with a blank
NAMES = {
    "housing": "CRIM ZN INDUS CHAS NOX RM AGE DIS RAD TAX PTRATIO B LSTAT MEDV",
    "abalone": "sex length diameter height whole shucked viscera shell rings",
    "imports": "symboling losses make fuel aspiration doors body wheels engine-location base length width height "
    "weight engine cylinders size system bore stroke compression horsepower peak-rpm city-mpg highway-mpg price",
    "colic": "surgery age hospital temperature pulse respiration extremities peripheral membranes refill pain "
    "peristalsis distension tube reflux reflux-PH feces abdomen cells protein appearance abdomen-protein outcome "
    "lesion site type code data",
}
GAP = {"missing": "most_frequent", "indicator": True}
TABLES: dict[str, tuple[str, dict[str, Any]]] = {
    "housing": (HOUSING, {"target": "MEDV", "delimiter": "whitespace"}),
    "abalone": (ABALONE, {"target": "rings"}),
    "imports": (IMPORTS, {"target": "price", "missing_values": ["?"], "missing_target": "drop"}),
    "colic": (
        COLIC,
        {
            "target": "outcome",
            "delimiter": "whitespace",
            "missing_values": ["?"],
            "missing_target": "drop",
            "missing": "median",  # of a category, what is most frequent
            "columns": {
                "temperature": "number",
                "pulse": {"kind": "number", "indicator": True},
                "pain": {"kind": "category", **GAP},
                "surgery": "category",
                "outcome": "class",
            },
        },
    ),
}


@pytest.mark.parametrize("name", TABLES)
def test_a_public_table_trains_as_it_is(name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    lines, args = TABLES[name]
    path = tmp_path / f"{name}.data"
    path.write_text(lines * TIMES)
    is_class = name == "colic"
    given = {"path": str(path), "header": False, "names": NAMES[name].split(), "batch_size": 16, **args}
    config: dict[str, Any] = {
        "name": name,
        "n_gpu": 0,
        "arch": {"type": "TableMLP", "args": {"hidden": [8]}},
        "data_loader": {"type": "TableDataLoader", "args": {**given, "validation_split": 0.2, "test_split": 0.2}},
        "optimizer": {"type": "AdamW", "args": {"lr": 0.01}},
        "loss": "cross_entropy" if is_class else "mse_loss",
        "trainer": {"epochs": 2, "save_dir": str(tmp_path / "saved"), "monitor": "min val_loss", "log_figures": None},
    }
    config["data_loader"]["args"]["cache_dir"] = str(tmp_path / "cache")
    run_dir = train(config)
    first, last = epochs_of(run_dir)
    assert last["loss"] < first["loss"]
    assert evaluate("-r", str(run_dir))["loss"] > 0
    num_rows = lines.count("\n") * TIMES
    has_gap = name in ("imports", "colic")
    assert (f"{TIMES} of {num_rows} rows have no target, and are left out" in caplog.text) == has_gap
    resolved = json.loads((run_dir / "config.json").read_text())["data_loader"]["args"]["columns"]
    if name == "imports":
        gap = {"missing": "median", "indicator": True}
        assert resolved["losses"] == {"kind": "number", **gap}
        assert resolved["doors"] == {"kind": "category", **GAP}
        assert resolved["price"] == {"kind": "number"}
    # And is predicted for, rows without a target too.
    out = tmp_path / "out.parquet"
    command = ["-r", str(run_dir), "--input", str(path), "--output", str(out)]
    assert predict_script.main(predict_script.parse_args(command)) == 0
    written = pq.read_table(out)
    assert written.num_rows == num_rows
    assert written.column_names == (["outcome", "p_1", "p_2", "p_3"] if is_class else [args["target"]])
