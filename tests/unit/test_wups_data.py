"""Data of metrics: NLTK's downloader, named errors, and `tempeval data prepare` and `check`."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import nltk.data
import nltk.downloader
import pytest
from benchmark_fixtures import TOY, register
from typer.testing import CliRunner

from tempeval.benchmarks.base import Fetch
from tempeval.benchmarks.nextqa import NEXTQA_OE
from tempeval.cli import app
from tempeval.metrics import wups_data, wups_words
from tempeval.metrics.unavailable import MetricUnavailable

if TYPE_CHECKING:
    from pathlib import Path

FOLDERS = {name: resource.split("/")[0] for name, resource in wups_data.PACKAGES.items()}


def package(name: str) -> bytes:
    """Return an archive of the form of NLTK's, with one file."""
    inner = wups_data.PACKAGES[name].partition("/")[2]
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr(f"{inner}README", "made up")
    return content.getvalue()


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, bytes]:
    """Answer NLTK's downloader from a table, with nothing else on this machine."""
    files = {f"{name}.zip": package(name) for name in wups_data.PACKAGES}
    rows = [
        f'<package id="{name}" name="{name}" subdir="{FOLDERS[name]}" unzip="1" '
        f'size="{len(content)}" unzipped_size="7" checksum="{hashlib.md5(content).hexdigest()}" '  # noqa: S324
        f'sha256_checksum="{hashlib.sha256(content).hexdigest()}" url="https://x.example/{name}.zip"/>'
        for name, content in ((name, files[f"{name}.zip"]) for name in wups_data.PACKAGES)
    ]
    index = f"<nltk_data><packages>{''.join(rows)}</packages><collections/></nltk_data>"
    files["index.xml"] = index.encode()

    def urlopen(url: str, **_: Any) -> io.BytesIO:
        name = url.rpartition("/")[2]
        if name not in files:
            raise OSError("no network")
        return io.BytesIO(files[name])

    monkeypatch.setattr(nltk.downloader, "urlopen", urlopen)
    monkeypatch.setattr(nltk.data, "path", [])
    monkeypatch.setenv("TEMPEVAL_CACHE", str(tmp_path / "cache"))
    wups_data._check.cache_clear()
    return files


@pytest.mark.usefixtures("served")
def test_what_is_missing_is_fetched_once_into_the_cache(tmp_path: Path) -> None:
    assert wups_data.missing() == list(wups_data.PACKAGES)
    lines = wups_data.fetch()
    assert [str(tmp_path / "cache" / "nltk_data") in line for line in lines] == [True] * 3
    assert wups_data.missing() == []
    assert all("there already" in line for line in wups_data.fetch())
    wups_data.check("wups0")


def test_without_a_network_the_error_says_what_to_do(served: dict[str, bytes]) -> None:
    served.clear()
    with pytest.raises(wups_data.DataNotFetched, match=r"wordnet cannot be fetched .*NLTK_DATA"):
        wups_data.fetch()


def test_a_damaged_download_is_refused(served: dict[str, bytes]) -> None:
    served["wordnet.zip"] = served["wordnet.zip"][:-5]
    with pytest.raises(wups_data.DataNotFetched, match="wordnet"):
        wups_data.fetch()
    assert "wordnet" in wups_data.missing()


@pytest.mark.usefixtures("served")
def test_data_that_are_not_whole_are_named() -> None:
    wups_data.fetch()
    for load in (wups_words._wordnet, wups_words._tagger, wups_words._punkt):
        load.cache_clear()
        with pytest.raises(MetricUnavailable, match=r"cannot be read .*tempeval data prepare"):
            load()


def test_only_open_ended_nextqa_has_data_to_fetch() -> None:
    assert NEXTQA_OE.fetch == Fetch(wups_data.missing, wups_data.fetch)


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """Register a benchmark that lacks one package; the list is what it lacks."""
    lacking = ["words"]

    def get() -> list[str]:
        lacking.clear()
        return ["words: to /cache"]

    register(monkeypatch, replace(TOY, fetch=Fetch(lambda: lacking, get), archives=()))
    (tmp_path / "toy" / "clips").mkdir(parents=True)
    (tmp_path / "toy" / "test.txt").write_text("a.mp4\n")
    (tmp_path / "toy" / "train.txt").write_text("a.mp4\n")
    (tmp_path / "toy" / "clips" / "a.mp4").write_bytes(b"12345")
    return lacking


@pytest.mark.usefixtures("toy")
def test_check_says_what_metrics_lack_and_prepare_fetches_it(tmp_path: Path) -> None:
    run = CliRunner().invoke
    root = ["toy", "--data-root", str(tmp_path)]
    done = run(app, ["data", "check", *root])
    assert done.exit_code == 0  # the benchmark itself is complete
    assert f"metrics lack words: tempeval data prepare toy --data-root {tmp_path}" in done.stdout
    found = json.loads(run(app, ["data", "check", *root, "--json"]).stdout)
    assert found["missing_metric_data"] == ["words"]
    done = run(app, ["data", "prepare", *root])
    assert done.exit_code == 0, done.output
    assert "fetched: words: to /cache" in done.stdout
    assert "lack" not in done.stdout


def test_a_failed_download_is_named_and_the_exit_code_is_1(
    toy: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def get() -> list[str]:
        raise wups_data.DataNotFetched("words cannot be fetched")

    register(monkeypatch, replace(TOY, fetch=Fetch(lambda: toy, get), archives=()))
    done = CliRunner().invoke(app, ["data", "prepare", "toy", "--data-root", str(tmp_path)])
    assert done.exit_code == 1
    assert "words cannot be fetched" in done.output
