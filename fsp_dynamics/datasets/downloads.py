"""Downloads: a file is written aside, checked and renamed; nothing half-written is ever found."""

from __future__ import annotations

import os
import secrets
import urllib.parse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from fsp_dynamics.errors import DatasetError

Progress = bool | Callable[[str, int], None]
"""True: a bar on stderr. A callable is given the file's name and the bytes received so far."""

TIMEOUT = (10, 30)  # seconds to connect, and between two packets


def fetch_file(
    name: str,
    urls: Sequence[str],
    folder: Path,
    most: int,
    check: Callable[[BinaryIO, str], str],
    progress: Progress,
) -> tuple[Path, int]:
    """The verified new file in `folder` and the number of the first address that gave it, of at
    most so many bytes.

    check : is given the open file and its address, refuses it (DatasetError) or returns the name
        under which it is kept.

    Raises DatasetError, with what each address answered.
    """
    from requests.exceptions import RequestException

    refusals = []
    for number, url in enumerate(urls):
        aside = folder / f".{name}.{os.getpid()}-{secrets.token_hex(4)}.part"
        try:
            _download(url, aside, most, progress)
            with open(aside, "rb") as received:
                target = folder / check(received, url)
            os.replace(aside, target)
            return target, number
        except (RequestException, DatasetError, ValueError) as error:
            answer = getattr(error, "response", None)
            reason = type(error).__name__ if answer is None else f"HTTP {answer.status_code}"
            refusals.append(str(error) if isinstance(error, DatasetError) else f"{url}: {reason}")
        finally:
            aside.unlink(missing_ok=True)
    raise DatasetError(f"{name} could not be downloaded ({'; '.join(refusals)})")


def _download(url: str, target: Path, most: int, progress: Progress) -> None:
    """Write what `url` gives to the new file `target`. Raises DatasetError above `most` bytes and
    where the server redirects to an address without encryption, what requests raises otherwise.
    """
    import pooch

    with open(target, "xb") as out:
        how: dict[str, Any] = {"timeout": TIMEOUT, "hooks": {"response": _refuse_plain}}
        pooch.HTTPDownloader(progressbar=progress is True, chunk_size=1 << 16, **how)(
            url, _Capped(out, url, most, progress), None
        )


def _refuse_plain(answer: Any, **how: Any) -> None:
    """Called with each answer, before a redirect is followed."""
    there = urllib.parse.urljoin(answer.url, answer.headers.get("location", ""))
    if answer.is_redirect and answer.url.startswith("https:") and not there.startswith("https:"):
        raise DatasetError(f"{answer.url}: redirects to {there}, expected an address with https")


class _Capped:
    """The file a downloader may write to: counts, reports and refuses more than `most` bytes."""

    def __init__(self, out: BinaryIO, url: str, most: int, progress: Progress) -> None:
        self.out, self.url, self.most, self.progress, self.received = out, url, most, progress, 0

    def write(self, chunk: bytes) -> None:
        self.received += len(chunk)
        if self.received > self.most:
            raise DatasetError(f"{self.url}: sends more than {self.most} bytes; the download was stopped")
        self.out.write(chunk)
        if callable(self.progress):
            self.progress(self.url.rsplit("/", 1)[-1], self.received)

    def flush(self) -> None:
        """Nothing to do before the file is closed."""
