"""A config from a stranger: a line for each problem, none of them odd, and exit code 2; soon, and in little memory."""

from __future__ import annotations

import json
import os
import signal
import stat
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import toy
from helpers import limited, write_given
from toy_runs import parsed, small_config
from utils import ConfigError, exit_on_user_error

posix_only = pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="Windows has neither these files nor timers")


def refusal(capsys: pytest.CaptureFixture[str], *args: str) -> list[str]:
    """Return the lines with which the command line `args` is refused: printable, not long, with exit code 2."""
    with pytest.raises(SystemExit) as caught, limited(), exit_on_user_error():
        toy.parse_args(list(args))
    lines = capsys.readouterr().err.split("\n")[:-1]
    assert caught.value.code == 2
    assert 1 <= len(lines) <= 50
    assert [line for line in lines if not line.isprintable() or len(line) > 6000] == []
    return lines


JSON_TEXTS = {
    "unclosed quotes": '{"a": "' + '\\"' * 50_000,
    "unclosed quotes over lines": '{"a": "' + '\\"\n' * 300_000,
    "quotes": '"' * 900_000,
    "backslashes": '{"a": "' + "\\" * 900_001,
    "a long key": '{"' + "x" * 900_000 + '": 1}',
    "a key twice": '{"' + "x" * 400_000 + '": 1, "' + "x" * 400_000 + '": 1}',
    "keys": "{" + ",".join(f'"trainer{i}": 1' for i in range(50_000)) + "}",
    "arguments": '{"optimizer": {"type": "Adam", "args": {' + ",".join(f'"lr{i}": 1' for i in range(50_000)) + "}}}",
    "metrics": '{"metrics": [' + ",".join(['"accuracy"'] * 80_000) + "]}",
    "unknown metrics": '{"metrics": [' + ",".join(f'"accuracy{i}"' for i in range(50_000)) + "]}",
    "lists": '{"a": [' + "[]," * 300_000 + "[]]}",
    "milestones": '{"lr_scheduler": {"type": "MultiStepLR", "args": {"milestones": [' + "1," * 400_000 + "1]}}}",
    "schedules": '{"lr_scheduler": {"type": "LambdaLR", "args": {"lr_lambda": [' + '"1",' * 200_000 + '"1"]}}}',
    "parents": '{"extends": [' + '"base.json",' * 70_000 + '"base.json"]}',
    "a monitor": '{"trainer": {"monitor": "min ' + "x/" * 400_000 + '"}}',
    "brackets": "[" * 900_000,
    "spaces": '{"a"' + " " * 900_000,
    "digits": '{"seed": ' + "9" * 900_000 + "}",
    "an integer of 65 bits": '{"seed": 9223372036854775808}',
    "digits of a float": '{"seed": 1.' + "9" * 900_000 + "}",
    "half a character": '{"name": "\\ud800"}',
    "half a character in a key": '{"\\udfff": 1}',
    "an escape sequence": '{"name": "\\u001b[2J"}',
    "an escape sequence in a key": '{"\\u001b]0;x\\u0007": 1}',
    "an escape sequence in a type": '{"loss": {"type": "\\u001b[2J\\u202e"}}',
    "an escape sequence in an argument": '{"optimizer": {"type": "Adam", "args": {"\\u001b[2J": 1}}}',
    "a line in a key": '{"a\\nname: missing": 1}',
    "NUL": '{"name": "a\0b"}',
    "NUL escaped": '{"trainer": {"save_dir": "a\\u0000b"}}',
    "a long path": '{"trainer": {"save_dir": "' + "x" * 5000 + '"}}',
    "a metric's name": '{"metrics": [{"type": "accuracy", "name": 5.5}]}',
    "a parent of NUL": '{"extends": "a\\u0000b"}',
    "a parent of 5,000 characters": '{"extends": "' + "x" * 5000 + '"}',
    "a parent of half a character": '{"extends": "a\\ud800"}',
    "a parent that steers": '{"extends": "\\u001b[2J"}',
    "a parent that is a device": '{"extends": "/dev/zero"}',
    "a parent that is a folder": '{"extends": "."}',
    "a parent that is not there": '{"extends": "missing.json"}',
}
YAML_TEXTS = {
    "keys": "\n".join(f"key{i}: 1" for i in range(3_000)),
    "short keys": "{" + ",".join(f"{i:x}a: 1" for i in range(3_000)) + "}",
    "values": "a: [" + "1," * 49_900 + "1]",
    "lists": "a: [" + "[]," * 5_000 + "1]",
    "lines": "\n".join(["- 1"] * 5_000),
    "quotes": "a: " + "'" * 90_001,
    "double quotes": 'a: "' + '\\"' * 45_000,
    "text": "a: |\n" + " x\n" * 30_000,
    "folded text": "a: >\n" + " x\n\n" * 20_000,
    "plain text": "a: x\n" + " x\n" * 30_000,
    "brackets": "[" * 90_000,
    "braces": "{a: " * 24_000,
    "dashes": "- " * 45_000,
    "questions": "? " * 45_000,
    "indents": "\n".join(" " * level + "a:" for level in range(400)),
    "comments": "#\n" * 49_000,
    "directives": "%A b\n" * 19_000,
    "an anchor": "a: &" + "x" * 90_000,
    "aliases": "a: &x 1\nb: [" + "*x," * 5_000 + "*x]",
    "merges": "a: &x {b: 1}\nc: {<<: [" + "*x," * 5_000 + "*x]}",
    "a control character": "a: \x07",
    "NUL": "a: \0",
    "half a character": 'a: "\\ud800"',
    "an escape sequence": 'name: "\\e[2J"',
    "digits": "seed: " + "9" * 90_000,
}
for _text in (
    *("!!bool maybe", "!!bool", "!!int x", "!!int 0x10", "!!int 1_000", "!!float x", "!!float .", "!!null x"),
    *("!!timestamp x", "!!timestamp 2020-01-01", "!!binary aGk=", "!!binary \xe4", "!!set {a}", "!!omap [a: 1]"),
    *("!!pairs [a: 1]", "!!str [a]", "!!seq a", "!!map a", "!!map [a]", "!!seq {a: 1}", "!!merge a", "!x y", "!<x> y"),
    *("!!python/name:os.system ''", "!!python/object/apply:os.system [x]", "!!python/tuple [1]", "!!value ="),
):
    YAML_TEXTS[_text] = f"name: {_text}"
TEXTS = [(name, ".json", text) for name, text in JSON_TEXTS.items()]
TEXTS += [(name, ".yaml", text) for name, text in YAML_TEXTS.items()]


@posix_only
@pytest.mark.parametrize(
    ("suffix", "text"), [case[1:] for case in TEXTS], ids=[f"{suffix} {name}" for name, suffix, _ in TEXTS]
)
def test_a_hostile_text_is_refused_soon(
    suffix: str, text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_given(small_config(tmp_path))
    os.rename("given.json", "base.json")
    Path(f"c{suffix}").write_bytes(text.encode("utf-8", "surrogatepass"))
    assert all(line.startswith(f"c{suffix}:") for line in refusal(capsys, "-c", f"c{suffix}"))


def chain(folder: Path) -> None:
    """Make a chain of 1,500 configs."""
    for i in range(1500):
        (folder / f"{i}.json").write_text(json.dumps({"extends": f"{i + 1}.json"}))


def double(folder: Path) -> None:
    """Make 25 levels of configs, each of which extends the next twice."""
    for i in range(25):
        (folder / f"{i}.json").write_text(json.dumps({"extends": [f"{i + 1}.json"] * 2}))
    (folder / "25.json").write_text("{}")


def large(folder: Path) -> None:
    """Make a chain of configs of 900 KB."""
    for i in range(5):
        (folder / f"{i}.json").write_text(f'{{"extends": "{i + 1}.json"{" " * 900_000}}}')


def circle(folder: Path) -> None:
    """Make two that extend each other, one of them through a symbolic link."""
    (folder / "0.json").write_text(json.dumps({"extends": "1.json"}))
    (folder / "2.json").write_text(json.dumps({"extends": "0.json"}))
    (folder / "1.json").symlink_to("2.json")


def link_loop(folder: Path) -> None:
    """Make a symbolic link to itself."""
    (folder / "0.json").symlink_to("0.json")


def link_loop_as_a_parent(folder: Path) -> None:
    """Make a config that extends a symbolic link to itself."""
    (folder / "0.json").write_text(json.dumps({"extends": "1.json"}))
    (folder / "1.json").symlink_to("1.json")


def dangling_link(folder: Path) -> None:
    """Make a symbolic link to nothing."""
    (folder / "0.json").symlink_to("missing.json")


def link_to_a_device(folder: Path) -> None:
    """Make a symbolic link to what never ends."""
    (folder / "0.json").symlink_to("/dev/zero")


def pipe(folder: Path) -> None:
    """Make a FIFO."""
    os.mkfifo(folder / "0.json")


def pipe_as_a_parent(folder: Path) -> None:
    """Make a config that extends a FIFO."""
    (folder / "0.json").write_text(json.dumps({"extends": "1.json"}))
    os.mkfifo(folder / "1.json")


def folder_of_this_name(folder: Path) -> None:
    """Make a folder."""
    (folder / "0.json").mkdir()


def nothing(folder: Path) -> None:
    """Make nothing."""


FILES = (
    *(chain, double, large, circle, link_loop, link_loop_as_a_parent, dangling_link, link_to_a_device, pipe),
    *(pipe_as_a_parent, folder_of_this_name, nothing),
)


@posix_only
@pytest.mark.parametrize("make", FILES, ids=lambda make: make.__name__)
def test_hostile_files_are_refused_soon(
    make: Callable[[Path], None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make(tmp_path)
    (line,) = refusal(capsys, "-c", str(tmp_path / "0.json"))
    assert line.startswith(f"{tmp_path}/")


@posix_only
@pytest.mark.parametrize("path", ["x" * 5000, "x/" * 3000, "/dev/zero", "/dev/null", "/", "a\0b", "\x1b[2J", "\udce9"])
def test_a_hostile_path_of_a_config_is_refused(path: str, capsys: pytest.CaptureFixture[str]) -> None:
    (line,) = refusal(capsys, "-c", path)
    assert "cannot be read" in line or line.endswith("is not a file")


@posix_only
@pytest.mark.parametrize(
    "text",
    [
        "a." * 2000 + "b=1",
        "a;" * 2000 + "b=1",
        "a=" + "[" * 2000 + "]" * 2000,
        "a=" + '{"a":' * 2000,
        "metrics." + "9" * 5000 + '="accuracy"',
        "seed=" + "9" * 5000,
        "seed=9223372036854775808",
        "name=" + "x" * 1_000_000,
        "x" * 1_000_000,
        "name=\udce9",
        'name="\\ud800"',
        "\x1b[2J=1",
        "name=\x1b[2J",
        "arch.type=\x1b[2J",
        "=",
        "..=1",
        ".=1",
        "trainer.=1",
        "name.x.y=1",
        "metrics.-1=5",
    ],
    ids=lambda text: ascii(text)[:30],
)
def test_a_hostile_override_is_refused_soon(text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    refusal(capsys, "-c", write_given(small_config(tmp_path)), "--set", text)


def test_a_type_that_was_replaced_is_told_without_its_control_characters(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    base = small_config(tmp_path)
    base["optimizer"]["type"] = "\x1b[2J"
    write_given(base)
    (tmp_path / "c.json").write_text(json.dumps({"extends": "given.json", "optimizer": {"type": "Adam"}}))
    toy.parse_args(["-c", str(tmp_path / "c.json")])
    assert "the args of \\x1b[2J are dropped" in caplog.text


def as_ordinary_user(function: Callable[[], object]) -> str:
    """Return what `function` raises in a process whose user is not root."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            if os.getuid() == 0:
                os.setgid(65534)
                os.setuid(65534)
            function()
        except BaseException as error:
            os.write(writer, f"{type(error).__name__} {error}".encode())
        finally:
            os._exit(0)
    os.close(writer)
    os.waitpid(pid, 0)
    with open(reader, "rb") as pipe_end:
        return pipe_end.read().decode()


@pytest.mark.skipif(not hasattr(os, "setuid"), reason="Windows has other permissions")
@pytest.mark.parametrize("closed", ["the file", "its folder", "a parent", "the folder of a parent", "save_dir"])
def test_what_an_ordinary_user_may_not_read_is_refused(closed: str) -> None:
    with tempfile.TemporaryDirectory() as name:  # tmp_path lies in a closed folder
        folder = Path(name)
        folder.chmod(0o755)
        (folder / "closed").mkdir()
        (folder / "closed" / "c.json").write_text(json.dumps(small_config(folder / "closed" / "saved")))
        path = folder / "closed" / "c.json"
        if "parent" in closed:
            path = folder / "c.json"
            path.write_text(json.dumps({"extends": "closed/c.json"}))
        elif closed == "save_dir":
            path = folder / "c.json"
            path.write_text(json.dumps(small_config(folder / "closed" / "saved")))
        (folder / "closed" / "c.json" if closed in ("the file", "a parent") else folder / "closed").chmod(0)
        told = as_ordinary_user(lambda: toy.parse_args(["-c", str(path)]))
        (folder / "closed").chmod(stat.S_IRWXU)
    if closed == "save_dir":  # it is made when the run begins
        assert told == ""
    else:
        assert told.endswith(f" {folder / 'closed' / 'c.json'}: cannot be read: Permission denied")
        assert told.startswith(f"ConfigError {path}: ")


# Numbers: bounded where they are declared.

COUNTS = "epochs save_period save_every_steps keep_checkpoints len_epoch grad_accum_steps limit_batches".split()  # noqa: SIM905
COUNTS += ["overfit_batches", "log_every_steps", "max_skipped_steps", "early_stop"]
BOUNDED = {f"trainer.{name}": 10**9 for name in COUNTS} | {
    "n_gpu": 10**9,
    "seed": 2**32 - 1,
    "data_loader.args.batch_size": 10**9,
    "data_loader.args.num_workers": 10**9,
    "data_loader.args.validation_split": 10**9,
    "data_loader.args.num_samples": 10**9,
    "arch.args.width": 10**9,
    "arch.args.num_classes": 10**9,
    "metrics[0].args.k": 10**9,
}


@pytest.mark.parametrize("beyond", [1, 10**12, 10**30, 10**400], ids=["1", "1e12", "1e30", "1e400"])
@pytest.mark.parametrize("path", BOUNDED)
def test_a_number_has_an_upper_bound(path: str, beyond: int, tmp_path: Path) -> None:
    config = small_config(tmp_path) | {"metrics": [{"type": "top_k", "args": {"k": 2}}]}
    with pytest.raises(ConfigError) as caught:
        parsed(config, **{path.replace(".", "__"): BOUNDED[path] + beyond})
    assert [problem.split(": ")[0] for problem in caught.value.problems if "less" in problem] == [path]


@pytest.mark.parametrize("path", [path for path in BOUNDED if path != "arch.args.num_classes"])
def test_the_bound_itself_is_taken(path: str, tmp_path: Path) -> None:
    config = small_config(tmp_path) | {"metrics": [{"type": "top_k", "args": {"k": 2}}]}
    parsed(config, **{path.replace(".", "__"): BOUNDED[path]})


def test_a_config_that_a_resumed_run_could_not_read_again_is_refused(tmp_path: Path) -> None:
    config = small_config(tmp_path)
    config["loss"] = {"type": "CrossEntropyLoss", "args": {"weight": [1] * 60_000}}
    path = tmp_path / "c.json"
    path.write_text(json.dumps(config))
    parser = toy.parse_args(["-c", str(path)])
    with pytest.raises(ConfigError, match="too large to be read again"):
        parser.make_run_dir()
    assert list(tmp_path.iterdir()) == [path]


def test_only_the_first_of_very_many_problems_are_told(tmp_path: Path) -> None:
    config: dict[str, Any] = small_config(tmp_path) | {f"key{i}": i for i in range(1000)}
    with pytest.raises(ConfigError) as caught:
        parsed(config)
    assert len(caught.value.problems) == 50
