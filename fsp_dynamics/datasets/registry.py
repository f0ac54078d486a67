"""Where the published files are: known folders, the user's cache, mirrors.

Looked for in this order: ``data_dir`` (else ``$FSP_DATA``), in the folders that the set names
(`IdxSet.below`, `CifarSet.below`, `SvhnSet.below`); the user's cache;
``/usr/share/datasets/fashion-mnist`` (Debian's dataset-fashion-mnist).
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from fsp_dynamics.datasets.cifar import CifarSet, Records
from fsp_dynamics.datasets.downloads import Progress
from fsp_dynamics.datasets.idx_sets import mnist_like
from fsp_dynamics.datasets.published import Pinned, Published
from fsp_dynamics.datasets.svhn import SvhnSet
from fsp_dynamics.errors import DatasetError
from fsp_dynamics.folders import NO_HOME, expanded, user_cache

TORONTO = "https://www.cs.toronto.edu/~kriz/"
SOURCES: dict[str, Published] = {
    "mnist": mnist_like(
        "mnist",
        "MNIST",
        (),
        ("https://ossci-datasets.s3.amazonaws.com/mnist/", "https://storage.googleapis.com/cvdf-datasets/mnist/"),
        "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
        "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
        "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
        "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
    ),
    "fashion-mnist": mnist_like(
        "fashion-mnist",
        "FashionMNIST",
        ("/usr/share/datasets/fashion-mnist",),
        (
            "https://fashion-mnist.s3.eu-central-1.amazonaws.com/",
            "https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion/",
            "https://storage.googleapis.com/tensorflow/tf-keras-datasets/",
        ),
        "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
        "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
        "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
        "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
    ),
    "cifar10": CifarSet(
        "cifar10",
        Pinned(
            "cifar-10-binary.tar.gz",
            170_052_171,
            "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
        ),
        "cifar-10-batches-bin",
        (TORONTO, "https://storage.googleapis.com/s4tf-hosted-binaries/datasets/CIFAR10/"),
        tuple(Records(f"data_batch_{k}.bin", 10_000) for k in range(1, 6)),
        Records("test_batch.bin", 10_000),
        labels=1,
        classes=10,
        others=("cifar-10-python.tar.gz", "cifar-10-batches-py", "cifar-10-matlab.tar.gz", "cifar-10-batches-mat"),
    ),
    "cifar100": CifarSet(
        "cifar100",
        Pinned(
            "cifar-100-binary.tar.gz",
            168_513_733,
            "58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec",
        ),
        "cifar-100-binary",
        (TORONTO,),
        (Records("train.bin", 50_000),),
        Records("test.bin", 10_000),
        labels=2,
        classes=100,
        others=("cifar-100-python.tar.gz", "cifar-100-python", "cifar-100-matlab.tar.gz", "cifar-100-matlab"),
    ),
    "svhn": SvhnSet(
        "svhn",
        (
            Pinned(
                "train_32x32.mat",
                182_040_794,
                "435e94d69a87fde4fd4d7f3dd208dfc32cb6ae8af2240d066de1df7508d083b8",
            ),
            Pinned(
                "test_32x32.mat",
                64_275_384,
                "cdce80dfb2a2c4c6160906d0bd7c68ec5a99d7ca4831afa54f09182025b6a75b",
            ),
        ),
        ("https://ufldl.stanford.edu/housenumbers/",),
        (73_257, 26_032),
    ),
}


def fetch_published(name: str, data_dir: str | Path | None, progress: Progress) -> Path:
    """`fetch` for a name among `SOURCES`."""
    destination = _destination(data_dir) / name
    found = find(name, data_dir)
    if found is not None and found != destination and (data_dir is None or found.is_relative_to(destination.parent)):
        SOURCES[name].verify(found)
        return found
    new_folders = [folder for folder in (destination, *destination.parents) if not os.path.exists(folder)]
    try:
        destination.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DatasetError(
            f"{destination}: cannot be made ({error.strerror}); name a folder you may write to (--data-dir)"
        ) from error
    if not os.access(destination, os.W_OK):
        raise DatasetError(f"{destination}: may not be written to; name a folder you may write to (--data-dir)")
    try:
        SOURCES[name].complete(destination, progress)
    except BaseException:
        for folder in new_folders:
            with contextlib.suppress(OSError):  # not empty
                folder.rmdir()
        raise
    return destination


def _destination(data_dir: str | Path | None) -> Path:
    """The folder below which files are put. Raises DatasetError where none was named and there is
    no home folder.
    """
    folder = _cache() if data_dir is None else expanded(data_dir, "data_dir")
    if folder is None:
        raise DatasetError(f"{NO_HOME}, so data have no place of their own; name a folder (--data-dir)")
    return folder


def find(name: str, data_dir: str | Path | None) -> Path | None:
    """The first folder that has every file of `name`, not yet verified."""
    return next((place for place in _places(name, data_dir) if not SOURCES[name].lacking(place)), None)


def places_searched(name: str, data_dir: str | Path | None) -> str:
    """Every place and what is wrong with it, for a message."""
    places = []
    for place in _places(name, data_dir):
        what = f"lacks {SOURCES[name].lacking(place)}" if os.path.isdir(place) else "no such folder"
        places.append(f"{place} ({what})")
    missing = [] if data_dir or os.environ.get("FSP_DATA") else ["FSP_DATA is not set"]
    missing += [] if _cache() else ["there is no home folder"]
    remark = f" ({', '.join(missing)})" if missing else ""
    return f"looked in {', '.join(places) or 'no folder'}{remark}"


def _places(name: str, data_dir: str | Path | None) -> Iterator[Path]:
    """The folders to look in, in order. Raises ConfigurationError for a tilde without a home."""
    source, root = SOURCES[name], data_dir or os.environ.get("FSP_DATA")
    if root:
        yield from source.below(expanded(root, "data_dir" if data_dir else "FSP_DATA"))
    own = _cache()
    if own is not None:
        yield own / name
    yield from map(Path, source.system)


def other_formats(name: str, data_dir: str | Path | None) -> str:
    """What lies in the data folder under a name of the set but in another format, for a message."""
    root = data_dir or os.environ.get("FSP_DATA")
    if not root:
        return ""
    below, found = expanded(root, "data_dir" if data_dir else "FSP_DATA"), []
    for folder in dict.fromkeys((below, *SOURCES[name].below(below))):
        with contextlib.suppress(OSError):
            found += [
                folder / each for each in sorted(os.listdir(folder)) if SOURCES[name].is_other(each, folder == below)
            ]
    return f"{found[0]} is of another format; " if found else ""


def _cache() -> Path | None:
    """The user's cache folder of this package; it may not exist yet, or not at all."""
    return user_cache()
