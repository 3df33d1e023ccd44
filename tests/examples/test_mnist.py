"""MNIST comes from IDX files as they stand, never from anything else unasked, and digits say that they are digits."""

from __future__ import annotations

import gzip
import logging
import math
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor

from base import TensorBatches
from data_loader.mnist import FILES, MEAN, STD, MnistDataLoader
from few_digits import idx
from helpers import ROOT
from utils import ConfigError, DataError

NUM_IMAGES = {True: 30, False: 12}


def make_arrays(training: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return a few random images and labels."""
    generator = np.random.default_rng(int(training))
    n = NUM_IMAGES[training]
    return generator.integers(256, size=(n, 28, 28), dtype=np.uint8), generator.integers(10, size=n, dtype=np.uint8)


def write_files(folder: Path, *, is_gzip: bool) -> None:
    """Write the four files of a small MNIST."""
    folder.mkdir(parents=True, exist_ok=True)
    for training, names in FILES.items():
        for name, array in zip(names, make_arrays(training)):
            data = idx(array)
            (folder / (name + ".gz" if is_gzip else name)).write_bytes(gzip.compress(data) if is_gzip else data)


def tensors(loader: MnistDataLoader) -> tuple[Tensor, Tensor]:
    """Return all images and labels that the loader holds."""
    assert isinstance(loader.dataset, TensorBatches)
    return loader.dataset.inputs, loader.dataset.targets


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every download fail at once, on any machine: the proxy is a port where nobody listens."""
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("is_gzip", [True, False])
@pytest.mark.parametrize("folder", [".", "MNIST/raw"])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("source", ["mnist", "auto"])
def test_files_are_read_as_they_stand_and_standardised(
    tmp_path: Path, is_gzip: bool, folder: str, training: bool, source: str
) -> None:
    write_files(tmp_path / folder, is_gzip=is_gzip)
    loader = MnistDataLoader(str(tmp_path), 8, training=training, source=source)  # type: ignore[arg-type]
    images, labels = tensors(loader)
    expected_images, expected_labels = make_arrays(training)
    assert (images.shape, images.dtype, labels.dtype) == ((NUM_IMAGES[training], 1, 28, 28), torch.float32, torch.int64)
    expected = (expected_images[:, None] / 255 - MEAN) / STD
    np.testing.assert_allclose(images.numpy(), expected, rtol=1e-5, atol=1e-6)
    assert labels.tolist() == expected_labels.tolist()
    assert loader.source == loader.resolved_args["source"] == "mnist"


def test_training_shuffles_and_splits_and_testing_does_neither(tmp_path: Path) -> None:
    write_files(tmp_path, is_gzip=False)
    train = MnistDataLoader(str(tmp_path), 8, validation_split=0.2)
    test = MnistDataLoader(str(tmp_path), 8, validation_split=0.2, training=False)
    valid = train.split_validation()
    assert valid is not None
    assert [len(labels) for _, labels in valid] == [6]
    assert train.n_samples == 24
    assert test.split_validation() is None
    tested = torch.cat([labels for [((_, labels), _)] in test.epoch_steps(1, seed=0)])
    assert tested.tolist() == make_arrays(False)[1].tolist()
    orders = [torch.cat([images for [((images, _), _)] in train.epoch_steps(epoch, seed=0)]) for epoch in (1, 2)]
    assert not torch.equal(*orders)


IMAGES_NAME, LABELS_NAME = FILES[True]
IMAGES = idx(make_arrays(True)[0])
LABELS = idx(make_arrays(True)[1])


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [
        (IMAGES_NAME, IMAGES[:-1], "not a whole IDX file"),
        (IMAGES_NAME, IMAGES[:10], "not a whole IDX file"),
        (IMAGES_NAME, IMAGES + b"\0", "not a whole IDX file"),
        (IMAGES_NAME, b"", "not a whole IDX file"),
        (IMAGES_NAME, b"<html>404 Not Found</html>", "not a whole IDX file"),
        (IMAGES_NAME, b"\0\0\x0d" + IMAGES[3:], "not a whole IDX file"),
        (IMAGES_NAME, gzip.compress(IMAGES), "not a whole IDX file"),
        (IMAGES_NAME, idx(np.zeros((30, 8, 8), np.uint8)), "do not fit MNIST"),
        (IMAGES_NAME, idx(np.zeros((29, 28, 28), np.uint8)), "do not fit MNIST"),
        (IMAGES_NAME, LABELS, "do not fit MNIST"),
        (LABELS_NAME, LABELS[:-1], "not a whole IDX file"),
        (LABELS_NAME, IMAGES, "do not fit MNIST"),
        (f"{IMAGES_NAME}.gz", gzip.compress(IMAGES)[:-20], "cannot be read"),
        (f"{IMAGES_NAME}.gz", gzip.compress(IMAGES)[:-1], "cannot be read"),
        (f"{IMAGES_NAME}.gz", IMAGES, "cannot be read"),
        (f"{IMAGES_NAME}.gz", gzip.compress(IMAGES[:-1]), "not a whole IDX file"),
    ],
)
def test_a_truncated_or_wrong_file_is_an_error_that_names_it(
    tmp_path: Path, name: str, data: bytes, reason: str
) -> None:
    write_files(tmp_path, is_gzip=name.endswith(".gz"))
    (tmp_path / name).write_bytes(data)
    with pytest.raises(DataError) as caught:
        MnistDataLoader(str(tmp_path), 8, source="mnist")
    where = tmp_path if reason == "do not fit MNIST" else tmp_path / name
    assert str(caught.value).startswith(f"{where}: ")
    assert reason in str(caught.value)


def _make_sparse(path: Path) -> None:
    path.touch()
    os.truncate(path, 1 << 36)


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize("name", [IMAGES_NAME, LABELS_NAME])
@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (os.mkfifo, "cannot be read: is a pipe or a device, not a file"),
        (lambda path: path.symlink_to("/dev/zero"), "cannot be read: is a pipe or a device, not a file"),
        (Path.mkdir, "cannot be read: Is a directory"),
        (lambda path: path.write_bytes(gzip.compress(IMAGES) + b"junk"), ""),
        (lambda path: path.write_bytes(b"\0\0\x08\xff" + b"\xff" * 4 * 255), ""),
        (_make_sparse, ""),
    ],
    ids=["pipe", "device", "directory", "junk", "255 dimensions", "64 GiB of NULs"],
)
def test_what_is_no_idx_file_is_told_in_one_line(
    tmp_path: Path, name: str, suffix: str, make: Callable[[Path], object], reason: str
) -> None:
    write_files(tmp_path, is_gzip=bool(suffix))
    path = tmp_path / (name + suffix)
    path.unlink()
    make(path)
    with pytest.raises(DataError) as caught:
        MnistDataLoader(str(tmp_path), 8, source="mnist")
    assert str(caught.value).startswith(f"{path}: {reason}")
    assert str(caught.value).isprintable()


def test_a_gzip_file_that_unpacks_to_more_than_it_says_is_told_without_unpacking_all(tmp_path: Path) -> None:
    write_files(tmp_path, is_gzip=True)
    part = gzip.compress(bytes(1 << 20))  # a kilobyte
    (tmp_path / f"{IMAGES_NAME}.gz").write_bytes(gzip.compress(IMAGES) + part * 20_000)  # 20 GB
    with pytest.raises(DataError, match="not a whole IDX file"):
        MnistDataLoader(str(tmp_path), 8, source="mnist")


def test_an_idx_file_that_says_it_is_huge_is_not_unpacked(tmp_path: Path) -> None:
    write_files(tmp_path, is_gzip=True)
    part = gzip.compress(bytes(1 << 20))
    header = b"\0\0\x08\3" + (20_000 << 20).to_bytes(8, "big") + b"\0\0\0\1"
    (tmp_path / f"{IMAGES_NAME}.gz").write_bytes(gzip.compress(header) + part * 20_000)
    with pytest.raises(DataError, match="not a whole IDX file"):
        MnistDataLoader(str(tmp_path), 8, source="mnist")


@pytest.mark.parametrize("source", ["mnist", "auto"])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(("index", "label"), [(0, 10), (7, 255)])
def test_a_label_out_of_range_is_told_with_its_sample(
    tmp_path: Path, source: str, training: bool, index: int, label: int
) -> None:
    write_files(tmp_path, is_gzip=False)
    labels = make_arrays(training)[1]
    labels[index] = label
    (tmp_path / FILES[training][1]).write_bytes(idx(labels))
    with pytest.raises(DataError) as caught:
        MnistDataLoader(str(tmp_path), 8, training=training, source=source)  # type: ignore[arg-type]
    expected = f"{tmp_path}: sample {index} of {len(labels)}: its label is {label}; labels are 0 to 9"
    assert str(caught.value) == expected


@pytest.mark.parametrize("data_dir", ["x" * 5000, "a\0b", "/dev/null"])
def test_a_data_dir_that_cannot_be_is_told(data_dir: str) -> None:
    with pytest.raises(DataError) as caught:
        MnistDataLoader(data_dir, 8, source="mnist")
    assert "\n" not in str(caught.value)


def test_a_flipped_bit_in_a_gzip_file_is_found_by_its_checksum(tmp_path: Path) -> None:
    write_files(tmp_path, is_gzip=True)
    path = tmp_path / f"{LABELS_NAME}.gz"
    data = bytearray(gzip.compress(LABELS, compresslevel=0))  # stored as it is, so that the flip is in a label
    data[-12] ^= 1
    path.write_bytes(data)
    with pytest.raises(DataError, match="CRC check failed"):
        MnistDataLoader(str(tmp_path), 8, source="mnist")


def test_labels_that_are_missing_beside_their_images_are_told(tmp_path: Path) -> None:
    write_files(tmp_path, is_gzip=False)
    (tmp_path / LABELS_NAME).unlink()
    with pytest.raises(DataError) as caught:
        MnistDataLoader(str(tmp_path), 8, source="mnist")
    assert str(caught.value) == f"{tmp_path}: {LABELS_NAME} (or {LABELS_NAME}.gz) is missing"


def test_mnist_that_is_asked_for_and_not_to_be_had_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        MnistDataLoader(str(tmp_path), 8, source="mnist")
    assert str(caught.value).startswith(f"MNIST is not in {tmp_path} and cannot be downloaded (")


def test_auto_falls_back_to_digits_with_a_warning_and_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        loader = MnistDataLoader(str(tmp_path), 8, source="auto")
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert record.message.startswith(f"THIS IS NOT MNIST. MNIST is not in {tmp_path} and cannot be downloaded (")
    assert loader.source == loader.resolved_args["source"] == "digits"
    asked_for = MnistDataLoader(str(tmp_path), 8, source="digits")
    assert all(torch.equal(one, other) for one, other in zip(tensors(loader), tensors(asked_for), strict=True))


def test_auto_falls_back_for_the_test_split_alike(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    loader = MnistDataLoader(str(tmp_path), 8, training=False)
    assert "THIS IS NOT MNIST" in caplog.text
    assert (loader.source, len(loader.dataset)) == ("digits", 359)


def test_digits_train_and_test_are_disjoint_and_together_all_of_them(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    loaders = [MnistDataLoader(str(tmp_path), 8, training=training, source="digits") for training in (True, False)]
    (images, labels), (test_images, test_labels) = map(tensors, loaders)
    assert (len(images), len(test_images)) == (1438, 359)
    keys = [image.numpy().tobytes() for image in torch.cat([images, test_images])]
    all_digits = load_digits()
    assert len(set(keys)) == len({image.tobytes() for image in all_digits.images}) == 1797  # no two are equal
    counts = torch.bincount(torch.cat([labels, test_labels]))
    assert counts.tolist() == np.bincount(all_digits.target).tolist()
    assert caplog.records == []


def test_digits_are_scaled_like_mnist(tmp_path: Path) -> None:
    images, labels = tensors(MnistDataLoader(str(tmp_path), 8, source="digits"))
    assert (images.shape[1:], images.dtype, labels.dtype) == ((1, 28, 28), torch.float32, torch.int64)
    pixels = (images * STD + MEAN) * 255
    torch.testing.assert_close(pixels, pixels.round(), rtol=0, atol=1e-3)
    assert (round(pixels.min().item()), round(pixels.max().item())) == (0, 255)


def test_digits_are_read_whatever_lies_in_the_folder(tmp_path: Path) -> None:
    write_files(tmp_path, is_gzip=False)
    assert len(MnistDataLoader(str(tmp_path), 8, source="digits").dataset) == 1438


@pytest.mark.parametrize(
    ("source", "hint"), [("minst", "did you mean 'mnist'?"), ("svhn", "allowed: auto, digits, mnist")]
)
def test_an_unknown_source_is_refused_with_the_nearest(tmp_path: Path, source: str, hint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        MnistDataLoader(str(tmp_path), 8, source=source)  # type: ignore[arg-type]
    assert str(caught.value) == f"data_loader.args.source: unknown source {source!r}; {hint}"


def test_the_real_mnist_has_the_size_and_the_statistics_that_are_written_here() -> None:
    folders = [ROOT / "data", ROOT.parent / "shared" / "data"]
    folder = next((f for f in folders if list(f.glob("MNIST/raw/train-images-idx3-ubyte*"))), None)
    if folder is None:
        pytest.skip("the real MNIST files are not on this machine")
    train = MnistDataLoader(str(folder), 64, validation_split=0.1, source="mnist")
    images, labels = tensors(train)
    assert images.shape == (60_000, 1, 28, 28)
    assert torch.bincount(labels).tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert math.isclose(images.double().mean().item(), 0, abs_tol=1e-3)
    assert math.isclose(images.double().std().item(), 1, abs_tol=1e-3)
    assert train.n_samples == 54_000
    images, labels = tensors(MnistDataLoader(str(folder), 64, training=False, source="mnist"))
    assert images.shape == (10_000, 1, 28, 28)
    assert torch.bincount(labels).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
