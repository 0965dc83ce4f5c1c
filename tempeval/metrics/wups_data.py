"""The NLTK data that WUPS needs: whether they are there, and how to get them."""

from __future__ import annotations

import hashlib
import io
import zipfile
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tempeval.archives import default_cache
from tempeval.errors import TempevalError
from tempeval.metrics.unavailable import MetricUnavailable

if TYPE_CHECKING:
    from collections.abc import Iterable

#: NLTK's name of each package to its resource.
PACKAGES = {
    "wordnet": "corpora/wordnet/",
    "averaged_perceptron_tagger_eng": "taggers/averaged_perceptron_tagger_eng/",
    "punkt_tab": "tokenizers/punkt_tab/english/",
}
#: What every answer needs; `punkt_tab` is for those of several sentences.
ALWAYS = ("wordnet", "averaged_perceptron_tagger_eng")
#: The version of WordNet that the official numbers are made with; NLTK's `wordnet` is this one.
WORDNET_VERSION = "3.0"
COMMAND = "tempeval data prepare nextqa_oe --data-root DIR"


class DataNotFetched(TempevalError):
    """NLTK data that could not be downloaded."""


def folder() -> Path:
    """Return where `fetch` puts the data: `nltk_data` in tempeval's cache."""
    return default_cache() / "nltk_data"


def located(resource: str) -> Any:
    """Return NLTK's pointer to a resource, looked for in `folder()` and in NLTK's own places.

    Raises:
        LookupError: if it is in none of them.
    """
    import nltk.data

    if str(folder()) not in nltk.data.path:  # also allows NLTK to read there
        nltk.data.path.append(str(folder()))
    return nltk.data.find(resource)


def missing(packages: Iterable[str] = PACKAGES) -> list[str]:
    """Return the packages that are not there; one that cannot be read is not."""
    return [name for name in packages if not _is_there(PACKAGES[name])]


def _is_there(resource: str) -> bool:
    try:
        located(resource)
    except (LookupError, OSError, zipfile.BadZipFile):
        return False
    return True


def stamps() -> dict[str, str]:
    """Return the digest of each package's file, or of its files' names and sizes; or `missing`."""
    found = {}
    for name, resource in PACKAGES.items():
        try:
            place = Path(str(located(resource)).partition(".zip")[0])
        except (LookupError, OSError, zipfile.BadZipFile):
            found[name] = "missing"
            continue
        archive = place.with_suffix(".zip")
        files = [archive] if archive.is_file() else sorted(place.rglob("*"))
        sizes = [(path.name, path.stat().st_size) for path in files if path.is_file()]
        found[name] = hashlib.sha256(repr(sizes).encode()).hexdigest()
    return found


def check(metric: str, packages: Iterable[str] = ALWAYS) -> None:
    """Raise where a metric cannot be computed.

    Args:
        metric: its name.
        packages: what it needs.

    Raises:
        MetricUnavailable: naming what is missing and the command that gets it.
    """
    _check(metric, tuple(packages))


@cache
def _check(metric: str, packages: tuple[str, ...]) -> None:
    # An error is not kept: data that come later are found.
    if absent := missing(packages):
        raise MetricUnavailable(
            metric, f"NLTK data are missing: {', '.join(absent)}; get them with: {COMMAND}"
        )


def fetch() -> list[str]:
    """Download what is missing, as NLTK's own downloader does, and look whether it is there.

    Returns:
        What was done, one line per package.

    Raises:
        DataNotFetched: without a network, or where the files are not whole.
    """
    wanted = missing()
    lines = [f"NLTK data {name}: there already" for name in PACKAGES if name not in wanted]
    for name in wanted:
        _fetch(name)
        lines.append(f"NLTK data {name}: to {folder()}")
    return lines


def _fetch(name: str) -> None:
    from nltk.downloader import Downloader

    target = folder()
    again = f"connect to the network and repeat, or put it into {target} or a folder of NLTK_DATA"
    try:
        target.mkdir(parents=True, exist_ok=True)
        downloader = Downloader(download_dir=str(target))
        downloader.download(name, quiet=True, raise_on_error=True, print_error_to=io.StringIO())
        whole = downloader.status(name) == Downloader.INSTALLED
    except (OSError, ValueError) as error:
        raise DataNotFetched(f"NLTK data {name} cannot be fetched ({error}); {again}") from error
    if not whole or not _is_there(PACKAGES[name]):
        raise DataNotFetched(f"NLTK data {name} are not whole after the download; {again}")
