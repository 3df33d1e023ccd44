"""Arguments that name types again: every mistake in them is reported with its path, and nothing else can be named."""

from __future__ import annotations

import json
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import torch
import torchvision.transforms.v2 as v2
from torch import Tensor

import train as train_script
from data_loader.mnist import MnistDataLoader
from data_loader.transforms import PadToSquare
from example_runs import run_train
from faults import assert_same_run, the_run
from helpers import write_given
from parse_config import ConfigParser
from parse_config.reference import dotted_paths, json_schema
from slots import SLOTS
from toy_runs import stopped_at
from utils import ConfigError, exit_on_user_error
from utils.nested import flatten

COSINE = {"type": "warmup_cosine", "args": {"warmup": 1, "total": 30}}
NESTED: dict[str, Any] = {
    "data_loader.args.train_transform": [
        {"type": "PadToSquare", "args": {"fill": 0.5}},
        {
            "type": "RandomResizedCrop",
            "args": {
                "size": 28,
                "scale": [0.5, 1.0],
                "ratio": [0.9, 1.1],
                "interpolation": "bilinear",
                "antialias": True,
            },
        },
        {
            "type": "RandomApply",
            "args": {
                "p": 0.3,
                "transforms": [
                    {"type": "ColorJitter", "args": {"brightness": 0.2, "contrast": 0.2}},
                    {"type": "GaussianBlur", "args": {"kernel_size": 3, "sigma": [0.1, 2.0]}},
                ],
            },
        },
        {
            "type": "RandomChoice",
            "args": {
                "transforms": [
                    {"type": "RandomRotation", "args": {"degrees": 5, "expand": False}},
                    {"type": "RandomAffine", "args": {"degrees": 5, "translate": [0.1, 0.1]}},
                    "Identity",
                ],
                "p": [0.4, 0.4, 0.2],
            },
        },
        {
            "type": "Compose",
            "args": {
                "transforms": [
                    {"type": "RandomHorizontalFlip", "args": {"p": 0.1}},
                    {"type": "RGB"},
                    {"type": "Grayscale"},
                ]
            },
        },
        {"type": "ToDtype", "args": {"dtype": "float32", "scale": True}},
        {"type": "RandomErasing", "args": {"p": 0.1, "value": 0}},
    ],
    "data_loader.args.valid_transform": [
        {"type": "Resize", "args": {"size": 28, "antialias": True}},
        {"type": "CenterCrop", "args": {"size": 28}},
    ],
    "data_loader.args.sampler": {"type": "RandomSampler", "args": {"replacement": True, "num_samples": 192}},
    "optimizer.args.params": [
        {"match": "conv*", "lr": 1e-4, "weight_decay": 0},
        {"match": "*.bias", "lr": 1e-3, "eps": 1e-8},
    ],
    "lr_scheduler": {
        "type": "ChainedScheduler",
        "interval": "step",
        "args": {
            "schedulers": [
                {
                    "type": "SequentialLR",
                    "args": {
                        "milestones": [3, 6],
                        "schedulers": [
                            {"type": "LinearLR", "args": {"start_factor": 0.1, "total_iters": 3}},
                            {"type": "CosineAnnealingLR", "args": {"T_max": 3, "eta_min": 1e-5}},
                            {"type": "LambdaLR", "args": {"lr_lambda": "0.99 ** step"}},
                        ],
                    },
                },
                {"type": "MultiplicativeLR", "args": {"lr_lambda": COSINE}},
            ]
        },
    },
}

T, V, S = "data_loader.args.train_transform", "data_loader.args.valid_transform", "data_loader.args.sampler"
P, L = "optimizer.args.params", "lr_scheduler.args.schedulers"
MISSPELT_KEYS = {  # path -> (what is written, what was meant)
    f"{T}[0].args.fill": ("fil", "fill"),
    f"{T}[1].args.scale": ("scael", "scale"),
    f"{T}[1].args.ratio": ("ration", "ratio"),
    f"{T}[1].args.antialias": ("antialas", "antialias"),
    f"{T}[2].args.p": ("pp", "p"),
    f"{T}[2].args.transforms[0].args.brightness": ("brightnes", "brightness"),
    f"{T}[2].args.transforms[0].args.contrast": ("contrst", "contrast"),
    f"{T}[2].args.transforms[1].args.sigma": ("sigam", "sigma"),
    f"{T}[3].args.transforms[0].args.expand": ("expnad", "expand"),
    f"{T}[3].args.transforms[1].args.translate": ("transalte", "translate"),
    f"{T}[4].args.transforms[0].args": ("arg", "args"),
    f"{T}[5].args.scale": ("scal", "scale"),
    f"{T}[6].args.value": ("vaule", "value"),
    f"{V}[0].args.antialias": ("antialais", "antialias"),
    f"{S}.args.replacement": ("replacment", "replacement"),
    f"{S}.args.num_samples": ("num_sample", "num_samples"),
    f"{P}[0].weight_decay": ("weight_deacy", "weight_decay"),
    f"{P}[1].eps": ("esp", "eps"),
    f"{L}[0].args.schedulers[0].args.start_factor": ("start_facter", "start_factor"),
    f"{L}[0].args.schedulers[0].args.total_iters": ("total_iter", "total_iters"),
    f"{L}[0].args.schedulers[1].args.eta_min": ("eta_mn", "eta_min"),
}
MISSPELT_TYPES = {
    f"{T}[3].args.transforms[2]": ("Identiy", "Identity"),
    f"{T}[4].args.transforms[1].type": ("RBG", "RGB"),
    f"{T}[4].args.transforms[2].type": ("GrayScale", "Grayscale"),
    f"{V}[1].type": ("CentreCrop", "CenterCrop"),
    f"{L}[1].args.lr_lambda.type": ("warmup_cosin", "warmup_cosine"),
}
WRONG_VALUES = {  # path -> (what is written, part of the reason)
    f"{T}[1].args.size": ("big", "got 'big'"),
    f"{T}[1].args.interpolation": (None, "got None"),
    f"{T}[2].args.transforms[1].args.kernel_size": ("x", "got 'x'"),
    f"{T}[3].args.p": (0.5, "Input should be a valid array"),
    f"{T}[3].args.transforms[0].args.degrees": ("five", "got 'five'"),
    f"{T}[3].args.transforms[1].args.degrees": (None, "got None"),
    f"{T}[5].args.dtype": ("float31", "did you mean 'float32'?"),
    f"{T}[6].args.p": ("often", "Input should be a valid number"),
    f"{V}[0].args.size": ([2.5], "got [2.5]"),
    f"{P}[0].lr": ("fast", "got 'fast'"),
    f"{P}[1].match": (5, "give a pattern of parameter names, not 5"),
    f"{L}[0].args.milestones": (["3", 6], "Input should be a valid integer"),
    f"{L}[0].args.schedulers[1].args.T_max": (2.5, "got 2.5"),
    f"{L}[0].args.schedulers[2].args.lr_lambda": (5, "an expression or a function of model/lr_lambda.py"),
}
MALFORMED: dict[str, tuple[Any, str]] = {  # each alone, as it hides others
    T: ({"type": "RGB"}, "give a list"),
    S: ([{"type": "RandomSampler"}], "give one, not a list"),
    f"{T}[0]": (5, 'as {"type": …, "args": …}; got 5'),
    f"{T}[1]": ({"args": {"size": 3}}, ".type: missing"),
    f"{T}[3].args.transforms": ({"type": "RGB"}, "give a list"),
    f"{T}[3].type": ("os.system", "unknown type 'os.system'"),
    f"{L}[0].interval": ("epoch", "unknown key"),
    f"{T}[4].args.transforms[1].args": ([], "valid dictionary"),
    f"{P}": ({"match": "*"}, "give a list of groups"),
    f"{P}[0]": ("conv*", "give a list of groups"),
    f"{P}[1].params": ([], 'say by "match" which parameters these are'),
    f"{L}[0].args.schedulers[2].args.optimizer": (1, "is given by the code"),
    f"{T}[4].args.transforms": ([{"type": "RGB"}] * 101, "at most 100"),
}
BY_PATH = MISSPELT_KEYS | MISSPELT_TYPES | WRONG_VALUES


def at(config: Any, path: str) -> tuple[Any, Any]:
    """Return what holds the value at `path`, and its key or place in it."""
    *parents, last = path.replace("[", ".").replace("]", "").split(".")
    for part in parents:
        config = config[int(part) if isinstance(config, list) else part]
    return config, int(last) if isinstance(config, list) else last


def put(config: Any, path: str, value: Any) -> None:
    """Set the value at `path`."""
    node, key = at(config, path)
    node[key] = value


@pytest.fixture
def nested(config: dict[str, Any]) -> dict[str, Any]:
    """Return a right config with nested types in all places that take them."""
    for path, value in NESTED.items():
        put(config, path, deepcopy(value))
    return config


def spoil(config: Any, path: str) -> str:
    """Make the mistake at `path` of the table; return where it must be reported."""
    if path not in MISSPELT_KEYS:
        put(config, path, (BY_PATH | MALFORMED)[path][0])
        return f"{path}.type" if path == f"{T}[3].args.transforms[2]" else path
    node, key = at(config, path)
    wrong = MISSPELT_KEYS[path][0]
    node[wrong] = node.pop(key)
    return path.removesuffix(key) + wrong


def problems(config: dict[str, Any]) -> list[str]:
    """Return what is wrong with `config`."""
    with pytest.raises(ConfigError) as caught:
        ConfigParser(config, slots=SLOTS)
    return caught.value.problems


def expected_reason(path: str) -> str:
    """Return what the report of the mistake at `path` must say."""
    reason = (BY_PATH | MALFORMED)[path][1]
    if path == f"{T}[2].args.p" or path in WRONG_VALUES or path in MALFORMED:
        return "unknown argument of RandomApply" if path == f"{T}[2].args.p" else reason
    return f"did you mean '{reason}'?"


@cache
def validator() -> jsonschema.Draft202012Validator:
    """Return what checks a config by the project's schema."""
    return jsonschema.Draft202012Validator(json_schema(SLOTS))


def test_a_nested_config_of_more_than_50_keys_is_right(nested: dict[str, Any]) -> None:
    given = {path: value for path, value in flatten(nested).items() if any(path.startswith(key) for key in NESTED)}
    assert len(given) >= 50
    validator().validate(nested)
    ConfigParser(nested, slots=SLOTS)


def test_forty_mistakes_in_nested_places_are_reported_at_once(nested: dict[str, Any]) -> None:
    assert len(BY_PATH) >= 40
    wanted = {spoil(nested, path): expected_reason(path) for path in BY_PATH}
    found = dict(problem.split(": ", 1) for problem in problems(nested))
    assert found.keys() == wanted.keys()
    assert [(path, found[path]) for path in found if wanted[path] not in found[path]] == []


@pytest.mark.parametrize("path", [*BY_PATH, *MALFORMED])
def test_each_is_reported_alone_and_refused_by_the_schema(path: str, nested: dict[str, Any]) -> None:
    where = spoil(nested, path)
    found = problems(nested)
    assert found[0].startswith(where)
    assert expected_reason(path) in found[0]
    assert len(found) == 1
    assert not validator().is_valid(nested)


@pytest.mark.parametrize(
    "name",
    [
        *("Lambda", "Transform", "CutMix", "ToTensor", "InterpolationMode", "AutoAugmentPolicy", "functional", "torch"),
        *("F", "nn", "Tensor", "__builtins__", "__class__", "os.system", "_geometry", "_utils", "query_size", "wrap"),
        *("torchvision.transforms.v2.RGB", "RGB.forward", "MnistModel", "MnistDataLoader", "Linear", "Sequential", ""),
    ],
)
def test_nothing_else_can_be_named(name: str, nested: dict[str, Any]) -> None:
    put(nested, f"{T}[4].args.transforms[1].type", name)
    assert problems(nested)[0].startswith(f"{T}[4].args.transforms[1].type: unknown type {name!r}; ")
    assert not validator().is_valid(nested)
    put(nested, f"{T}[4].args.transforms[1].type", "RGB")
    put(nested, f"{L}[0].type", name)
    assert problems(nested)[0].startswith(f"{L}[0].type: unknown type {name!r}; ")


@pytest.mark.parametrize(("depth", "is_right"), [(20, True), (40, False)])
def test_types_in_types_end_at_the_depth_of_a_file(
    depth: int, is_right: bool, config: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    transform: dict[str, Any] = {"type": "RGB"}
    for _ in range(depth):
        transform = {"type": "Compose", "args": {"transforms": [transform]}}
    config["data_loader"]["args"]["train_transform"] = [transform]
    path = write_given(config)
    if is_right:
        train_script.parse_args(["-c", path])
        return
    with pytest.raises(SystemExit), exit_on_user_error():
        train_script.parse_args(["-c", path])
    assert "nested more than 100 levels deep" in capsys.readouterr().err


def test_an_argument_that_the_table_does_not_name_takes_no_type(config: dict[str, Any]) -> None:
    config["arch"]["args"]["dropout"] = {"type": "RGB"}
    assert problems(config)[0].startswith("arch.args.dropout: Input should be a valid number")


def test_values_that_only_a_library_refuses_are_reported_with_their_paths(nested: dict[str, Any]) -> None:
    put(nested, f"{T}[2].args.transforms[1].args.kernel_size", 2)
    put(nested, f"{T}[6].args.p", 3.0)
    put(nested, f"{L}[0].args.schedulers[0].args.start_factor", 0)
    found = problems(nested)
    assert [problem.split(": ")[0] for problem in found] == [
        f"{T}[2].args.transforms[1].args",
        f"{T}[6].args",
        f"{L}[0].args.schedulers[0].args",
    ]


def test_the_command_line_reaches_nested_values(nested: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    path = write_given(nested)
    sets = [f"{T}.1.args.size=26", f"{L}[0].args.schedulers[0].args.total_iters=2"]
    sets += [f"{V}.1.type=RandomCrop", f"{V}.1.args.size=20"]
    args = [part for text in sets for part in ("--set", text)]
    config = train_script.parse_args(["-c", path, *args])
    loader_args = config["data_loader"]["args"]
    assert loader_args["train_transform"][1]["args"]["size"] == 26
    assert loader_args["valid_transform"][1] == {"type": "RandomCrop", "args": {"size": 20}}
    with pytest.raises(SystemExit):
        train_script.parse_args(["-c", path, *args, "--print-config"])
    lines = capsys.readouterr().out.splitlines()
    assert f"{T}[1].args.size = 26  # command line" in lines
    assert f"{L}[0].args.schedulers[0].args.start_factor = 0.1  # {path}" in lines
    completed = dotted_paths(SLOTS, config.config)
    assert {f"{T}.2.args.transforms.0.args.hue", f"{L}.0.args.schedulers.0.args.end_factor", f"{S}.type"} <= {
        *completed
    }
    with pytest.raises(ConfigError, match=r"train_transform\[1\].args.sise: unknown argument .* did you mean 'size'"):
        train_script.parse_args(["-c", path, "--set", f"{T}.1.args.sise=26"])


def test_a_child_replaces_the_list_of_its_parent(nested: dict[str, Any], tmp_path: Path) -> None:
    parent = write_given(nested)
    child = {
        "extends": parent,
        "data_loader": {"args": {"train_transform": ["RGB"], "sampler": {"type": "SequentialSampler"}}},
    }
    (tmp_path / "child.json").write_text(json.dumps(child))
    args = train_script.parse_args(["-c", str(tmp_path / "child.json")])["data_loader"]["args"]
    assert (args["train_transform"], args["sampler"]) == (["RGB"], {"type": "SequentialSampler"})
    assert args["valid_transform"] == NESTED[V]


# What the objects do.


def batches(loader: MnistDataLoader, epoch: int, first: int = 0) -> list[Tensor]:
    """Return the inputs of the batches of an epoch from `first` on."""
    return [batch[0] for [(batch, _)] in loader.epoch_steps(epoch, first, seed=3)]


def loader_of(digits_dir: Path, num_workers: int = 0, **kwargs: Any) -> MnistDataLoader:
    """Return a loader of a few digits."""
    return MnistDataLoader(str(digits_dir), 32, num_workers=num_workers, source="mnist", **kwargs)


RANDOM = (v2.RandomRotation(20), v2.RandomApply([v2.GaussianNoise()], p=0.5), v2.RandomResizedCrop(28, antialias=True))


def test_a_transform_draws_the_same_for_any_workers_and_from_anywhere(digits_dir: Path) -> None:
    transforms = [v2.ToDtype(torch.float32, scale=True), *RANDOM]
    loader = loader_of(digits_dir, train_transform=transforms)
    state = torch.get_rng_state()
    expected = batches(loader, 2)
    assert torch.equal(torch.get_rng_state(), state)
    for num_workers in (0, 2):
        others = batches(loader_of(digits_dir, num_workers, train_transform=transforms), 2, first=5)
        assert len(others) == len(expected) - 5
        assert all(torch.equal(one, other) for one, other in zip(others, expected[5:]))
    assert not torch.equal(batches(loader, 1)[0], expected[0])


def test_without_a_change_the_images_are_those_without_transforms(digits_dir: Path) -> None:
    plain = batches(loader_of(digits_dir), 1)
    for transforms in ([v2.Identity()], [v2.ToImage(), v2.ToPureTensor()]):
        for one, other in zip(batches(loader_of(digits_dir, train_transform=transforms), 1), plain):
            assert torch.equal(one, other)
    floats = batches(loader_of(digits_dir, train_transform=[v2.ToDtype(torch.float32, scale=True)]), 1)
    torch.testing.assert_close(floats, plain)


def test_validation_has_transforms_of_its_own(digits_dir: Path) -> None:
    resized = [v2.Resize(20, antialias=True)]
    loader = loader_of(digits_dir, validation_split=30, train_transform=[v2.Identity()], valid_transform=resized)
    valid = loader.split_validation()
    assert valid is not None
    assert batches(loader, 1)[0].shape[2:] == (28, 28)
    assert next(iter(valid))[0].shape[2:] == (20, 20)
    assert next(iter(loader_of(digits_dir, training=False, valid_transform=resized)))[0].shape[2:] == (20, 20)


@pytest.mark.parametrize(
    ("transforms", "reason"),
    [
        (
            [{"type": "Normalize", "args": {"mean": [0.5], "std": [0.5]}}],
            r"train_transform\[0\]: Normalize does not take torch.uint8",
        ),
        ([{"type": "ToPILImage"}], "train_transform: must end with tensors of one shape; these are Image"),
        ([{"type": "RandomResize", "args": {"min_size": 10, "max_size": 28}}], "must end with tensors of one shape"),
    ],
)
def test_transforms_that_do_not_fit_are_reported_before_the_run(
    transforms: list[Any], reason: str, config: dict[str, Any]
) -> None:
    config["data_loader"]["args"]["train_transform"] = transforms
    with pytest.raises(ConfigError, match=reason):
        run_train("-c", write_given(config))
    assert not list(Path(config["trainer"]["save_dir"]).glob("*/*"))


@pytest.mark.parametrize("shape", [(1, 4, 7), (3, 7, 4), (1, 5, 5)])
def test_an_image_is_padded_to_a_square_around_its_middle(shape: tuple[int, ...]) -> None:
    image = torch.rand(shape)
    padded = PadToSquare(fill=0.25)(image)
    size = max(shape)
    top, left = (size - shape[1]) // 2, (size - shape[2]) // 2
    assert padded.shape == (shape[0], size, size)
    assert torch.equal(padded[:, top : top + shape[1], left : left + shape[2]], image)
    assert padded.sum() - image.sum() == pytest.approx(0.25 * (padded.numel() - image.numel()))


@pytest.mark.parametrize("place", [3, pytest.param(6, marks=pytest.mark.slow)])
def test_a_run_of_nested_types_that_stops_anywhere_is_exact(place: int, nested: dict[str, Any], tmp_path: Path) -> None:
    def started(name: str) -> dict[str, Any]:
        return nested | {"trainer": nested["trainer"] | {"save_dir": str(tmp_path / name)}}

    nested["data_loader"]["args"]["num_workers"] = 2 if place == 6 else 0
    expected = run_train("-c", write_given(started("whole")))
    config = started("stopped")
    with stopped_at(place):
        run_train("-c", write_given(config))
    run_train("-r", str(the_run(config)))
    assert_same_run(expected, the_run(config))


def test_another_transform_cannot_be_resumed_exactly(nested: dict[str, Any]) -> None:
    with stopped_at(3):
        run_train("-c", write_given(nested))
    with pytest.raises(Exception, match=r"train_transform\[6\].args.p: was 0.1, is 0.2"):
        run_train("-r", str(the_run(nested)), "--set", f"{T}.6.args.p=0.2")
