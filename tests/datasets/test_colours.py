"""CIFAR-10, CIFAR-100 and SVHN: what is read from their files, where they are found, what is
verified, and what is refused. All files are made here (tests/small_colours.py).
"""

from __future__ import annotations

import dataclasses
import gzip
import io
import tarfile

import numpy as np
import pytest
from small_colours import (
    ARCHIVES,
    CLASSES,
    COUNT,
    FOLDERS,
    TEST,
    TRAIN,
    archive,
    contents,
    mat,
    part,
    pinned,
    records,
    sources,
    write,
)
from small_data import files_below, sha256

from fsp_dynamics.datasets import CLASS_NAMES, fetch, list_datasets, load_dataset
from fsp_dynamics.datasets.registry import SOURCES
from fsp_dynamics.errors import DatasetError

CIFAR = pytest.mark.parametrize("name", ["cifar10", "cifar100"])
EACH = pytest.mark.parametrize("name", list(CLASSES))
REFETCH = "; delete it and fetch it again (fsp data fetch NAME)"


def check(data, name: str) -> None:
    """The images and labels of `small_colours.part`, pixel by pixel."""
    train, test = part(name), part(name, test=True)
    images = np.concatenate([data.train.images, data.valid.images])
    np.testing.assert_array_equal(images, (train.images.reshape(COUNT, 3072) / 255).astype(np.float32))
    np.testing.assert_array_equal(np.concatenate([data.train.labels, data.valid.labels]), train.labels)
    np.testing.assert_array_equal(data.test.images, (test.images.reshape(COUNT, 3072) / 255).astype(np.float32))
    np.testing.assert_array_equal(data.test.labels, test.labels)
    assert (len(data.valid), data.image_shape, data.planes) == (COUNT // 6, (3, 32, 32), (3, 32, 32))
    assert (data.classes, data.class_names) == (CLASSES[name], CLASS_NAMES.get(name, ()))
    assert repr(data) == f"<Dataset {name}: 17 train, 3 valid, 20 test; 3 x 32 x 32 pixels, {CLASSES[name]} classes>"


def listed(name, data_dir=None):
    return next(record for record in list_datasets(data_dir) if record.name == name)


@pytest.mark.parametrize(
    ("name", "packed"), [*((name, False) for name in CLASSES), *((name, True) for name in ARCHIVES)]
)
def test_images_and_labels_are_those_of_the_records(world, name, packed) -> None:
    """Planes red, green, blue; of cifar100 the fine label; of svhn 10 is the digit 0."""
    write(world / "data" / name, name, packed=packed)
    check(load_dataset(name, data_dir=world / "data", download=False), name)


def test_names_of_classes_stand_at_their_labels() -> None:
    """As the coarse classes of cifar100 have them: trees are 47, 52, 56, 59, 96."""
    ten, hundred = CLASS_NAMES["cifar10"], CLASS_NAMES["cifar100"]
    assert (len(ten), len(hundred), len(set(hundred))) == (10, 100, 100)
    assert (ten[0], ten[3], ten[9]) == ("airplane", "cat", "truck")
    trees = [f"{kind}_tree" for kind in ("maple", "oak", "palm", "pine", "willow")]
    assert [hundred[k] for k in (47, 52, 56, 59, 96)] == trees
    assert [hundred[k] for k in (8, 13, 48, 58, 90)] == ["bicycle", "bus", "motorcycle", "pickup_truck", "train"]


@CIFAR
def test_an_archive_and_what_it_unpacks_to_are_the_same_images_for_a_run(world, name) -> None:
    """The digests are those of the files: a run that began with one goes on with the other."""
    write(world / "a" / name, name)
    write(world / "b" / name, name, packed=True)
    loose, packed = (load_dataset(name, data_dir=world / folder, download=False) for folder in "ab")
    assert loose.digests == packed.digests == {file: sha256(content) for file, content in contents(name).items()}
    packed.check_fingerprint(loose.fingerprint())


@EACH
@pytest.mark.parametrize("below", ["own", "."])
@pytest.mark.parametrize("by", ["argument", "environment", "cache"])
def test_places(world, monkeypatch, name, below, by) -> None:
    """The folder of the set's name, or the data folder itself, as torchvision's root."""
    root = world / ("cache" if by == "cache" else "data")
    place = write(root / (name if below == "own" or by == "cache" else "."), name)
    if by == "environment":
        monkeypatch.setenv("FSP_DATA", str(root))
    data = load_dataset(name, data_dir=root if by == "argument" else None, download=False)
    check(data, name)
    assert data.source == str(place)


@CIFAR
def test_an_archive_is_verified_and_an_extracted_folder_is_not(world, name) -> None:
    place = write(world / "data" / name, name)
    data, record = load_dataset(name, data_dir=world / "data", download=False), listed(name, world / "data")
    assert (record.verified, record.where, record.images) == (False, str(place.parent), 2 * COUNT)
    assert data.notes == (record.problem,)
    assert record.problem == (
        f"{place} is unverified: its files have the published sizes, but SHA-256 is known of "
        f"{ARCHIVES[name]} alone, which is not beside them"
    )
    packed = write(world / "data" / name, name, packed=True)
    data, record = load_dataset(name, data_dir=world / "data", download=False), listed(name, world / "data")
    assert (record.verified, record.problem, data.notes, data.source) == (True, "", (), str(packed))


def test_svhn_is_verified(world) -> None:
    write(world / "data", "svhn")
    assert (listed("svhn", world / "data").verified, load_dataset("svhn", data_dir=world / "data").notes) == (True, ())


@EACH
def test_where_it_was_looked_for_and_how_to_get_it_are_told_in_one_line(world, name) -> None:
    with pytest.raises(DatasetError) as caught:
        load_dataset(name, data_dir=world / "data", download=False)
    message = str(caught.value)
    for place in (world / "data" / name, world / "data", world / "cache" / name):
        assert f"{place} (no such folder)" in message
    for told in (TEST[name] if name == "svhn" else ARCHIVES[name], "--data-dir", f"fsp data fetch {name}"):
        assert told in message
    assert f"into FOLDER/{name} and give" in message
    assert "\n" not in message


@EACH
def test_a_file_that_is_missing_is_named(world, name) -> None:
    """An incomplete folder is passed over."""
    place = write(world / "data" / name, name)
    (place / TEST[name]).unlink()
    with pytest.raises(DatasetError, match=f"lacks .*{TEST[name]}"):
        load_dataset(name, data_dir=world / "data", download=False)
    write(world / "cache" / name, name)
    check(load_dataset(name, data_dir=world / "data", download=False), name)


@CIFAR
def test_the_version_for_python_is_said_to_be_of_another_format(world, name) -> None:
    other = next(other for other in SOURCES[name].others if "py" in other)
    (world / "data" / other).mkdir(parents=True)
    with pytest.raises(DatasetError, match=f"{other} is of another format; put {ARCHIVES[name]} or the folder"):
        load_dataset(name, data_dir=world / "data", download=False)


# Damaged files


def refusal(name, root) -> str:
    """What is said of it, in one line, by all who read or verify it."""
    with pytest.raises(DatasetError) as caught:
        load_dataset(name, data_dir=root, download=False)
    message = str(caught.value)
    assert message.endswith(REFETCH)
    assert "\n" not in message
    return message.removesuffix(REFETCH)


@EACH
@pytest.mark.parametrize("by", [-1, 1, -3000])
def test_a_file_of_another_size_is_refused_with_both_sizes(world, name, by) -> None:
    file = TRAIN[name][-1]
    whole = contents(name)[file]
    place = write(world / name, name, **{file: whole + b"?" if by > 0 else whole[:by]})
    what = "another file" if by > 0 else "truncated"
    said = f"{place / file}: {len(whole) + by} bytes long, expected {len(whole)}: {what}"
    assert refusal(name, world) == said
    assert listed(name, world).problem == said + REFETCH


@CIFAR
def test_a_damaged_archive_is_refused_even_beside_whole_files(world, name) -> None:
    write(world / name, name)
    whole = archive(name)
    path = write(world / name, name, packed=True, **{ARCHIVES[name]: whole[:-9]})
    said = f"{path}: {len(whole) - 9} bytes long, expected {len(whole)}: truncated"
    assert refusal(name, world) == said
    assert listed(name, world).problem == said + REFETCH
    write(world / name, name, packed=True, **{ARCHIVES[name]: whole[:-1] + bytes([whole[-1] ^ 1])})
    assert f"{path}: SHA-256 is " in refusal(name, world)
    assert f"expected {sha256(whole)}: another file or a damaged one" in listed(name, world).problem


def test_other_bytes_of_svhn_are_refused_by_their_hash(world) -> None:
    whole = contents("svhn")[TEST["svhn"]]
    write(world, "svhn", **{TEST["svhn"]: whole[:-1] + bytes([whole[-1] ^ 1])})
    assert "test_32x32.mat: SHA-256 is " in refusal("svhn", world)


@CIFAR
def test_labels_beyond_the_classes_are_refused(world, name) -> None:
    given = part(name, test=True)
    given.labels[7] = CLASSES[name]
    place = write(world / name, name, **{TEST[name]: records(name, given)})
    assert refusal(name, world) == (
        f"{place / TEST[name]}: the label of record 7 is {CLASSES[name]}, expected 0 to {CLASSES[name] - 1}: "
        "another file or a damaged one"
    )


def short_of(name: str) -> bytes:
    """The archive without the test images."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as packed:
        for file in TRAIN[name]:
            member = tarfile.TarInfo(f"{FOLDERS[name]}/{file}")
            member.size = len(contents(name)[file])
            packed.addfile(member, io.BytesIO(contents(name)[file]))
    return out.getvalue()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"<html>", "is no intact .tar.gz"),
        (gzip.compress(b"no archive"), "is no intact .tar.gz"),
        (archive("cifar10")[:-5000], "is no intact .tar.gz"),
        (short_of("cifar10"), "holds no test_batch.bin"),
        (archive("cifar10", **{"test_batch.bin": b"?"}), "test_batch.bin: 1 bytes long, expected 61460: truncated"),
    ],
    ids=["a page", "no tar", "half", "no test images", "other test images"],
)
def test_what_is_no_archive_of_the_set_is_refused_even_under_its_hash(world, monkeypatch, content, said) -> None:
    other = dataclasses.replace(SOURCES["cifar10"], archive=pinned(ARCHIVES["cifar10"], content))
    monkeypatch.setitem(SOURCES, "cifar10", other)
    path = write(world / "cifar10", "cifar10", packed=True, **{ARCHIVES["cifar10"]: content})
    message = refusal("cifar10", world)
    assert message.startswith(str(path))
    assert said in message


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"no matrix", "is no intact MATLAB 5 file"),
        (contents("svhn")[TEST["svhn"]][:-100], "is no intact MATLAB 5 file"),
        (mat(part("svhn"), y=np.full((COUNT, 1), 11, np.uint8)), "y[0] = 11, expected 1 to 10"),
        (
            mat(part("svhn"), y=np.zeros((3, 1), np.uint8)),
            "uint8 of shape (3, 1) as y, expected uint8 of shape (20, 1)",
        ),
        (
            mat(part("svhn"), X=np.zeros((32, 32, 3, COUNT))),
            "holds float64 of shape (32, 32, 3, 20) as X, expected uint8",
        ),
    ],
    ids=["a text", "half", "labels", "few labels", "floats"],
)
def test_what_are_no_matrices_of_the_set_are_refused_even_under_their_hash(world, monkeypatch, content, said) -> None:
    train, _ = SOURCES["svhn"].files
    other = dataclasses.replace(SOURCES["svhn"], files=(train, pinned(TEST["svhn"], content)))
    monkeypatch.setitem(SOURCES, "svhn", other)
    write(world, "svhn", **{TEST["svhn"]: content})
    message = refusal("svhn", world)
    assert message.startswith(str(world / TEST["svhn"]))
    assert said in message


# Fetching, from a server on this machine


def served(monkeypatch, mirror, name) -> tuple[dict, list, list[str]]:
    """(answers, addresses asked, files): a server that has the files of that set."""
    answers, asked, _ = mirror
    files = contents(name) if name == "svhn" else {ARCHIVES[name]: archive(name)}
    answers.update({f"/good/{file}": content for file, content in files.items()})
    monkeypatch.setitem(SOURCES, name, dataclasses.replace(sources()[name], mirrors=(mirror_address(mirror),)))
    return answers, asked, list(files)


def mirror_address(mirror) -> str:
    return SOURCES["mnist"].mirrors[0]


@EACH
def test_missing_data_are_fetched_once_and_verified(world, monkeypatch, mirror, name) -> None:
    _, asked, files = served(monkeypatch, mirror, name)
    check(load_dataset(name), name)
    assert files_below(world / "cache" / name) == sorted(files)
    assert asked == [f"/good/{file}" for file in files]
    assert fetch(name) == world / "cache" / name
    check(load_dataset(name), name)
    assert len(asked) == len(files)


@EACH
def test_what_is_there_is_not_fetched(world, monkeypatch, mirror, name) -> None:
    """Also an extracted folder, and files in the data folder itself."""
    _, asked, _ = served(monkeypatch, mirror, name)
    write(world / "a" / name, name)
    write(world / "b", name)
    assert fetch(name, world / "a") == world / "a" / name
    assert fetch(name, world / "b") == world / "b"
    assert asked == []


@EACH
def test_fetch_replaces_what_is_damaged(world, monkeypatch, mirror, name) -> None:
    _, asked, files = served(monkeypatch, mirror, name)
    folder = world / "data" / name
    folder.mkdir(parents=True)
    (folder / files[0]).write_bytes(b"damaged")
    fetch(name, world / "data")
    assert asked == [f"/good/{file}" for file in files]
    check(load_dataset(name, data_dir=world / "data", download=False), name)


@EACH
@pytest.mark.parametrize("answer", [404, b"<html>", "longer", "changed"])
def test_what_cannot_be_verified_is_not_kept(world, monkeypatch, mirror, name, answer) -> None:
    answers, _, files = served(monkeypatch, mirror, name)
    whole = answers[f"/good/{files[0]}"]
    other = {"longer": whole + b"?", "changed": whole[:-1] + bytes([whole[-1] ^ 1])}
    said = {404: "HTTP 404", b"<html>": "6 bytes long, expected", "longer": "sends more than", "changed": "SHA-256 is"}
    answers[f"/good/{files[0]}"] = other.get(answer, answer)
    with pytest.raises(DatasetError, match=said[answer]):
        fetch(name)
    assert files_below(world) == []
