"""Pictures in class folders. Pillow reads them; it is imported when a picture is read."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fsp_dynamics.datasets.arrays import Part
from fsp_dynamics.errors import DatasetError

SUFFIXES = {
    ".png": "PNG",
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".bmp": "BMP",
    ".pgm": "PPM",
    ".tif": "TIFF",
    ".tiff": "TIFF",
}
PART_FOLDERS = {"train": ("train", "training"), "valid": ("valid", "val", "validation"), "test": ("test", "testing")}
IGNORED = ("Thumbs.db", "desktop.ini")  # and what is hidden: file managers leave them
LARGEST_FILE = 1 << 26  # bytes
GREY = ("L", "1")
COLOURED = ("RGB", "P", "CMYK", "YCbCr")


class Pictures(NamedTuple):
    """What a folder holds: parts (images uint8 (B, h, w)), digests by part, class names, notes."""

    train: Part
    valid: Part | None
    test: Part | None
    digests: dict[str, str]
    class_names: tuple[str, ...]
    notes: tuple[str, ...]


def has_class_folders(folder: Path) -> bool:
    """Whether there is any folder in it."""
    return any(path.is_dir() for path in _shown(folder))


def read_pictures(folder: Path, largest: int) -> Pictures:
    """The pictures below `folder`, of at most `largest` bytes in all once unpacked. Raises
    DatasetError.
    """
    roots = _part_folders(folder)
    class_names = _class_names(roots["train"])
    files: dict[str, list[tuple[Path, int]]] = {}
    for part, root in roots.items():
        found = _class_names(root)
        unknown = [name for name in found if name not in class_names]
        if unknown:
            raise DatasetError(
                f"{root / unknown[0]}: a class without training images, expected one of those of 'train'"
            )
        files[part] = [
            (file, label) for label, name in enumerate(class_names) if name in found for file in _files(root / name)
        ]
    size = _size_of(files["train"][0][0])
    total = sum(map(len, files.values()))
    if total * size[0] * size[1] > largest:
        raise DatasetError(
            f"{folder}: {total} pictures of {size[0]} x {size[1]} pixels are more than {largest} bytes; "
            "use smaller or fewer pictures"
        )
    parts: dict[str, Part] = {}
    digests, coloured = {}, 0
    for part, members in files.items():
        parts[part], digests[roots[part].name], in_part = _part(members, size, roots[part])
        coloured += in_part
    notes = (f"{coloured} of {total} pictures are in colour and were turned into grey",) if coloured else ()
    return Pictures(parts["train"], parts.get("valid"), parts.get("test"), digests, class_names, notes)


def _part_folders(folder: Path) -> dict[str, Path]:
    """The folder of each part that there is; the folder itself if it holds the classes."""
    roots: dict[str, Path] = {}
    for part, names in PART_FOLDERS.items():
        found = [folder / name for name in names if (folder / name).is_dir()]
        if len(found) > 1:
            raise DatasetError(f"{folder}: holds {' and '.join(path.name for path in found)}, expected one of them")
        if found:
            roots[part] = found[0]
    if "train" not in roots:
        return {"train": folder}
    others = [path.name for path in _shown(folder) if path.is_dir() and path not in roots.values()]
    if others:
        raise DatasetError(f"{folder / others[0]}: stands beside train, expected test or valid; move it elsewhere")
    return roots


def _class_names(root: Path) -> tuple[str, ...]:
    """The class folders: by number if all are numbers, else by name."""
    names = []
    for path in _shown(root):
        if path.is_dir():
            names.append(path.name)
        elif path.suffix.lower() in SUFFIXES:
            raise DatasetError(f"{path}: a picture outside the class folders; put it into the folder of its class")
    if not names:
        raise DatasetError(f"{root}: holds no class folders; expected one for each class, with its pictures")
    numbers = all(name.isascii() and name.isdigit() for name in names)
    return tuple(sorted(names, key=lambda name: (int(name) if numbers else 0, name)))


def _files(folder: Path) -> list[Path]:
    """The pictures of a class, by name. Raises DatasetError for anything else that lies there."""
    found = sorted(_shown(folder))
    for path in found:
        if path.suffix.lower() not in SUFFIXES or not path.is_file():
            raise DatasetError(f"{path}: expected a picture ({', '.join(SUFFIXES)}); move it elsewhere")
    if not found:
        raise DatasetError(f"{folder}: holds no pictures; fill or remove it")
    return found


def _shown(folder: Path) -> Iterator[Path]:
    return (path for path in folder.iterdir() if not path.name.startswith(".") and path.name not in IGNORED)


def _part(members: list[tuple[Path, int]], size: tuple[int, int], root: Path) -> tuple[Part, str, int]:
    """The pictures and labels of a part, the digest of its list of files, and how many are in
    colour.
    """
    images = np.empty((len(members), *size), np.uint8)
    lines, coloured = [], 0
    for row, (file, _) in enumerate(members):
        images[row], in_colour, digest = _picture(file, size)
        coloured += in_colour
        lines.append((file.relative_to(root).as_posix(), digest))
    listing = "".join(f"{digest}  {name}\n" for name, digest in sorted(lines))
    labels = np.array([label for _, label in members], np.int64)
    return Part(images, labels), hashlib.sha256(listing.encode()).hexdigest(), coloured


def _size_of(file: Path) -> tuple[int, int]:
    """(h, w) of a picture, from its header."""
    with _opened(file, _content(file)) as picture:
        return picture.height, picture.width


def _picture(file: Path, size: tuple[int, int]) -> tuple[npt.NDArray[np.uint8], bool, str]:
    """The grey values (h, w), whether there were colours, and the SHA-256 of the file."""
    content = _content(file)
    with _opened(file, content) as picture:
        if (picture.height, picture.width) != size:
            raise DatasetError(
                f"{file}: {picture.height} x {picture.width} pixels, "
                f"expected {size[0]} x {size[1]} as the first picture; bring all pictures to one size"
            )
        if picture.mode not in GREY + COLOURED or "transparency" in picture.info:
            raise DatasetError(
                f"{file}: mode {picture.mode}, expected grey or colours of 8 bits without transparency; save it so"
            )
        try:
            grey, coloured = _grey(picture)
        except (OSError, ValueError, SyntaxError) as error:
            raise DatasetError(f"{file}: damaged picture ({error}); put the undamaged file in its place") from error
    return grey, coloured, hashlib.sha256(content).hexdigest()


def _grey(picture: Any) -> tuple[npt.NDArray[np.uint8], bool]:
    """The grey values, and whether the picture has colours, of which the luma is taken."""
    grey = np.asarray(picture.convert("L"))
    if picture.mode in GREY:
        return grey, False
    channels = np.asarray(picture.convert("RGB"))
    if (channels == channels[..., :1]).all():
        return channels[..., 0], False
    return grey, True


def _content(file: Path) -> bytes:
    size = file.stat().st_size
    if size > LARGEST_FILE:
        raise DatasetError(f"{file}: {size} bytes long, expected a picture of at most {LARGEST_FILE}")
    return file.read_bytes()


def _opened(file: Path, content: bytes) -> Any:
    """The picture, whose header has been read. Raises DatasetError."""
    try:
        from PIL import Image
    except ModuleNotFoundError:
        raise DatasetError(f"{file}: pictures are read by Pillow, which is not installed; pip install pillow") from None
    try:
        return Image.open(io.BytesIO(content), formats=[SUFFIXES[file.suffix.lower()]])
    except Image.UnidentifiedImageError as error:
        raise DatasetError(
            f"{file}: does not hold the format of its suffix, or is damaged; put the undamaged file in its place"
        ) from error
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DatasetError(f"{file}: cannot be read as a picture ({error}); put another in its place") from error
