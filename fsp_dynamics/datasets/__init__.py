"""The images: found, fetched, verified, read and split. Nothing is searched or downloaded before a
function is called.

`digits` needs nothing (scikit-learn carries it); `mnist` and `fashion-mnist` are looked for in the
places that `registry` lists, then downloaded. Pixels are divided by their maximum (255; 16 for
digits); no mean is removed. Your own images come from arrays (`dataset_from_arrays`) or from files
(`read_dataset`): IDX files, an .npz, or a folder of pictures.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from fsp_dynamics.datasets.arrays import dataset_from_arrays, scaled, shape_of_images
from fsp_dynamics.datasets.digits import PARTS, Pixels, read_digits
from fsp_dynamics.datasets.files import read_dataset
from fsp_dynamics.datasets.idx import read_idx
from fsp_dynamics.datasets.records import Dataset, DatasetRecord, Split, check_count
from fsp_dynamics.datasets.registry import (
    SOURCES,
    Progress,
    fetch_published,
    find,
    other_formats,
    places_searched,
    read_all,
)
from fsp_dynamics.errors import ConfigurationError, DatasetError, check_choice, nearest

__all__ = [
    "DATASETS",
    "Dataset",
    "DatasetRecord",
    "Progress",
    "Split",
    "dataset_from_arrays",
    "fetch",
    "list_datasets",
    "load_dataset",
    "read_dataset",
    "read_idx",
]

DATASETS = {
    "digits": "1,797 handwritten digits, 8 x 8 pixels, 10 classes (bundled with scikit-learn)",
    "mnist": "70,000 handwritten digits, 28 x 28 pixels, 10 classes (LeCun, Cortes and Burges)",
    "fashion-mnist": "70,000 pictures of clothing, 28 x 28 pixels, 10 classes (Xiao, Rasul and Vollgraf, 2017)",
}


def load_dataset(
    name: str,
    *,
    data_dir: str | Path | None = None,
    validation: int | None = None,
    limit: int | None = None,
    download: bool = True,
) -> Dataset:
    """The data set `name`, one of `DATASETS`, split the same way every time.

    mnist, fashion-mnist : validation is the last 10,000 of the 60,000 training images, the test
    images are the published 10,000.
    digits : 1197 training, 200 validation and 400 test images, in a fixed shuffled order (raw
    PCG64 numbers of seed 0, which no NumPy release changes) in which the classes take turns, so
    that each part holds every class about equally often.

    Parameters
    ----------
    data_dir : where to look first, in place of ``$FSP_DATA``.
    validation : so many images from the end of the training images; 0 leaves `valid` empty.
    limit : keep only so many images, the first, of what is then left for training.
    download : whether missing files may be fetched; they go where `fetch` puts them.

    Raises ConfigurationError for an unknown name or an impossible number, before anything is read,
    DatasetError for files that are missing or damaged.
    """
    if name not in DATASETS:
        raise ConfigurationError(
            f"dataset = {str(name)!r} is unknown; {nearest(str(name), DATASETS)}; files of your own are read by "
            "fsp_dynamics.datasets.read_dataset"
        )
    total = sum(PARTS[:2]) if name == "digits" else SOURCES[name].files[0].shape[0]
    default = PARTS[1] if name == "digits" else total // 6
    validation = check_count("validation", default if validation is None else validation, 0, total - 1)
    keep = total - validation
    if limit is not None:
        keep = check_count("limit", limit, 1, keep)
    pixels = read_digits() if name == "digits" else _published(name, data_dir, download)
    start = total - validation
    return Dataset(
        name=name,
        classes=10,
        train=scaled(pixels.images[:keep], pixels.labels[:keep], pixels.top),
        valid=scaled(pixels.images[start:], pixels.labels[start:], pixels.top),
        test=scaled(pixels.test_images, pixels.test_labels, pixels.top),
        image_shape=shape_of_images(pixels.images.shape[1:]),
        source=pixels.source,
        digests=_digests(name, pixels),
    )


def list_datasets(data_dir: str | Path | None = None) -> list[DatasetRecord]:
    """One record for each of `DATASETS`; what is found is read and verified (a second or so).
    Nothing is downloaded.
    """
    records = []
    for name, description in DATASETS.items():
        count = sum(PARTS) if name == "digits" else sum(file.shape[0] for file in SOURCES[name].files[::2])
        where, problem = None, ""
        try:
            if name == "digits":
                where = read_digits().source
            elif (folder := find(name, data_dir)) is None:
                problem = "not found; " + places_searched(name, data_dir)
            else:
                where = str(folder)
                read_all(name, folder)
        except DatasetError as error:
            problem = str(error)
        records.append(DatasetRecord(name, description, where, count, where is not None and not problem, problem))
    return records


def fetch(name: str, data_dir: str | Path | None = None, progress: Progress = False) -> Path:
    """The folder (digits: the file) that holds `name`, verified, after downloading what is missing
    or damaged.

    Downloads go to ``data_dir/NAME``, or to the user's cache if that is None, in which case files
    found elsewhere are taken as they are.
    progress : True for a bar on stderr, or a callable that is given the file's name and the bytes
        received so far.

    Raises ConfigurationError for an unknown name, DatasetError if no mirror gives the files, or if
    files elsewhere than in the destination are damaged.
    """
    check_choice("dataset", name, DATASETS)
    return Path(read_digits().source) if name == "digits" else fetch_published(name, data_dir, progress)


def _published(name: str, data_dir: str | Path | None, download: bool) -> Pixels:
    """The verified images and labels, fetched if they must and may be. Raises DatasetError naming
    every place looked at.
    """
    folder = find(name, data_dir)
    if folder is None:
        searched, refusal = places_searched(name, data_dir), "download was not allowed"
        try:
            folder = fetch(name, data_dir) if download else None
        except DatasetError as error:
            refusal = str(error)
        if folder is None:
            wanted = ", ".join(file.name for file in SOURCES[name].files)
            raise DatasetError(
                f"{name} was not found; {searched}; {refusal}; "
                f"{other_formats(name, data_dir)}"
                f"put its {len(SOURCES[name].files)} IDX files ({wanted}; .gz or not) "
                f"into FOLDER/{name} and give --data-dir FOLDER or FSP_DATA=FOLDER, "
                f"or run `fsp data fetch {name}` where there is a network"
            )
    images, labels, test_images, test_labels = read_all(name, folder)
    return Pixels(images, labels, test_images, test_labels, 255, str(folder))


def _digests(name: str, pixels: Pixels) -> dict[str, str]:
    """SHA-256 by file: of the published IDX files, unpacked, or of the bytes of the digits."""
    if name in SOURCES:
        return {file.name: file.sha256 for file in SOURCES[name].files}
    digest = hashlib.sha256()
    for array in pixels[:4]:
        digest.update(array.tobytes())
    return {"digits": digest.hexdigest()}
