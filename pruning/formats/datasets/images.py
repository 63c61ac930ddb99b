"""A folder or zip of pictures by class: `cats/1.jpg`, `dogs/2.png`; or `train/cats/1.jpg`.

Nothing is unpacked: one picture at a time is read into memory, judged by the size that its header
gives, decoded and written as raw numbers.
"""

from __future__ import annotations

import io
import os
import stat
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, UnidentifiedImageError

from pruning.errors import FileRefused
from pruning.formats import limits
from pruning.formats.datasets.writer import Writer, Written, capped, counted, finish, judge_classes

ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".ppm", ".pgm", ".pnm")
KINDS = ("PNG", "JPEG", "BMP", "GIF", "WEBP", "PPM")
"""Of Pillow's readers those that people have pictures in: each more would be a risk more."""

PARTS = {
    "train": 0,
    "training": 0,
    "val": 1,
    "valid": 1,
    "validation": 1,
    "test": 2,
    "testing": 2,
}
"""Folder that divides the examples -> 0, 1, 2 for train, validation, test."""

GREY = ("1", "L", "I;16", "I", "F", "LA")
NAMED = 3  # files that a note names
LONGEST_PATH = 1000


@dataclass(frozen=True)
class File:
    """One file of a folder or zip. read: at most so many of its bytes."""

    path: PurePosixPath
    read: Callable[[int], bytes]


@dataclass(frozen=True)
class Picture:
    """A picture that is an example: its file, class and part."""

    file: File
    label: str
    part: int | None


# ---------------------------------------------------------------- folders and zips


def of_folder(folder: Path) -> tuple[list[File], list[str]]:
    """Its files, in the order of their names; notes on what is passed over."""
    files: list[File] = []
    links = 0
    for place, inner, names in os.walk(folder):
        inner.sort()
        # A link may lead anywhere, and in circles.
        links += sum(os.path.islink(os.path.join(place, name)) for name in inner)
        for name in sorted(names):
            path = Path(place) / name
            if not stat.S_ISREG(path.lstat().st_mode):
                links += 1
                continue
            inside = PurePosixPath(path.relative_to(folder).as_posix())
            files.append(File(inside, partial(_bytes_of, path)))
            _judge_count(len(files))
    return files, _links(links)


def _bytes_of(path: Path, most: int) -> bytes:
    with path.open("rb") as file:
        return file.read(most)


def of_zip(opened: zipfile.ZipFile) -> tuple[list[File], list[str]]:
    """Its members; notes on what is passed over. Raises FileRefused for what leads elsewhere."""
    files: list[File] = []
    links = 0
    infos = opened.infolist()
    _judge_count(len(infos))
    for info in infos:
        _judge_name(info)
        if info.flag_bits & 0x1:
            raise FileRefused("is an encrypted zip file: zip it again without a password.")
        if info.is_dir():
            continue
        if stat.S_ISLNK(info.external_attr >> 16):
            links += 1
            continue
        files.append(File(PurePosixPath(info.filename), partial(_member, opened, info)))
    return sorted(files, key=lambda file: file.path), _links(links)


def _judge_name(info: zipfile.ZipInfo) -> None:
    path = PurePosixPath(info.filename)
    # The original name too: zipfile cuts names at a NUL, and turns backslashes on Windows.
    odd = "\\" in info.orig_filename or "\x00" in info.orig_filename
    long = len(info.filename) > LONGEST_PATH
    if odd or long or path.is_absolute() or ".." in path.parts:
        raise FileRefused(
            f"is a zip file with paths in it that lead elsewhere ({capped(info.filename)!r}): "
            "zip the folder of classes itself."
        )


def _member(opened: zipfile.ZipFile, info: zipfile.ZipInfo, most: int) -> bytes:
    # What the directory says of a member's size is a claim: reading ends at the limit.
    with opened.open(info) as file:
        return file.read(most)


def _judge_count(files: int) -> None:
    if files > limits.PICTURES:
        raise FileRefused(
            f"has more than the {limits.PICTURES:,} files that are read: bring fewer examples."
        )


def _links(count: int) -> list[str]:
    if not count:
        return []
    links = counted(count, "link")
    return [f"Passed over: {links}. Only plain files are read."]


# ---------------------------------------------------------------- by class


def classified(files: list[File]) -> tuple[list[Picture], list[str]]:
    """The pictures among the files with their classes; notes on other files.

    Raises FileRefused where the pictures are in no folders by class.
    """
    visible = [file for file in files if not any(_hidden(part) for part in file.path.parts)]
    pictures = [file for file in visible if file.path.suffix.lower() in ENDINGS]
    others = len(visible) - len(pictures)
    if not pictures:
        raise FileRefused(
            "holds no pictures by class, no .npy arrays and no idx files: put the pictures of each "
            "class into a folder named after it (PNG, JPEG, WebP, BMP, GIF or PPM)."
        )
    root = _root(pictures)
    below = [PurePosixPath(*file.path.parts[root:]) for file in pictures]
    divided = all(path.parts[0].lower() in PARTS for path in below) and len(below[0].parts) > 2
    classes = []
    for file, path in zip(pictures, below, strict=True):
        folders = path.parts[1:-1] if divided else path.parts[:-1]
        if not folders:
            raise FileRefused(
                f"has {capped(str(file.path))!r} beside folders or without one, so that its class "
                "is not known: put the pictures of each class into a folder named after it."
            )
        part = PARTS[path.parts[0].lower()] if divided else None
        classes.append(Picture(file, folders[0], part))
    notes = [f"Passed over, being no picture: {counted(others, 'file')}."] if others else []
    return classes, notes


def _hidden(name: str) -> bool:
    return name.startswith(".") or name == "__MACOSX"


def _root(pictures: list[File]) -> int:
    """How many folders around all pictures say nothing: a zip has its own name in it, mostly."""
    depth = 0
    while True:
        firsts = {file.path.parts[depth] for file in pictures if len(file.path.parts) > depth + 1}
        whole = all(len(file.path.parts) > depth + 2 for file in pictures)
        # "train" alone divides nothing; it is a folder around all, too.
        if len(firsts) != 1 or not whole:
            return depth
        depth += 1


# ---------------------------------------------------------------- decoding


def read(pictures: list[Picture], notes: list[str], folder: Path, most: int) -> Written:
    """Decode all pictures to one size, and write them. Raises FileRefused."""
    Image.MAX_IMAGE_PIXELS = None  # ours is asked before anything is decoded
    ImageFile.LOAD_TRUNCATED_IMAGES = False
    sizes, modes = _headers(pictures)
    if not sizes:
        raise FileRefused(
            f"has {len(pictures):,} files called pictures, and none could be read: "
            "save them as PNG or JPEG."
        )
    wide, high = _common_size(list(sizes.values()))
    if len(set(sizes.values())) > 1:
        notes.append(
            f"Pictures of different sizes were scaled and cut to {wide} × {high} around their "
            "middle."
        )
    channels = 1 if modes <= set(GREY) else 3
    if channels == 3 and modes & set(GREY):
        notes.append("Grey pictures among those in colour were given three equal channels.")
    writer = Writer(folder, (channels, high, wide), "uint8", most)
    labels: list[str] = []
    parts: list[int | None] = []
    broken: list[str] = []
    for picture in pictures:
        values = _decoded(picture.file, (wide, high), channels)
        if values is None:
            broken.append(str(picture.file.path))
            continue
        writer.write(values[None])
        labels.append(picture.label)
        parts.append(picture.part)
    writer.close()
    notes += _broken_note(broken, len(pictures))
    classes = sorted(set(labels))
    index = {name: number for number, name in enumerate(classes)}
    targets = np.array([index[label] for label in labels], np.int64)
    judge_classes(classes, targets)
    divided = None if parts[0] is None else np.array(parts)
    finish(folder, targets, divided)
    names = [capped(name) for name in classes]
    return Written("images", writer.shape, "uint8", writer.examples, names, notes)


def _headers(pictures: list[Picture]) -> tuple[dict[int, tuple[int, int]], set[str]]:
    """Number of each readable picture -> (wide, high); which colour modes there are."""
    sizes: dict[int, tuple[int, int]] = {}
    modes: set[str] = set()
    for number, picture in enumerate(pictures):
        for opened in _opened(picture.file):
            sizes[number] = opened.size
            modes.add("RGB" if opened.mode == "P" else opened.mode)
    return sizes, modes


def _opened(file: File) -> Iterator[Image.Image]:
    """The picture, its header read and its pixels not yet; nothing where it is none."""
    try:
        content = file.read(limits.ONE_PICTURE + 1)
        if len(content) > limits.ONE_PICTURE:
            return
        with Image.open(io.BytesIO(content), formats=KINDS) as opened:
            wide, high = opened.size
            # A few bytes may claim any size: nothing is decoded before that is judged.
            if 0 < wide * high <= limits.PIXELS:
                yield opened
    except MemoryError:
        return
    # Pillow's readers raise whatever a broken file provokes (SyntaxError, struct.error, OSError).
    except (UnidentifiedImageError, Exception):
        return


def _common_size(sizes: list[tuple[int, int]]) -> tuple[int, int]:
    """(wide, high) that all are brought to: their own where it is one and small, else a square."""
    if len(set(sizes)) == 1 and max(sizes[0]) <= limits.SIDE:
        return sizes[0]
    side = int(np.median([min(size) for size in sizes]))
    return (min(side, limits.SIDE),) * 2


def _decoded(file: File, size: tuple[int, int], channels: int) -> NDArray[Any] | None:
    """(channels, high, wide) uint8; None where it cannot be read."""
    try:
        for opened in _opened(file):
            return _pixels(opened, size, channels)
    # Half a picture has a sound header: only its pixels tell, and Pillow raises what it likes.
    except Exception:
        return None
    return None


def _pixels(opened: Image.Image, size: tuple[int, int], channels: int) -> NDArray[Any]:
    # A camera's JPEG is decoded at a fraction of its size, where that is all that is wanted.
    opened.draft(None, (2 * size[0], 2 * size[1]))
    image: Image.Image = opened
    if opened.mode in ("I;16", "I", "F"):
        image = Image.fromarray(_to_bytes(np.asarray(opened)))
    elif opened.mode in ("RGBA", "LA", "PA") or "transparency" in opened.info:
        # What is transparent is shown on white nearly everywhere.
        flat = opened.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", flat.size, "white"), flat)
    image = image.convert("L" if channels == 1 else "RGB")
    image = _cut(image, size)
    values = np.asarray(image, np.uint8)
    return values[None] if channels == 1 else np.ascontiguousarray(values.transpose(2, 0, 1))


def _to_bytes(values: NDArray[Any]) -> NDArray[np.uint8]:
    """16-bit and other pixels, from their range to 0 to 255."""
    numbers = values.astype(np.float32)
    top = 65535.0 if numbers.max() > 255 else 255.0
    return (numbers * (255.0 / top)).clip(0, 255).astype(np.uint8)


def _cut(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """Scaled until it just covers the size, then cut around the middle."""
    if image.size == size:
        return image
    scale = max(size[0] / image.width, size[1] / image.height)
    covering = (
        max(size[0], round(image.width * scale)),
        max(size[1], round(image.height * scale)),
    )
    image = image.resize(covering, Image.Resampling.BILINEAR)
    x, y = (covering[0] - size[0]) // 2, (covering[1] - size[1]) // 2
    return image.crop((x, y, x + size[0], y + size[1]))


def _broken_note(broken: list[str], of: int) -> list[str]:
    """Raises FileRefused where most are broken: then it is not what its owner thinks."""
    if not broken:
        return []
    some = ", ".join(capped(name) for name in broken[:NAMED])
    more = f" and {len(broken) - NAMED:,} more" if len(broken) > NAMED else ""
    if 2 * len(broken) > of:
        raise FileRefused(
            f"has {len(broken):,} of {of:,} pictures that cannot be read ({some}{more}): "
            "save them again as PNG or JPEG."
        )
    return [f"Passed over, being unreadable: {some}{more}."]
