"""`python -m medjax.download`, from a server on this machine that lays its files out as the real ones do."""

import ast
import dataclasses
import functools
import gzip
import hashlib
import importlib
import io
import json
import re
import resource
import shlex
import shutil
import signal
import subprocess
import tarfile
import time
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import h5py
import nibabel
import numpy as np
import pytest
import scipy.io
from PIL import Image

from medjax.data.io import discover
from medjax.data.sources.files import Files
from medjax.data.split import split
from medjax.data.storage import download, shard_writer
from medjax.data.storage.builder import builder_class
from medjax.data.storage.catalogue import DATASETS, module_of
from medjax.data.storage.download import File
from medjax.train.run import load_splits
from medjax.types import UserError
from tests.commands import ROOT, command

SETS = {path.stem: module_of(path).DOWNLOAD for path in sorted(DATASETS.glob("*.py")) if "PublicSet(" in path.read_text()}
DOCUMENTED = re.findall(r"`python -m medjax.download (\w+)(?: --subset=(\w+))? --to=DATA`",
                        (ROOT / "docs" / "public_data.md").read_text(encoding="utf-8"))


class Server(ThreadingHTTPServer):
    """Serves `files` by path; what it does wrong are its attributes."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.ranges, self.etag, self.length = True, True, True
        self.drops: list[int] = []  # after how many bytes each of the next connections ends
        self.says: list[int] = []  # the status of the next ones
        self.pause = 0.0  # seconds before each 64 KiB
        self.asked: list[str] = []  # the Range of each request

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.server_port}{path}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        content = self.server.files.get(self.path.partition("?")[0])
        self.server.asked.append(self.headers.get("Range", ""))
        status = self.server.says.pop(0) if self.server.says else 200 if content is not None else 404
        if status != 200:
            return self.send_error(status)
        tag = f'"{hashlib.md5(content).hexdigest()}"'
        start = int(re.findall(r"\d+", self.headers["Range"])[0]) if "Range" in self.headers and self.server.ranges else 0
        if start >= len(content):
            return self.send_error(416)
        start *= self.headers.get("If-Range", tag) == tag
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        if self.server.etag:
            self.send_header("ETag", tag)
        if self.server.length:
            self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        rest = content[start:][:self.server.drops.pop(0) if self.server.drops else None]
        try:
            for at in range(0, len(rest), 1 << 16):
                time.sleep(self.server.pause)
                self.wfile.write(rest[at:at + (1 << 16)])
        except OSError:  # the command was ended
            pass

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(download, "WAIT", 0.0)
    with Server() as server:
        thread = Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


# Archives with the layout of the real ones, tiny


def zipped(files: dict[str, bytes]) -> bytes:
    with zipfile.ZipFile(made := io.BytesIO(), "w", zipfile.ZIP_DEFLATED) as opened:
        for name, content in files.items():
            opened.writestr(name, content)
    return made.getvalue()


def tarred(files: dict[str, bytes]) -> bytes:
    with tarfile.open(fileobj=(made := io.BytesIO()), mode="w") as opened:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            opened.addfile(entry, io.BytesIO(content))
    return made.getvalue()


def saved(save, *arguments) -> bytes:
    save(made := io.BytesIO(), *arguments)
    return made.getvalue()


def nifti(values: np.ndarray) -> bytes:
    return nibabel.Nifti1Image(values, np.eye(4)).to_bytes()


def hdf5(values: np.ndarray) -> bytes:
    with h5py.File(made := io.BytesIO(), "w") as file:
        file["data"] = values
    return made.getvalue()


def disc(angles: int) -> dict:
    return {"CtDataFull": {"sinogram": np.ones((angles, 32)), "parameters": {
        "angles": np.linspace(0, 360, angles, endpoint=False), "numDetectorsPost": 32, "pixelSizePost": 3.2,
        "distanceSourceOrigin": 410.66, "distanceSourceDetector": 553.74, "effectivePixelSizePost": 0.148}}}


@functools.cache
def layout() -> dict[str, bytes]:
    """The files of every documented command by the path of their address."""
    rng = np.random.default_rng(0)
    volume = rng.integers(1, 200, (10, 10, 10)).astype(np.uint8)
    names = [f"hippocampus_{number:03d}.nii" for number in range(5)]
    gz = {name: gzip.compress(nifti(volume), 1) for name in names}
    label = gzip.compress(nifti(np.uint8(volume % 3)), 1)
    frame = saved(lambda file: Image.fromarray(rng.integers(0, 255, (16, 16, 3)).astype(np.uint8)).save(file, "JPEG"))
    mask = saved(lambda file: Image.fromarray(np.full((16, 16, 3), 255, np.uint8)).save(file, "JPEG"))
    task = "Task04_Hippocampus"
    parts = {"train": 6, "val": 3, "test": 3}
    arrays = {f"{part}_images": rng.integers(0, 255, (count, 28, 28)).astype(np.uint8) for part, count in parts.items()}
    arrays |= {f"{part}_labels": np.arange(count)[:, None] % 2 for part, count in parts.items()}
    found = {
        f"/{task}.tar": tarred({
            f"{task}/dataset.json": json.dumps({"labels": {"0": "background", "1": "Anterior", "2": "Posterior"}}).encode(),
            **{f"{task}/imagesTr/{name}.gz": content for name, content in gz.items()},
            **{f"{task}/imagesTr/._{name}.gz": b"macOS" for name in gz},
            **{f"{task}/labelsTr/{name}.gz": label for name in gz},
            f"{task}/imagesTs/hippocampus_900.nii.gz": gz[names[0]]}),
        "/downloads/kvasir-seg.zip": zipped({
            "Kvasir-SEG/kavsir_bboxes.json": b"{}", **{f"Kvasir-SEG/images/cju{n}.jpg": frame for n in range(6)},
            **{f"Kvasir-SEG/masks/cju{n}.jpg": mask for n in range(6)}}),
        "/records/10519652/files/breastmnist.npz": saved(lambda file: np.savez_compressed(file, **arrays)),
        "/brain-development/downloads/IXI/IXI-T1.tar": tarred(
            {f"IXI{number:03d}-Guys-{700 + number}-T1.nii.gz": gz[names[0]] for number in range(2, 7)}),
        "/records/7418878/files/htc2022_test_data.zip": zipped(
            {f"htc2022_0{level}a_{kind}.mat": saved(scipy.io.savemat, disc(24)) for level in range(1, 5)
             for kind in ("full", "limited")}),
    }
    for part, count in {"train": 130, "validation": 3, "test": 3}.items():
        images = rng.random((count, 12, 12), np.float32)
        found[f"/records/3384092/files/ground_truth_{part}.zip"] = zipped(
            {f"ground_truth_{part}_{at // 128:03d}.hdf5": hdf5(images[at:at + 128]) for at in range(0, count, 128)})
        first = ("train", "validation", "test").index(part) * 100
        found[f"/records/3384092/files/patient_ids_rand_{part}.csv"] = "".join(
            f"{first + n % 7}\n" for n in range(count)).encode()
    return found


def local(public: download.PublicSet, server: Server) -> download.PublicSet:
    """The same set at this server, with the checksums of what lies there."""
    def at(file: File) -> File:
        path = "/" + file.url.split("/", 3)[3]
        content = server.files.get(path.partition("?")[0], b"")
        kind = download.KINDS.get(len(file.checksum))
        return File(server.url(path), file.target, hashlib.new(kind, content).hexdigest() if kind else "")

    return dataclasses.replace(public, subsets={name: list(map(at, files)) for name, files in public.subsets.items()})


def next_splits(line: str, tmp_path: Path):
    """What the command that was printed divides into parts."""
    words = shlex.split(line.removeprefix("next: "))
    if words[:3] == ["python", "-m", "medjax.build"]:
        given = dict(word.removeprefix("--").split("=", 1) for word in words[4:])
        builder = builder_class(DATASETS / f"{words[3]}.py")(source=given["from"])
        shard_writer.build(builder, tmp_path / "built")
        return split(Files(str(tmp_path / "built"), cache=str(tmp_path / "cache")).load())
    flags = dict(word.removeprefix("--").split("=", 1) for word in words[2:])
    file, _, structure = flags.pop("config").partition(":")
    config = importlib.import_module(file.removesuffix(".py").replace("/", ".")).get_config(structure)
    flat = {key.removeprefix("config."): value for key, value in flags.items() if key != "workdir"}
    with config.ignore_type():
        config.update_from_flattened_dict({key: value if isinstance(config_value(config, key), str)
                                           else ast.literal_eval(value) for key, value in flat.items()})
    if "cache" in config.data.source:
        config.data.source.cache = str(tmp_path / "cache")
    return load_splits(config)


def config_value(config, key: str):
    return functools.reduce(lambda group, name: group[name], key.split("."), config)


@pytest.mark.parametrize(("name", "subset"), DOCUMENTED)
def test_each_set_is_downloaded_and_the_printed_command_reads_it_by_subject(name, subset, server, tmp_path):
    server.files = layout()
    public, folder = local(SETS[name], server), tmp_path / name
    first, *done, line = download.get(public, folder, subset)
    assert {f"licence: {public.licence}", f"cite: {public.citation}"} <= set(first.splitlines())
    assert ["give no checksum" in said for said in done] == [name == "htc2022"] * len(done)
    splits = next_splits(line, tmp_path)
    subjects = [{region.record.subject for region in regions} for regions in splits.values()]
    assert all(subjects)
    if name != "lodopab":
        assert sum(map(len, subjects)) == len(set().union(*subjects)) == {
            "msd": 5, "kvasir_seg": 6, "medmnist": 12, "ixi": 5, "htc2022": 4}[name]
    noted = json.loads((folder / "checksums.json").read_text())
    assert sorted(noted) == sorted(file.target for file in public.subsets[subset or next(iter(public.subsets))])
    assert not [path.name for path in folder.iterdir() if "unfinished" in path.name]
    asked = len(server.asked)
    assert sum(said.startswith("there already") for said in download.get(public, folder, subset)) == len(noted)
    assert len(server.asked) == asked


def test_the_page_has_every_set():
    assert [name for name, _ in DOCUMENTED] == ["msd", "kvasir_seg", "medmnist", "ixi", "lodopab", "htc2022"]
    assert sorted(SETS) == sorted(name for name, _ in DOCUMENTED)
    files = [file for public in SETS.values() for subset in public.subsets.values() for file in subset]
    assert len({file.url for file in files}) == len(files)
    assert all(re.fullmatch(r"[0-9a-f]{32}|[0-9a-f]{64}|", file.checksum) for file in files)


def test_slices_of_lodopab_are_in_hu_with_the_patients_of_its_tables(server, tmp_path):
    server.files = layout()
    list(download.get(local(SETS["lodopab"], server), tmp_path / "lodopab", ""))
    builder = builder_class(DATASETS / "lodopab.py")(source=str(tmp_path / "lodopab"))
    records = [record for item in builder.items if item.part == "train" for record in builder.records(item)]
    assert [record.subject for record in records] == [f"patient{n % 7:04d}" for n in range(130)]
    low, high = ((value * records[0].slope + records[0].intercept) for value in (0.02 / 81.35858, 1.0))
    np.testing.assert_allclose((low, high), (-1000, 3071), atol=0.01)  # air, and what the makers call 1


def test_contrasts_of_one_person_count_as_one_subject(server, tmp_path):
    volume = gzip.compress(nifti(np.ones((4, 4, 4), np.uint8)))
    server.files = {f"/{contrast}.tar": tarred({f"IXI{n:03d}-HH-{n}-{contrast}.nii.gz": volume for n in range(4)})
                    for contrast in ("T1", "T2")}
    files = [File(server.url(f"/{contrast}.tar"), contrast) for contrast in ("T1", "T2")]
    list(download.get_files(files, tmp_path, SETS["ixi"].subject))
    assert sorted(study.subject for study in discover(tmp_path)) == [f"IXI{n:03d}" for n in range(4) for _ in range(2)]


# Connections


CONTENT = np.random.default_rng(1).bytes(500_000)
MD5 = hashlib.md5(CONTENT).hexdigest()


def got(server: Server, folder: Path, content: bytes = CONTENT, checksum: str = MD5) -> list[str]:
    server.files["/a.bin"] = content
    return list(download.get_files([File(server.url("/a.bin"), "a.bin", checksum)], folder))


def test_a_broken_connection_is_resumed(server, tmp_path):
    server.drops, server.says = [100_000, 200_000], [200, 503]
    got(server, tmp_path)
    assert server.asked == ["", "bytes=100000-", "bytes=100000-", "bytes=300000-"]
    assert (tmp_path / "a.bin").read_bytes() == CONTENT


@pytest.mark.parametrize("missing", ["ranges", "etag"])
def test_without_ranges_or_a_version_it_begins_anew(server, tmp_path, missing):
    setattr(server, missing, False)
    server.drops = [300_000]
    got(server, tmp_path)
    assert server.asked == ["", "bytes=300000-" if missing == "ranges" else ""]
    assert (tmp_path / "a.bin").read_bytes() == CONTENT


def test_no_version_is_appended_to_another(server, tmp_path):
    server.drops = [300_000] * 20
    server.ranges = False
    with pytest.raises(UserError, match=r"a\.bin: the connection ended after 300000 of 500000 bytes; run the same command"):
        got(server, tmp_path)
    assert len(server.asked) == download.TRIES
    server.drops, server.ranges = [], True
    newer = CONTENT[::-1]
    got(server, tmp_path, newer, "")
    assert (tmp_path / "a.bin").read_bytes() == newer
    (tmp_path / "a.bin").unlink()
    server.drops = [300_000]
    server.says = [200, 404]
    with pytest.raises(UserError, match="the server says 404"):
        got(server, tmp_path, newer, "")
    short = newer[:1000]
    with pytest.raises(UserError, match="has noted"):  # the server says 416; then it is not what it was the first time
        got(server, tmp_path, short, "")
    assert not (tmp_path / "a.bin").exists()


def test_a_server_that_does_not_say_the_length(server, tmp_path):
    server.length = False
    got(server, tmp_path)
    assert (tmp_path / "a.bin").read_bytes() == CONTENT


def test_nobody_answers(server, tmp_path):
    with pytest.raises(UserError, match=r"127\.0\.0\.1:1/a\.bin: .*refused.*resumes"):
        list(download.get_files([File("http://127.0.0.1:1/a.bin", "a.bin")], tmp_path))


# Contents


def test_a_wrong_checksum_is_said_and_nothing_is_kept(server, tmp_path):
    with pytest.raises(UserError, match=f"has the md5 {MD5} where its makers say {'0' * 32}"):
        got(server, tmp_path, checksum="0" * 32)
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]
    got(server, tmp_path)


def test_an_unknown_checksum_is_noted_and_asked_for_later(server, tmp_path):
    (said,) = got(server, tmp_path, checksum="")
    assert "its makers give no checksum" in said
    assert json.loads((tmp_path / "checksums.json").read_text())["a.bin"]["sha256"] == hashlib.sha256(CONTENT).hexdigest()
    (tmp_path / "a.bin").unlink()
    with pytest.raises(UserError, match=r"where checksums\.json has noted"):
        got(server, tmp_path, CONTENT[:-1], "")
    assert got(server, tmp_path, checksum="") == [f"written: {tmp_path / 'a.bin'}"]


def test_what_the_user_has_is_left(server, tmp_path):
    (tmp_path / "a.bin").write_text("mine")
    with pytest.raises(UserError, match=r"a\.bin: is there, but was not downloaded"):
        got(server, tmp_path)
    assert (tmp_path / "a.bin").read_text() == "mine"


def bad_tar(kind: bytes, name: str) -> bytes:
    with tarfile.open(fileobj=(made := io.BytesIO()), mode="w") as opened:
        entry = tarfile.TarInfo(name)
        entry.type, entry.linkname = kind, "/etc/passwd"
        opened.addfile(entry)
    return made.getvalue()


def bad_zip(**changes: int) -> bytes:
    entry = zipfile.ZipInfo("a")
    for name, value in changes.items():
        setattr(entry, name, value)
    with zipfile.ZipFile(made := io.BytesIO(), "w") as opened:
        opened.writestr(entry, "/etc/passwd")
    return made.getvalue()


@pytest.mark.parametrize(("name", "content", "problem"), [
    ("a.zip", zipped({"../a": b"1"}), "no plain file below"), ("a.zip", zipped({"/a": b"1"}), "no plain file below"),
    ("a.tar", tarred({"b/../../a": b"1"}), "no plain file below"), ("a.zip", zipped({"..\\a": b"1"}), "no plain file below"),
    ("a.tar", bad_tar(tarfile.SYMTYPE, "a"), "no plain file"), ("a.tar", bad_tar(tarfile.LNKTYPE, "a"), "no plain file"),
    ("a.tar", bad_tar(tarfile.FIFOTYPE, "a"), "no plain file"), ("a.zip", bad_zip(external_attr=0o120777 << 16), "no plain"),
    ("a.tar", tarred({"a": b"1", "./a": b"2"}), "twice"), ("a.tar", tarred({"a": b"1", "a/b": b"2"}), "twice"),
    ("a.tar", tarred({"a": bytes(99_999)})[:5000], "damaged"), ("a.zip", zipped({"a": bytes(99_999)})[:-30], "damaged"),
    ("a.zip", bad_zip().replace(b"/etc/passwd", b"/etc/shadow"), "damaged"), ("a.tar", b"<html>Log in", "damaged"),
    ("a.zip", zipped({}), "has no files")])
def test_bad_archives_are_refused_and_removed(name, content, problem, server, tmp_path):
    server.files[f"/{name}"] = content
    with pytest.raises(UserError, match=f"{name}: .*{problem}"):
        list(download.get_files([File(server.url(f"/{name}"), "out")], tmp_path / "to"))
    assert [path.name for path in tmp_path.rglob("*")] == ["to", ".lock"]


# Disks, signals


def test_a_full_disk_is_one_line_and_resumed(server, tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=499_999))
    with pytest.raises(UserError, match=r"0\.5 MB are needed and 0\.5 MB are free; make room"):
        got(server, tmp_path)
    server.files["/a.zip"] = zipped({"a": bytes(600_000)})
    with pytest.raises(UserError, match=r"0\.6 MB are needed and 0\.5 MB are free; make room"):
        list(download.get_files([File(server.url("/a.zip"), "a")], tmp_path))
    monkeypatch.undo()
    monkeypatch.setenv("no_proxy", "*")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, before[1]))
    try:
        for _ in range(2):
            with pytest.raises(OSError, match="File too large"):
                got(server, tmp_path)
        with pytest.raises(OSError, match="File too large"):
            list(download.get_files([File(server.url("/a.zip"), "a")], tmp_path))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    asked = len(server.asked)
    assert list(download.get_files([File(server.url("/a.zip"), "a")], tmp_path)) == [
        f"written: {tmp_path / 'a'}; its makers give no checksum: its sha256 is noted in checksums.json"]
    assert len(server.asked) == asked  # it was there, only not unpacked
    got(server, tmp_path)
    assert server.asked[-1] == "bytes=200000-"
    assert (tmp_path / "a.bin").read_bytes() == CONTENT


OWN = """
from medjax.data.storage.download import File, PublicSet
ALL = [File("{url}", "a.bin", "{md5}")]
MINE = PublicSet("Mine", "CC0", "nobody", "home", {{"all": ALL}}, lambda folder, subset: "go on")
"""


@pytest.mark.parametrize(("number", "code", "said"), [(signal.SIGTERM, 143, ""), (signal.SIGINT, 130, "interrupted")])
def test_an_ended_command_is_resumed_by_the_same(number, code, said, server, tmp_path):
    server.files["/a.bin"], server.pause = CONTENT, 0.2
    (tmp_path / "mine.py").write_text(OWN.format(url=server.url("/a.bin"), md5=MD5))
    line = ["-m", "medjax.download", str(tmp_path / "mine.py"), f"--to={tmp_path / 'DATA'}"]
    process = command(*line, wait=False)
    assert isinstance(process, subprocess.Popen)
    unfinished = tmp_path / "DATA" / "mine" / ".unfinished-a.bin"
    while not (unfinished.exists() and unfinished.stat().st_size):
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == code
    assert "Traceback" not in err
    assert said in err
    assert not (tmp_path / "DATA" / "mine" / "a.bin").exists()
    server.pause = 0.0
    code, out, _ = command(*line)
    assert code == 0
    assert server.asked[-1].startswith("bytes=")
    assert out.splitlines()[-2:] == [f"written: {tmp_path / 'DATA' / 'mine' / 'a.bin'}", "next: go on"]
    assert (tmp_path / "DATA" / "mine" / "a.bin").read_bytes() == CONTENT


@pytest.mark.parametrize(("words", "said"), [
    (["nothing", "--to=DATA"], "error: medjax.download: no public data set 'nothing'; there is htc2022, ixi, kvasir_seg"),
    (["msd", "--to=DATA", "--subset=T9"], "error: --subset: unknown 'T9'; choose from Task02_Heart, Task03_Liver"),
    (["files", "--to=DATA"], "error: {root}/datasets/files.py: says of no place to download from")])
def test_mistakes_are_one_line(words, said, tmp_path):
    code, _, err = command("-m", "medjax.download", *words)
    assert (code, err.count("\n")) == (2, 1)
    assert err.startswith(said.format(root=ROOT))
