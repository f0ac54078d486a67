"""Data are found in the promised order, fetched where they lack, and never used unverified."""

from __future__ import annotations

import dataclasses
import gzip
import io
import os
import re
import socket
import time

import numpy as np
import pytest
import requests
from small_data import CONTENTS, IMAGES, NAMES, REAL_SOURCES, check_small, files_below, write

from fsp_dynamics.datasets import DATASETS, downloads, fetch, list_datasets, load_dataset, read_dataset
from fsp_dynamics.datasets import registry as sources
from fsp_dynamics.datasets.cifar import CifarSet
from fsp_dynamics.datasets.registry import SOURCES
from fsp_dynamics.errors import ConfigurationError, DatasetError

PUBLISHED = pytest.mark.parametrize("name", ["mnist", "fashion-mnist"])
REAL_CACHE = sources._cache
REAL_ROOT = os.environ.get("FSP_DATA")

# Where data are found


@PUBLISHED
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("by", ["argument", "environment"])
def test_named_folders_are_found(world, monkeypatch, name, packed, by) -> None:
    for folder in (name, {"mnist": "MNIST/raw", "fashion-mnist": "FashionMNIST/raw"}[name]):
        root = world / "data" / folder.replace("/", "-")
        place = write(root / folder, packed)
        if by == "environment":
            monkeypatch.setenv("FSP_DATA", str(root))
        data = load_dataset(name, data_dir=root if by == "argument" else None, download=False)
        assert data.source == str(place)
        check_small(data)


def test_the_order_of_search(world, monkeypatch) -> None:
    """Each place wins over those after it, and an incomplete folder is passed over."""

    def source() -> str:
        return load_dataset("fashion-mnist", data_dir=data_dir, download=False).source

    data_dir = None
    last = write(world / "system")
    assert source() == str(last)
    cached = write(world / "cache" / "fashion-mnist")
    assert source() == str(cached)
    monkeypatch.setenv("FSP_DATA", str(world / "env"))
    torchvision = write(world / "env" / "FashionMNIST" / "raw")
    assert source() == str(torchvision)
    named = write(world / "env" / "fashion-mnist")
    assert source() == str(named)
    data_dir = world / "option"
    assert source() == str(cached)  # the option stands in place of the variable
    asked = write(data_dir / "fashion-mnist")
    assert source() == str(asked)
    (asked / NAMES[3]).unlink()
    assert source() == str(cached)


def test_every_place_and_the_remedy_are_told(world, monkeypatch) -> None:
    write(world / "env" / "FashionMNIST" / "raw")
    (world / "env" / "FashionMNIST" / "raw" / NAMES[2]).unlink()
    monkeypatch.setenv("FSP_DATA", str(world / "env"))
    with pytest.raises(DatasetError) as caught:
        load_dataset("fashion-mnist", download=False)
    message = str(caught.value)
    for place in (
        "env/fashion-mnist (no such",
        f"env/FashionMNIST/raw (lacks {NAMES[2]})",
        "cache/fashion-mnist (no such",
        "system (no such",
    ):
        assert str(world / place) in message
    for told in ("download was not allowed", "FSP_DATA=FOLDER", "--data-dir", "fsp data fetch fashion-mnist"):
        assert told in message
    assert "\n" not in message
    monkeypatch.delenv("FSP_DATA")
    with pytest.raises(DatasetError, match="FSP_DATA is not set"):
        load_dataset("mnist")


@pytest.mark.parametrize("packed", [False, True])
def test_damaged_files_are_refused_not_passed_over(world, packed) -> None:
    write(world / "cache" / "mnist")
    place = write(world / "data" / "mnist", packed, **{NAMES[0]: IMAGES[:-1] + b"?"})
    with pytest.raises(DatasetError, match="SHA-256") as caught:
        load_dataset("mnist", data_dir=world / "data")
    assert str(place / NAMES[0]) in str(caught.value)


def test_unknown_names_and_impossible_numbers_are_refused_before_anything_is_read(world) -> None:
    with pytest.raises(ConfigurationError, match=r"did you mean 'mnist'.*files of your own are read by"):
        load_dataset("minst")
    with pytest.raises(ConfigurationError, match="did you mean 'fashion-mnist'"):
        fetch("fashion_mnist")
    for bad in (
        {"validation": -1},
        {"validation": 12},
        {"validation": 2.5},
        {"limit": 0},
        {"limit": 11},
        {"validation": 6, "limit": 7},
        {"limit": True},
    ):
        with pytest.raises(ConfigurationError, match="expected a whole number"):
            load_dataset("mnist", **bad)


def test_listing_tells_what_is_where_and_whether_it_is_whole(world) -> None:
    write(world / "cache" / "mnist", True)
    write(world / "data" / "fashion-mnist", **{NAMES[1]: CONTENTS[NAMES[3]]})
    digits, mnist, fashion, *colours = list_datasets(world / "data")
    assert [record.name for record in (digits, mnist, fashion, *colours)] == list(DATASETS)
    assert all("not found; looked in" in record.problem for record in colours)
    assert (digits.verified, digits.images, digits.problem) == (True, 1797, "")
    assert (mnist.verified, mnist.where, mnist.images) == (True, str(world / "cache" / "mnist"), 17)
    assert (fashion.verified, fashion.where) == (False, str(world / "data" / "fashion-mnist"))
    assert NAMES[1] in fashion.problem
    (world / "cache" / "mnist" / f"{NAMES[0]}.gz").unlink()
    mnist = list_datasets()[1]
    assert (mnist.verified, mnist.where) == (False, None)
    assert f"lacks {NAMES[0]}" in mnist.problem


# Fetching, from a server on this machine


def test_missing_data_are_fetched_once(world, mirror) -> None:
    _, asked, _ = mirror
    data = load_dataset("mnist")
    check_small(data)
    assert data.source == str(world / "cache" / "mnist")
    assert files_below(world / "cache" / "mnist") == sorted(f"{name}.gz" for name in NAMES)
    load_dataset("mnist")
    assert fetch("mnist") == world / "cache" / "mnist"
    assert len(asked) == 4


def test_fetch_goes_where_it_is_told_and_reports(world, mirror, capsys) -> None:
    _, asked, _ = mirror
    write(world / "cache" / "mnist")
    told: dict[str, int] = {}
    assert (
        fetch("mnist", world / "new" / "data", lambda file, received: told.__setitem__(file, received))
        == world / "new" / "data" / "mnist"
    )
    assert told == {f"{name}.gz": len(gzip.compress(content)) for name, content in CONTENTS.items()}
    check_small(load_dataset("mnist", data_dir=world / "new" / "data", download=False))
    assert len(asked) == 4
    assert capsys.readouterr() == ("", "")


def test_fetch_takes_what_lies_elsewhere(world, mirror, monkeypatch) -> None:
    monkeypatch.setenv("FSP_DATA", str(world / "env"))
    place = write(world / "env" / "MNIST" / "raw")
    assert fetch("mnist") == place
    assert fetch("mnist", world / "env") == place
    (place / NAMES[0]).write_bytes(b"damaged")
    with pytest.raises(DatasetError, match=NAMES[0]):
        fetch("mnist")
    assert mirror[1] == []


def test_fetch_replaces_only_what_is_damaged(world, mirror) -> None:
    _, asked, _ = mirror
    place = write(world / "cache" / "mnist", **{NAMES[2]: b"damaged"})
    (place / NAMES[3]).unlink()
    fetch("mnist")
    assert asked == [f"/good/{NAMES[2]}.gz", f"/good/{NAMES[3]}.gz"]
    check_small(load_dataset("mnist", download=False))
    assert files_below(place) == sorted([NAMES[0], NAMES[1], f"{NAMES[2]}.gz", f"{NAMES[3]}.gz"])


def test_mirrors_are_tried_in_turn_and_the_one_that_answers_is_kept(world, mirror) -> None:
    answers, asked, use = mirror
    use("down", "lies", "good")
    answers[f"/down/{NAMES[0]}.gz"] = 503
    answers[f"/lies/{NAMES[0]}.gz"] = gzip.compress(IMAGES[:-1] + b"?")
    check_small(load_dataset("mnist"))
    assert asked == [f"/{m}/{NAMES[0]}.gz" for m in ("down", "lies", "good")] + [
        f"/good/{name}.gz" for name in NAMES[1:]
    ]


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (404, "HTTP 404"),
        (b"<html>", "starts with"),
        (gzip.compress(IMAGES)[:40], "truncated"),
        (bytes(1 << 20), "sends more than 65624 bytes"),
        (gzip.compress(IMAGES[:-1] + bytes([IMAGES[-1] ^ 1])), "SHA-256 of the unpacked bytes"),
    ],
    ids=["absent", "a page", "half", "endless", "other images"],
)
def test_what_cannot_be_verified_is_not_kept(world, mirror, answer, said) -> None:
    mirror[0][f"/good/{NAMES[0]}.gz"] = answer
    for act in (lambda: fetch("mnist"), lambda: load_dataset("mnist", data_dir=world / "a" / "b")):
        with pytest.raises(DatasetError, match=said) as caught:
            act()
        assert f"/good/{NAMES[0]}.gz" in str(caught.value)
    assert files_below(world) == []


def test_what_came_whole_before_a_failure_is_kept(world, mirror) -> None:
    mirror[0][f"/good/{NAMES[1]}.gz"] = 500
    with pytest.raises(DatasetError, match="HTTP 500"):
        fetch("mnist")
    assert files_below(world / "cache" / "mnist") == [f"{NAMES[0]}.gz"]


def test_an_interrupted_download_leaves_nothing(world, mirror) -> None:
    def interrupt(file: str, received: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch("mnist", progress=interrupt)
    assert files_below(world) == []


def test_a_silent_server_is_left_after_the_timeout(world, mirror, monkeypatch) -> None:
    monkeypatch.setattr(downloads, "TIMEOUT", (0.3, 0.3))
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}/"
        monkeypatch.setitem(SOURCES, "mnist", dataclasses.replace(SOURCES["mnist"], mirrors=(address,)))
        began = time.monotonic()
        with pytest.raises(DatasetError, match="ReadTimeout"):
            fetch("mnist")
        assert time.monotonic() - began < 10  # the downloader's own would be 30 seconds


def test_a_server_that_unpacks_on_the_way_is_understood(world, mirror) -> None:
    mirror[0].update({f"/good/{name}.gz": content for name, content in CONTENTS.items()})
    check_small(load_dataset("mnist"))
    assert files_below(world / "cache" / "mnist") == sorted(NAMES)


def test_a_destination_that_cannot_be_made_is_told(world) -> None:
    (world / "file").write_bytes(b"")
    with pytest.raises(DatasetError, match="--data-dir"):
        fetch("mnist", world / "file")


# The published data


def test_the_published_sources_are_safe_to_ask() -> None:
    """https only, bytes known beforehand, timeouts of seconds, a cache of our own."""
    digests = []
    for source in REAL_SOURCES.values():
        assert source.mirrors
        assert all(m.startswith("https://") and m.endswith("/") for m in source.mirrors)
        files = (source.archive,) if isinstance(source, CifarSet) else source.files
        digests += [file.sha256 for file in files]
        assert max(file.size for file in files) < 200_000_000
    assert len(set(digests)) == len(digests) == 12
    assert all(re.fullmatch("[0-9a-f]{64}", digest) for digest in digests)
    assert max(downloads.TIMEOUT) <= 60
    assert REAL_CACHE().name == "fsp_dynamics"


@PUBLISHED
def test_the_published_data_are_what_their_names_say(name, monkeypatch) -> None:
    """The real files, where they are: class frequencies of 60,000 and 10,000 images."""
    monkeypatch.setitem(SOURCES, name, REAL_SOURCES[name])
    monkeypatch.setattr(sources, "_cache", REAL_CACHE)
    if sources.find(name, REAL_ROOT) is None:
        pytest.skip(f"no {name} on this machine (FSP_DATA is {'not set' if REAL_ROOT is None else REAL_ROOT})")
    data = load_dataset(name, data_dir=REAL_ROOT, download=False)
    assert (len(data.train), len(data.valid), len(data.test), data.image_shape) == (50_000, 10_000, 10_000, (28, 28))
    counts = np.bincount(data.train.labels) + np.bincount(data.valid.labels)
    ones = {"mnist": [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949], "fashion-mnist": [6000] * 10}
    assert counts.tolist() == ones[name]
    mean = (data.train.images.mean(dtype=float) * 5 + data.valid.images.mean(dtype=float)) / 6
    assert mean == pytest.approx(
        {"mnist": 0.1307, "fashion-mnist": 0.2860}[name], abs=5e-5
    )  # the means everybody quotes
    assert (data.train.images.min(), data.train.images.max()) == (0, 1)
    assert data.train.images.flags.c_contiguous


def dotted(folder):
    for name in NAMES:
        (folder / name).rename(folder / name.replace("-idx", ".idx"))


def nested(folder):
    for name in NAMES:
        (folder / name).rename(folder / "aside")
        (folder / name).mkdir()
        (folder / "aside").rename(folder / name / name)


@pytest.mark.parametrize("rename", [lambda folder: None, dotted, nested])
@pytest.mark.parametrize("below", ["mnist", "MNIST/raw", "raw", "."])
@pytest.mark.parametrize("packed", [False, True])
def test_files_under_the_names_of_other_sources_are_found(world, monkeypatch, rename, below, packed) -> None:
    folder = write(world / "data" / below, packed=packed and rename is not nested)
    if not packed:
        rename(folder)
    elif rename is dotted:
        for name in NAMES:
            (folder / f"{name}.gz").rename(folder / f"{name.replace('-idx', '.idx')}.gz")
    check_small(load_dataset("mnist", data_dir=world / "data", download=False))
    monkeypatch.setenv("FSP_DATA", str(world / "data"))
    check_small(load_dataset("mnist", download=False))
    if not packed:
        check_small(read_dataset(folder, name="mnist"))
        check_small(read_dataset(folder.parent if below in ("MNIST/raw", "raw") else folder))


def test_files_of_another_set_under_the_same_names_are_not_taken(world) -> None:
    other = CONTENTS[NAMES[3]][:-1] + bytes([CONTENTS[NAMES[3]][-1] ^ 1])
    write(world / "data", **{NAMES[3]: other})
    with pytest.raises(DatasetError, match="mnist was not found"):
        load_dataset("mnist", data_dir=world / "data", download=False)


@pytest.mark.parametrize(
    ("name", "file"),
    [("mnist", "mnist_train.csv"), ("fashion-mnist", "fashion-mnist_train.csv"), ("mnist", "mnist.npz")],
)
def test_the_names_wanted_are_said_beside_files_of_another_format(world, name, file) -> None:
    (world / "data").mkdir()
    (world / "data" / file).write_text("label,1x1")
    (world / "data" / "other.csv").write_text("label,1x1")
    with pytest.raises(DatasetError) as caught:
        load_dataset(name, data_dir=world / "data", download=False)
    message = str(caught.value)
    assert f"{world / 'data' / file} is of another format; put its 4 IDX files (train-images-idx3-ubyte, " in message
    assert "other.csv" not in message


class Moved(requests.adapters.BaseAdapter):
    """A server that answers every address with a redirect, and a host of plain http that has all
    files.
    """

    def __init__(self, there: str) -> None:
        super().__init__()
        self.there, self.asked = there, []

    def send(self, request, **options):
        self.asked.append(request.url)
        answer = requests.Response()
        answer.url, answer.request = request.url, request
        answer.status_code, answer.headers["location"] = (302, self.there) if len(self.asked) < 3 else (200, "")
        name = request.url.rpartition("/")[2].removesuffix(".gz")
        answer.raw = io.BytesIO(gzip.compress(CONTENTS.get(name, b"")))
        return answer

    def close(self) -> None:
        pass


@pytest.mark.parametrize("there", ["http://elsewhere/file", "//elsewhere/file", "ftp://elsewhere/file"])
def test_a_redirect_to_an_address_without_encryption_is_refused(world, monkeypatch, there) -> None:
    """One to https is followed ("//" keeps what it was)."""
    server = Moved(there)
    monkeypatch.setattr(requests.Session, "get_adapter", lambda self, url: server)
    source = dataclasses.replace(SOURCES["mnist"], mirrors=("https://mirror/",))
    monkeypatch.setitem(SOURCES, "mnist", source)
    with pytest.raises(DatasetError) as caught:
        fetch("mnist")
    followed = there.startswith("//")
    assert (f"redirects to {there}, expected an address with https" in str(caught.value)) != followed
    assert any(url.startswith("https://elsewhere") for url in server.asked) == followed
    assert not any(url.startswith(("http:", "ftp:")) for url in server.asked)
