"""Archives: what comes out is what was packed; nothing outside, nothing half."""

from __future__ import annotations

import io
import os
import pickle
import stat
import tarfile
import threading
import zipfile
from types import SimpleNamespace

import pytest

from tempeval.archive_members import Limits
from tempeval.archives import default_cache, extracted, file_digest
from tempeval.errors import BadArchive

FILES = {"a/one.txt": b"one", "a/b/two.bin": bytes(range(256)) * 100, "three": b""}


def make_zip(path, files=FILES, extra=()):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
        for info, content in extra:
            archive.writestr(info, content)
    return path


def make_tar(path, files=FILES, extra=(), mode="w"):
    with tarfile.open(path, mode) as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
        for info in extra:
            archive.addfile(info)
    return path


def link(name, target, kind=tarfile.SYMTYPE):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def zip_link(name, target):
    info = zipfile.ZipInfo(name)
    info.create_system = 3
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    return info, target


def content(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def written(root):
    """Everything under a folder but locks."""
    return sorted(p.name for p in root.rglob("*") if p.is_file() and p.suffix != ".lock")


@pytest.mark.parametrize("form", ["zip", "tar", "tar.gz", "tar.xz", "tar.bz2"])
def test_what_was_packed_comes_out(tmp_path, form):
    path = tmp_path / f"archive.{form}"
    if form == "zip":
        make_zip(path)
    else:
        make_tar(path, mode="w:" + form[4:])
    found = extracted(path, tmp_path / "cache")
    assert content(found.folder) == FILES
    assert found.digest == file_digest(path)
    assert tmp_path / "cache" in found.folder.parents
    assert not list((tmp_path / "cache").rglob("*.partial-*"))


def test_an_archive_is_unpacked_once(tmp_path):
    path = make_zip(tmp_path / "a.zip")
    first = extracted(path, tmp_path / "cache")
    stamp = (first.folder / "three").stat().st_mtime_ns
    path.rename(tmp_path / "elsewhere.zip")
    second = extracted(tmp_path / "elsewhere.zip", tmp_path / "cache")
    assert second == first
    assert (second.folder / "three").stat().st_mtime_ns == stamp
    other = extracted(make_zip(tmp_path / "b.zip", {"x": b"1"}), tmp_path / "cache")
    assert content(other.folder) == {"x": b"1"}


@pytest.mark.parametrize(
    "name", ["../out.txt", "/out.txt", "a/../../out.txt", "C:\\out.txt", "a\\..\\out.txt"]
)
@pytest.mark.parametrize("make", [make_zip, make_tar])
def test_members_may_not_leave_the_folder(tmp_path, make, name):
    inner = tmp_path / "deep" / "cache"
    path = make(tmp_path / "evil", {"fine": b"1", name: b"2"})
    with pytest.raises(BadArchive, match=r"outside its folder|no name may have"):
        extracted(path, inner)
    assert written(tmp_path) == ["evil"]


@pytest.mark.parametrize(
    ("name", "target"), [("l", "/etc/passwd"), ("l", "../../x"), ("a/l", "../../x"), ("l", ".")]
)
def test_links_may_not_leave_the_folder(tmp_path, name, target):
    tar = make_tar(tmp_path / "t", extra=[link(name, target)])
    hard = make_tar(tmp_path / "h", extra=[link(name, target, tarfile.LNKTYPE)])
    zipped = make_zip(tmp_path / "z", extra=[zip_link(name, target)])
    for path in (tar, hard, zipped):
        with pytest.raises(BadArchive, match=r"leads out of it|no file in it"):
            extracted(path, tmp_path / "cache")
    assert written(tmp_path / "cache") == []


def test_a_file_below_a_link_is_not_written_through_it(tmp_path):
    below = tarfile.TarInfo("l/x")
    path = make_tar(tmp_path / "t", {}, [link("l", str(tmp_path)), below])
    with pytest.raises(BadArchive, match="leads out of it"):
        extracted(path, tmp_path / "cache")
    assert not (tmp_path / "x").exists()


def test_links_inside_become_copies(tmp_path):
    extra = [
        link("a/soft", "b/two.bin"),
        link("hard", "a/one.txt", tarfile.LNKTYPE),
        link("again", "a/soft"),
    ]
    tar = extracted(make_tar(tmp_path / "t", extra=extra), tmp_path / "cache").folder
    assert content(tar)["a/soft"] == content(tar)["again"] == FILES["a/b/two.bin"]
    assert content(tar)["hard"] == b"one"
    zipped = make_zip(tmp_path / "z", extra=[zip_link("a/soft", "b/two.bin")])
    unzipped = extracted(zipped, tmp_path / "cache").folder
    assert content(unzipped)["a/soft"] == FILES["a/b/two.bin"]
    assert not any(path.is_symlink() for path in (*tar.rglob("*"), *unzipped.rglob("*")))
    round_about = make_tar(tmp_path / "r", extra=[link("x", "y"), link("y", "x")])
    with pytest.raises(BadArchive, match="no file in it"):
        extracted(round_about, tmp_path / "cache")


def test_devices_and_doubles_are_refused(tmp_path):
    pipe = tarfile.TarInfo("pipe")
    pipe.type = tarfile.FIFOTYPE
    with pytest.raises(BadArchive, match="'pipe' is a device"):
        extracted(make_tar(tmp_path / "p", extra=[pipe]), tmp_path / "cache")
    twice = [zipfile.ZipInfo("three")]
    with pytest.warns(UserWarning, match="Duplicate name"):
        path = make_zip(tmp_path / "d.zip", extra=[(info, b"x") for info in twice])
    with pytest.raises(BadArchive, match="names 'three' twice"):
        extracted(path, tmp_path / "cache")


def test_too_much_is_refused(tmp_path, monkeypatch):
    path = make_zip(tmp_path / "bomb.zip", {"zeros": bytes(10_000_000)})
    assert path.stat().st_size < 100_000
    with pytest.raises(BadArchive, match=r"more than 0\.0 GB"):
        extracted(path, tmp_path / "cache", limits=Limits(max_bytes=1_000_000))
    with pytest.raises(BadArchive, match="more than 2 members"):
        extracted(make_tar(tmp_path / "t"), tmp_path / "cache", limits=Limits(max_members=2))
    monkeypatch.setattr("tempeval.archives.shutil.disk_usage", lambda _: SimpleNamespace(free=1000))
    with pytest.raises(BadArchive, match=r"has 0\.0 GB left"):
        extracted(path, tmp_path / "cache")
    assert written(tmp_path / "cache") == []


@pytest.mark.parametrize("form", ["zip", "tar", "tar.gz"])
@pytest.mark.parametrize("kept", [0.2, 0.7, 0.85])
def test_truncated_archives_are_refused(tmp_path, form, kept):
    random = {"a": os.urandom(40_000), "b": os.urandom(40_000)}
    path = tmp_path / f"x.{form}"
    (make_zip if form == "zip" else make_tar)(
        path, random, **({} if form == "zip" else {"mode": "w:" + form[4:]})
    )
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * kept)])
    with pytest.raises(BadArchive, match=r"x\."):
        extracted(path, tmp_path / "cache")
    assert written(tmp_path / "cache") == []


def test_a_tar_cut_between_members_is_refused(tmp_path):
    path = make_tar(tmp_path / "x.tar", {"a": bytes(512), "b": bytes(512)})
    path.write_bytes(path.read_bytes()[:1024])
    with pytest.raises(BadArchive, match="no end mark"):
        extracted(path, tmp_path / "cache")


def test_damaged_and_encrypted_archives_are_refused(tmp_path):
    path = make_zip(tmp_path / "x.zip", {"a": os.urandom(5000)})
    damaged = bytearray(path.read_bytes())
    damaged[2000] ^= 0xFF
    path.write_bytes(damaged)
    with pytest.raises(BadArchive, match="damaged"):
        extracted(path, tmp_path / "cache")
    locked = bytearray(make_zip(tmp_path / "y.zip", {"a": b"1"}).read_bytes())
    locked[locked.index(b"PK\x01\x02") + 8] |= 1
    (tmp_path / "y.zip").write_bytes(locked)
    with pytest.raises(BadArchive, match=r"encrypted|password|flag"):
        extracted(tmp_path / "y.zip", tmp_path / "cache")
    assert written(tmp_path / "cache") == []


def test_no_archive_at_all(tmp_path):
    with pytest.raises(BadArchive, match="no such file"):
        extracted(tmp_path / "none.zip", tmp_path)
    (tmp_path / "text").write_text("hello")
    with pytest.raises(BadArchive, match="neither a whole zip nor a tar"):
        extracted(tmp_path / "text", tmp_path)
    (tmp_path / "file").write_text("")
    path = make_zip(tmp_path / "a.zip")
    with pytest.raises(BadArchive, match="TEMPEVAL_CACHE"):
        extracted(path, tmp_path / "file")


def test_a_half_extracted_folder_is_not_used(tmp_path):
    path, cache = make_zip(tmp_path / "a.zip"), tmp_path / "cache"
    digest = file_digest(path)
    partial = cache / "archives" / f"{digest}.partial-killed" / "content"
    partial.mkdir(parents=True)
    (partial / "three").write_bytes(b"half")
    half = cache / "archives" / digest / "content"
    half.mkdir(parents=True)
    (half / "three").write_bytes(b"half")
    assert content(extracted(path, cache).folder) == FILES
    assert not partial.exists()


@pytest.mark.parametrize(
    "spoil",
    [
        lambda folder: (folder / "three").unlink(),
        lambda folder: (folder / "a/one.txt").write_bytes(b"shorter?"),
        lambda folder: (folder / "new").write_bytes(b""),
        lambda folder: (folder.parent / "files.json").write_text("{"),
    ],
)
def test_a_spoilt_folder_is_unpacked_again(tmp_path, spoil):
    path = make_tar(tmp_path / "a.tar")
    spoil(extracted(path, tmp_path / "cache").folder)
    assert content(extracted(path, tmp_path / "cache").folder) == FILES


def test_interrupted_writing_leaves_nothing(tmp_path, monkeypatch):
    path = make_zip(tmp_path / "a.zip")

    def stop(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("tempeval.archives.shutil.copyfileobj", stop)
        with pytest.raises(KeyboardInterrupt):
            extracted(path, tmp_path / "cache")
    assert written(tmp_path / "cache") == []
    assert content(extracted(path, tmp_path / "cache").folder) == FILES


def test_two_at_once(tmp_path):
    path, results = make_tar(tmp_path / "a.tar"), []
    threads = [
        threading.Thread(target=lambda: results.append(extracted(path, tmp_path / "cache")))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 4
    assert len({found.folder for found in results}) == 1
    assert content(results[0].folder) == FILES


def test_default_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("TEMPEVAL_CACHE", raising=False)
    assert default_cache() == tmp_path / "tempeval"
    monkeypatch.setenv("TEMPEVAL_CACHE", str(tmp_path / "mine"))
    assert default_cache() == tmp_path / "mine"
    found = extracted(make_zip(tmp_path / "a.zip"))
    assert tmp_path / "mine" / "archives" in found.folder.parents


def test_a_tar_that_ends_with_a_zip_is_a_tar(tmp_path):
    inner = make_zip(tmp_path / "inner.zip", {"x": b"1"}).read_bytes()
    found = extracted(make_tar(tmp_path / "outer.tar", {"inner.zip": inner}), tmp_path / "cache")
    assert content(found.folder) == {"inner.zip": inner}


def test_the_error_travels_between_processes():
    error = pickle.loads(pickle.dumps(BadArchive("x.zip", "broken")))  # noqa: S301 - made here
    assert str(error) == "cannot unpack 'x.zip': broken"
