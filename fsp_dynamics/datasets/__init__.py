"""The images: found, fetched, verified, read and split. Nothing is searched or downloaded before a
function is called.

`digits` needs nothing (scikit-learn carries it); the others are looked for in the places that
`registry` lists, then downloaded. Pixels are divided by their maximum (255; 16 for digits); no mean
is removed. Images are kept as float32 rows of all their pixels, four bytes each: 220 MB for mnist,
740 MB for cifar10 and cifar100 and 1.2 GB for svhn, the bytes they are read from beside them while
they are read. Your own images come from arrays (`dataset_from_arrays`) or from files
(`read_dataset`): IDX files, an .npz, or a folder of pictures.
"""

from __future__ import annotations

from pathlib import Path

from fsp_dynamics.datasets.arrays import dataset_from_arrays, scaled, shape_of_images
from fsp_dynamics.datasets.class_names import CLASS_NAMES
from fsp_dynamics.datasets.digits import PARTS, read_digits
from fsp_dynamics.datasets.downloads import Progress
from fsp_dynamics.datasets.files import read_dataset
from fsp_dynamics.datasets.idx import read_idx
from fsp_dynamics.datasets.published import Pixels
from fsp_dynamics.datasets.records import Dataset, DatasetRecord, Split, check_count
from fsp_dynamics.datasets.registry import SOURCES, fetch_published, find, other_formats, places_searched
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
    "cifar10": "60,000 photographs, 32 x 32 pixels in colour, 10 classes (Krizhevsky, 2009)",
    "cifar100": "60,000 photographs, 32 x 32 pixels in colour, 100 classes (Krizhevsky, 2009)",
    "svhn": "99,289 digits of house numbers, 32 x 32 pixels in colour, 10 classes (Netzer et al., 2011)",
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

    mnist, fashion-mnist, cifar10, cifar100, svhn : validation is the last sixth of the training
    images (10,000 of 60,000, 8,333 of 50,000, 12,209 of 73,257), the test images are the published
    ones. The pixels of a colour image lie plane after plane, R, G, B, each row by row.
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

    Returns
    -------
    Dataset : train, valid and test, images (B, n_in) float32 in [0, 1] and labels (B,) int64.

    >>> data = load_dataset("digits", limit=100)
    >>> data.train.images.shape, data.valid.labels.shape, data.image_shape
    ((100, 64), (200,), (8, 8))
    """
    if name not in DATASETS:
        raise ConfigurationError(
            f"dataset = {str(name)!r} is unknown; {nearest(str(name), DATASETS)}; files of your own are read by "
            "fsp_dynamics.datasets.read_dataset"
        )
    total = sum(PARTS[:2]) if name == "digits" else SOURCES[name].counts[0]
    default = PARTS[1] if name == "digits" else total // 6
    validation = check_count("validation", default if validation is None else validation, 0, total - 1)
    keep = total - validation
    if limit is not None:
        keep = check_count("limit", limit, 1, keep)
    pixels = read_digits() if name == "digits" else _published(name, data_dir, download)
    start = total - validation
    return Dataset(
        name=name,
        classes=10 if name == "digits" else SOURCES[name].classes,
        train=scaled(pixels.images[:keep], pixels.labels[:keep], pixels.top),
        valid=scaled(pixels.images[start:], pixels.labels[start:], pixels.top),
        test=scaled(pixels.test_images, pixels.test_labels, pixels.top),
        image_shape=shape_of_images(pixels.images.shape[1:]),
        source=pixels.source,
        digests=dict(pixels.digests),
        class_names=CLASS_NAMES.get(name, ()),
        notes=(pixels.unverified,) if pixels.unverified else (),
        top=pixels.top,
    )


def list_datasets(data_dir: str | Path | None = None) -> list[DatasetRecord]:
    """One record for each of `DATASETS`; what is found is verified (a second or so). Nothing is
    downloaded.

    Returns
    -------
    list of DatasetRecord : in the order of `DATASETS`.

    >>> [record.name for record in list_datasets()]
    ['digits', 'mnist', 'fashion-mnist', 'cifar10', 'cifar100', 'svhn']
    """
    records = []
    for name, description in DATASETS.items():
        count = sum(PARTS if name == "digits" else SOURCES[name].counts)
        where, problem = None, ""
        try:
            if name == "digits":
                where = read_digits().source
            elif (folder := find(name, data_dir)) is None:
                problem = "not found; " + places_searched(name, data_dir)
            else:
                where = str(folder)
                problem = SOURCES[name].verify(folder)
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

    Returns
    -------
    Path : the folder, or the file of the digits.

    >>> fetch("digits").name.startswith("digits")
    True
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
            raise DatasetError(
                f"{name} was not found; {searched}; {refusal}; "
                f"{other_formats(name, data_dir)}"
                f"put {SOURCES[name].wanted} into FOLDER/{name} and give --data-dir FOLDER or FSP_DATA=FOLDER, "
                f"or run `fsp data fetch {name}` where there is a network"
            )
    return SOURCES[name].read(folder)
