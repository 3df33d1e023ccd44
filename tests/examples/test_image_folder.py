"""Image files of every kind, splits that stay, damaged files by name, and the same batches however they are read."""

from __future__ import annotations

import logging
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import v2

from data_loader.image_folder import ImageFolderDataLoader
from example_runs import train
from faults import assert_same_run
from images import cache as image_cache
from images.files import decode, share_of
from trainer import Trainer
from utils import ConfigError, DataError, Stopped

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create")  # more workers than there are cores
PIXELS = np.random.default_rng(0).integers(0, 256, (12, 16, 3), np.uint8)


def write_noise(root: Path, count: int, class_names: tuple[str, ...] = ("cat", "dog"), ending: str = "png") -> None:
    """Write `count` small images of noise in all, in turn of each class."""
    generator = np.random.default_rng(1)
    for number in range(count):
        folder = root / class_names[number % len(class_names)]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(generator.integers(0, 256, (8, 8, 3), np.uint8)).save(folder / f"{number:04}.{ending}")


def load(root: Path, **args: Any) -> ImageFolderDataLoader:
    """Load the images of 8 by 8 at `root`."""
    given: dict[str, Any] = {"size": 8, "batch_size": 16, "cache_dir": str(root.parent / "cache")}
    return ImageFolderDataLoader(str(root), **given | args)


def epoch(loader: ImageFolderDataLoader, number: int = 1, first: int = 0) -> list[Tensor]:
    """Return all tensors of an epoch's batches."""
    steps = loader.epoch_steps(number, first, seed=3)
    return [tensor for [microbatch] in steps for tensor in microbatch.batch]


def assert_equal_batches(one: list[Tensor], other: list[Tensor]) -> None:
    assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize(
    ("name", "mode", "options"),
    [
        ("a.png", "RGB", {}),
        ("a.webp", "RGB", {"lossless": True}),
        ("a.bmp", "RGB", {}),
        ("a.png", "RGBA", {}),
        ("a.png", "P", {}),
        ("a.png", "L", {}),
        ("a.png", "I;16", {}),
        ("a.tif", "I;16", {}),
        ("wrong.jpg", "RGB", {"format": "PNG"}),
    ],
)
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_a_file_of_each_kind_gives_its_pixels(
    name: str, mode: str, options: dict[str, Any], channels: int, tmp_path: Path
) -> None:
    if mode == "I;16":
        image = Image.fromarray(PIXELS[..., 0].astype(np.uint16) << 8)
        expected = Image.fromarray(PIXELS[..., 0])
    else:
        expected = image = Image.fromarray(PIXELS).convert(mode)
    image.save(tmp_path / name, **options)
    decoded = decode(tmp_path / name, (12, 16), channels)
    pixels = np.asarray(expected.convert({1: "L", 3: "RGB", 4: "RGBA"}[channels])).reshape(12, 16, channels)
    assert np.array_equal(decoded, pixels.transpose(2, 0, 1))


def test_a_jpeg_is_as_pillow_reads_it_and_turned_as_it_says(tmp_path: Path) -> None:
    smooth = Image.fromarray(PIXELS).resize((32, 24), Image.Resampling.BICUBIC)
    exif = Image.Exif()
    exif[0x0112] = 6  # turn it to the right
    smooth.save(tmp_path / "plain.jpg")
    smooth.save(tmp_path / "turned.jpg", exif=exif)
    with Image.open(tmp_path / "plain.jpg") as image:
        pixels = np.asarray(image)
    assert np.array_equal(decode(tmp_path / "plain.jpg", (24, 32), 3), pixels.transpose(2, 0, 1))
    assert np.array_equal(decode(tmp_path / "turned.jpg", (32, 24), 3), np.rot90(pixels, -1).transpose(2, 0, 1))


def bomb(path: Path) -> None:
    """Write a PNG of 60 bytes that claims 40,000 x 40,000 pixels."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", 40_000, 40_000, 8, 2, 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b""))


@pytest.fixture
def damaged(tmp_path: Path) -> Path:
    """Return a folder of 20 whole images, four damaged ones and one with the extension of another format."""
    root = tmp_path / "images"
    write_noise(root, 20)
    for ending in ("png", "jpg", "webp"):
        Image.fromarray(PIXELS).save(root / "cat" / f"half.{ending}")
        content = (root / "cat" / f"half.{ending}").read_bytes()
        (root / "cat" / f"half.{ending}").write_bytes(content[: len(content) // 2])
    (root / "dog" / "empty.jpg").touch()
    (root / "dog" / "text.png").write_text("no image")
    bomb(root / "dog" / "huge.png")
    Image.fromarray(PIXELS).save(root / "dog" / "fine.jpg", format="WEBP")
    (root / "dog" / "notes.txt").write_text("is ignored")
    return root


DAMAGED = {
    "cat/half.png": "cannot be decoded: ",
    "cat/half.jpg": "cannot be decoded: ",
    "cat/half.webp": "cannot be decoded: ",
    "dog/empty.jpg": "is empty",
    "dog/text.png": "cannot be decoded: cannot identify image",
    "dog/huge.png": "cannot be decoded: Image size (1600000000 pixels) exceeds limit",
}


@pytest.mark.parametrize("cache", [True, False])
def test_damaged_files_are_named_a_line_each(cache: bool, damaged: Path) -> None:
    with pytest.raises(DataError) as raised:
        epoch(load(damaged, cache=cache, batch_size=100))
    lines = str(raised.value).splitlines()
    for name, reason in DAMAGED.items():
        [line] = [line for line in lines if f"/{name}: " in line]
        assert f"/{name}: {reason}" in line
        assert str(damaged) in line
        assert line.count(name) == 1
    assert len(lines) == len(DAMAGED) + 1
    assert "skip_damaged" in f"{lines[0]}{lines[-1]}"


@pytest.mark.parametrize("cache", [True, False])
def test_damaged_files_are_left_out_on_request_with_their_count(
    cache: bool, damaged: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    loader = load(damaged, cache=cache, skip_damaged=True)
    assert "6 of 27 images in " in caplog.text
    assert loader.n_samples == 21
    assert len(epoch(loader)) == 4
    monkeypatch.setattr(image_cache, "decoded", None)  # what is damaged is known from the first time
    caplog.clear()
    assert_equal_batches(epoch(load(damaged, cache=cache, skip_damaged=True)), epoch(loader))
    assert "6 of 27 images in " in caplog.text


def test_a_damaged_file_is_named_by_a_worker_too(damaged: Path) -> None:
    with pytest.raises(DataError, match=r"half\.jpg: cannot be decoded"):
        epoch(load(damaged, num_workers=1))


@pytest.mark.slow
def test_the_batches_are_the_same_by_any_number_of_workers_in_every_epoch(tmp_path: Path) -> None:
    write_noise(tmp_path / "images", 100)
    transforms = [v2.RandomResizedCrop(5), v2.RandomHorizontalFlip()]
    loaders = [load(tmp_path / "images", num_workers=n, train_transform=transforms) for n in (0, 1, 3)]
    loaders.append(load(tmp_path / "images", num_workers=2, train_transform=transforms, cache=True))
    for number, first in ((1, 0), (2, 0), (5, 3)):
        expected, *others = (epoch(loader, number, first) for loader in loaders)
        for other in others:
            assert_equal_batches(expected, other)


@pytest.mark.slow
def test_2000_images_are_the_same_to_the_bit_by_0_to_4_workers(tmp_path: Path) -> None:
    write_noise(tmp_path / "images", 2000, ending="jpg")
    args: dict[str, Any] = {"train_transform": [v2.RandomCrop(7)], "validation_split": 0.2}
    loaders = [load(tmp_path / "images", num_workers=n, cache=cache, **args) for n in range(5) for cache in (0, 1)]
    for number in (1, 2):
        expected, *others = (epoch(loader, number) for loader in loaders)
        for other in others:
            assert_equal_batches(expected, other)


def test_workers_stay_alive_between_epochs(tmp_path: Path) -> None:
    write_noise(tmp_path / "images", 40)
    loader: Any = load(tmp_path / "images", num_workers=2)
    epoch(loader)
    pids = [worker.pid for worker in loader._iterator._workers]
    epoch(loader, 2)
    assert [worker.pid for worker in loader._iterator._workers] == pids


def test_an_epoch_that_was_broken_off_leaves_nothing_to_the_next(tmp_path: Path) -> None:
    write_noise(tmp_path / "images", 100)
    args: dict[str, Any] = {"train_transform": [v2.RandomCrop(7)]}
    kept, plain = load(tmp_path / "images", num_workers=2, **args), load(tmp_path / "images", **args)
    next(iter(kept.epoch_steps(1, seed=3)))
    assert_equal_batches(epoch(kept, 2), epoch(plain, 2))


def test_a_file_that_is_added_moves_no_other(tmp_path: Path) -> None:
    write_noise(tmp_path / "images", 60)
    splits: dict[str, Any] = {"validation_split": 0.3, "test_split": 0.2}

    def parts() -> list[set[str]]:
        loader, test = load(tmp_path / "images", **splits), load(tmp_path / "images", training=False, **splits)
        names = loader.dataset.images.files.names  # type: ignore[attr-defined]
        held = [loader.train_indices(), loader.valid_indices(), test.train_indices()]
        return [{names[i] for i in indices.tolist()} for indices in held]

    before = parts()
    assert sum(map(len, before)) == len(set.union(*before)) == 60
    assert all(before)
    write_noise(tmp_path / "images", 80)
    for one, other in zip(before, parts()):
        assert one < other


def test_the_share_of_a_name_is_uniform_and_stays() -> None:
    shares = np.array([share_of(f"cat/{number}.jpg") for number in range(10_000)])
    assert share_of("cat/1.jpg") == pytest.approx(0.3878484, abs=1e-6)
    assert np.abs(np.histogram(shares, 10, (0, 1))[0] - 1000).max() < 150


def test_splits_may_be_directories(tmp_path: Path) -> None:
    root = tmp_path / "images"
    for split, count in (("train", 12), ("val", 6), ("test", 4)):
        write_noise(root / split, count, ("a", "b", "c"))
    loader, test = load(root), load(root, training=False)
    assert (loader.n_samples, len(loader.valid_indices()), test.n_samples) == (12, 6, 4)
    assert loader.facts() == {"num_classes": 3, "class_names": ["a", "b", "c"]} == test.facts()
    with pytest.raises(ConfigError, match=r"validation_split: 0.1, but .*val is that split"):
        load(root, validation_split=0.1)
    (root / "val" / "z").mkdir()
    with pytest.raises(DataError, match=r"val: 'z' is no class of the training images"):
        load(root)


def test_mistakes_are_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"images: cannot be read: No such file"):
        load(tmp_path / "images")
    (tmp_path / "images").mkdir()
    with pytest.raises(DataError, match="no directories; there is one for each class"):
        load(tmp_path / "images")
    (tmp_path / "images" / "cat").mkdir()
    with pytest.raises(DataError, match="cat: no images; their names end with"):
        load(tmp_path / "images")
    write_noise(tmp_path / "images", 4)
    with pytest.raises(DataError, match="there is no test split"):
        load(tmp_path / "images", training=False)
    with pytest.raises(ConfigError, match="leaves none to validate on"):
        load(tmp_path / "images", validation_split=1e-9)


def test_the_cache_is_made_again_where_a_file_or_setting_changes_and_refused_where_damaged(tmp_path: Path) -> None:
    root, cache = tmp_path / "images", tmp_path / "cache"
    write_noise(root, 6)
    first = load(root, cache=True)
    assert first.fingerprint() == load(root).fingerprint()
    [table] = cache.glob("*.npy")
    load(root, cache=True)
    assert list(cache.glob("*.npy")) == [table]
    load(root, cache=True, size=7)
    Image.fromarray(PIXELS).save(root / "cat" / "0000.png")
    assert not torch.equal(epoch(load(root, cache=True))[0], epoch(first)[0])
    assert len(list(cache.glob("*.npy"))) == 3
    (cache / f".{'0' * 24}.npy.tmp").touch()  # of a process that was killed
    content = bytearray(table.read_bytes())
    content[-1] ^= 1
    for path in cache.glob("*.npy"):
        path.write_bytes(content if path == table else path.read_bytes())
    Image.fromarray(PIXELS).save(root / "cat" / "more.png")
    load(root, cache=True)
    assert not list(cache.glob(".*.tmp"))


def test_a_damaged_cache_is_refused(tmp_path: Path) -> None:
    write_noise(tmp_path / "images", 6)
    load(tmp_path / "images", cache=True)
    [table] = (tmp_path / "cache").glob("*.npy")
    content = bytearray(table.read_bytes())
    content[-1] ^= 1
    table.write_bytes(content)
    with pytest.raises(DataError, match="its values are damaged; delete it"):
        load(tmp_path / "images", cache=True).fingerprint()


@pytest.mark.parametrize("num_workers", [0, 3])
def test_a_run_goes_on_to_the_bit(
    num_workers: int, config: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_noise(tmp_path / "images", 60, tuple("0123456789"))
    args = {"path": str(tmp_path / "images"), "batch_size": 8, "size": 28, "channels": 1, "validation_split": 0.2}
    args |= {"train_transform": ["RandomHorizontalFlip"], "sampler": {"type": "weighted"}, "num_workers": num_workers}
    config["data_loader"] = {"type": "ImageFolderDataLoader", "args": args}
    config["trainer"]["save_every_steps"] = 2
    whole = train(config)
    config["trainer"]["save_dir"] += "2"
    original = Trainer._watch_step

    def stop(self: Trainer, *given: Any) -> None:
        original(self, *given)
        if self.position.global_step == 8:
            raise Stopped("", "SIGTERM", 143)

    monkeypatch.setattr(Trainer, "_watch_step", stop)
    with pytest.raises(Stopped):
        train(config)
    monkeypatch.undo()
    logging.getLogger("data").info("resuming")
    assert_same_run(whole, train(config, "--resume-latest"))
