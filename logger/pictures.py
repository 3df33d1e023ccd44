"""Pictures in TensorBoard, and as PNG files."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

from PIL import Image
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary

from logger.canvas import png
from logger.event_file import EventFile
from utils.errors import writing_to
from utils.files import write_atomic

SUFFIX = ".test"


def picture(tag: str, image: Image.Image, data: bytes) -> Summary:
    """Return `image`, whose PNG file is `data`, as TensorBoard has it."""
    size = {"height": image.height, "width": image.width, "colorspace": len(image.getbands())}
    return Summary(value=[Summary.Value(tag=tag, image=Summary.Image(**size, encoded_image_string=data))])


def write_test_figures(folder: Path, figures: Mapping[str, Image.Image], step: int) -> None:
    """Write each of `figures` as `folder`/test_NAME.png and, in TensorBoard, as test/NAME of `step`; replace old ones.

    Their event file is in `folder`, not beside the run's: TensorBoard follows the newest file of a directory alone, and
    training may still write to its own. Raises RunDirError.
    """
    with writing_to(folder):
        old = list(folder.glob(f"events.out.tfevents.*{SUFFIX}"))
        events = EventFile(str(folder), filename_suffix=SUFFIX)
        for name, image in figures.items():
            data = png(image)
            write_atomic(folder / f"test_{name}.png", data)
            events.add_event(Event(step=step, wall_time=time.time(), summary=picture(f"test/{name}", image, data)))
        events.close()
        for path in old:
            path.unlink()
