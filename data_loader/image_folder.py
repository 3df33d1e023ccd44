"""Images from directories, one for each class."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import torch
from annotated_types import Interval
from torch import Tensor, nn

from base import BaseDataLoader, BatchDataset, NewInputs, TransformedBatches
from data_loader.samplers import SamplerArg, drawing
from images.batches import DecodedImages, ImageBatches, MappedImages
from images.cache import identity, whole_images
from images.files import ImageFiles, find_images, share_of
from images.new_images import NewImages
from utils import ConfigError, DataError
from utils.annotations import MAY_CHANGE, BatchSize, DataPath, NumWorkers

Fraction = Annotated[float, Interval(ge=0, lt=1)]
Side = Annotated[int, Interval(ge=1, le=1 << 14)]
WHERE = "data_loader.args"
TRAIN, VALID, TEST = range(3)


class ImageFolderDataLoader(BaseDataLoader):
    """Batches of images (N, channels, H, W) float32 in [0, 1], and labels (N,) int64.

    `path` has a directory for each class; or it has train/ with these in it, and optionally val/ and test/. Without
    val/ (or test/), `validation_split` (or `test_split`) of the training images is held out, by a hash of each name:
    adding a file later moves no other. Classes are the sorted names of the directories.

    An image is turned as its EXIF data says, scaled to cover `size` (a number, or [height, width]) and cropped evenly;
    16 bits become 8. With `cache` all images are decoded once, into a file in `cache_dir`, which is mapped. Workers
    persist between epochs.

    Training images go through `train_transform`, those of validation and test through `valid_transform`, one by one,
    as (channels, H, W) uint8. Integers that come out are scaled to [0, 1], floats are left as they are.
    """

    def __init__(
        self,
        path: DataPath,
        batch_size: BatchSize,
        shuffle: bool = True,
        validation_split: Fraction = 0.0,
        num_workers: NumWorkers = 0,
        training: bool = True,
        *,
        size: Side | tuple[Side, Side],
        channels: Literal[1, 3, 4] = 3,
        test_split: Fraction = 0.0,
        train_transform: Sequence[nn.Module] = (),
        valid_transform: Sequence[nn.Module] = (),
        sampler: SamplerArg | None = None,
        skip_damaged: bool = False,
        cache: Annotated[bool, MAY_CHANGE] = False,
        cache_dir: DataPath = "saved/.cache/",
    ) -> None:
        """Find the images. With `cache` or `skip_damaged` all are decoded now, unless they were before.

        Raises ConfigError where the splits make no sense; DataError where a class is missing, and with a line for each
        damaged image: of all now with `cache`, else of a batch when it is read. `skip_damaged` leaves them out.
        """
        read = partial(_Images, size=size, channels=channels, cache_dir=cache_dir, skip=skip_damaged, keep=cache)
        images, valid, splits = _read(Path(path), read, training, validation_split, test_split)
        self.class_names, self.num_classes = images.files.class_names, len(images.files.class_names)
        plain = images.batches(valid_transform, "valid_transform")
        dataset = images.batches(train_transform, "train_transform") if training else plain
        super().__init__(
            *(dataset, batch_size, shuffle, 0, num_workers),
            training=training,
            valid_dataset=plain,
            validation_set=valid.batches(valid_transform, "valid_transform") if valid else None,
            sampler=drawing(sampler, images.labels),
            keep_workers=True,
            **splits,
        )

    def facts(self) -> dict[str, Any]:
        """Return the number and the names of the classes."""
        return {"num_classes": self.num_classes, "class_names": self.class_names}

    @classmethod
    def new_inputs(cls, args: Mapping[str, Any], facts: Mapping[str, Any]) -> NewInputs:
        """Return what reads new images, in files or in memory, exactly as those of validation and test."""
        return NewImages(_sides(args["size"]), args.get("channels", 3), _scaled, args.get("valid_transform", ()))


def _read(
    path: Path, read: Callable[[ImageFiles], _Images], training: bool, validation_split: float, test_split: float
) -> tuple[_Images, _Images | None, dict[str, Any]]:
    """Return the images, those of val/, and the arguments that split the first. Raises ConfigError, DataError."""
    roots = _roots(path, validation_split, test_split)
    files = find_images(roots.train)
    if not training and roots.test is not None:
        return read(find_images(roots.test, files.class_names)), None, {}
    if not training and not test_split:
        raise DataError(f"{path}: has no test/, and {WHERE}.test_split is 0: there is no test split to evaluate on")
    images = read(files)
    parts = torch.tensor([_part(name, validation_split, test_split) for name in images.files.names])
    wanted = {TRAIN: "train on"} | ({VALID: "validate on"} if validation_split else {})
    for part, purpose in (wanted if training else {TEST: "test on"}).items():
        if not bool((parts == part).any()):
            raise ConfigError(f"{WHERE}: the split of {len(parts)} images by their names leaves none to {purpose}")
    splits = {"indices": (parts == (TRAIN if training else TEST)).nonzero().flatten()}
    if training and validation_split:
        splits["valid_indices"] = (parts == VALID).nonzero().flatten()
    valid = read(find_images(roots.valid, files.class_names)) if training and roots.valid else None
    return images, valid, splits


class _Roots(NamedTuple):
    train: Path
    valid: Path | None  # None: a part of the training images
    test: Path | None


def _roots(path: Path, validation_split: float, test_split: float) -> _Roots:
    """Return the directories of the splits. Raises ConfigError if one has both a directory and a fraction."""
    if not (path / "train").is_dir():
        return _Roots(path, None, None)
    valid, test = (path / name if (path / name).is_dir() else None for name in ("val", "test"))
    for folder, fraction, name in ((valid, validation_split, "validation_split"), (test, test_split, "test_split")):
        if folder is not None and fraction:
            raise ConfigError(f"{WHERE}.{name}: {fraction}, but {folder} is that split; give 0")
    return _Roots(path / "train", valid, test)


def _part(name: str, validation_split: float, test_split: float) -> int:
    share = share_of(name)
    return TEST if share < test_split else VALID if share < test_split + validation_split else TRAIN


class _Images:
    """The undamaged images among `files`, to be decoded or in the cache."""

    def __init__(
        self,
        files: ImageFiles,
        size: int | tuple[int, int],
        channels: int,
        cache_dir: str,
        skip: bool,
        keep: bool,
    ) -> None:
        sides = _sides(size)
        kept = None
        if keep or skip:
            files, kept = whole_images(files, sides, channels, Path(cache_dir), skip_damaged=skip, keep=keep)
        self.files = files
        self.labels = torch.tensor(files.labels)
        self.identity = identity(files, sides, channels, with_times=False)
        self.images: DecodedImages | MappedImages = DecodedImages(files, sides, channels)
        if kept is not None:
            self.images = MappedImages(*kept)

    def batches(self, transforms: Sequence[nn.Module], name: str) -> BatchDataset:
        """Return them through `transforms`, the argument `name`, as float32."""
        if not transforms:
            return ImageBatches(self.images, self.labels, self.identity, _scaled)
        plain = ImageBatches(self.images, self.labels, self.identity)
        return TransformedBatches(plain, transforms, f"{WHERE}.{name}", finish=_scaled)


def _sides(size: int | tuple[int, int]) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else (size[0], size[1])


def _scaled(images: Tensor) -> Tensor:
    """Return floats as they are, and uint8 as float32 in [0, 1]."""
    return images if images.is_floating_point() else images.float().div_(255)
