"""`python -m medjax.build`: killed and started again, verified, and what it says where it can't."""

import gzip
import importlib.util
import json
import resource
import signal
import stat
import time

import numpy as np
import pytest

from medjax.data.sources.files import Files
from medjax.data.sources.phantoms import Phantoms
from medjax.data.sources.shards import Shards
from medjax.data.storage import shard_writer
from medjax.data.storage.builder import builder_class
from medjax.data.storage.names import salt_file
from medjax.data.storage.tfds_layout import unfinished
from medjax.files import UNFINISHED
from medjax.types import UserError
from tests.commands import ROOT, command
from tests.names import readable, stored_as

BUILD = ["-m", "medjax.build", "phantoms"]
OPTIONS = {"kind": "chest", "shape": (12, 48, 48), "count": 24}
GIVEN = "--options=kind=chest;shape=12,48,48;count=24"
RETRIES = 600


def phantoms(**options):
    return builder_class(ROOT / "datasets" / "phantoms.py")(**options)


@pytest.mark.slow
def test_a_killed_build_goes_on_and_loses_and_doubles_nothing(tmp_path):
    folder = tmp_path / "phantoms" / "1.0.0"
    process = command(*BUILD, GIVEN, f"--to={tmp_path}", "--processes=2", wait=False)
    for _ in range(RETRIES):
        written = list(unfinished(folder).glob("*/.notes/phantoms-*.json"))
        if written:
            break
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    times = {path: path.stat().st_mtime_ns for path in unfinished(folder).glob("*/phantoms-*")}
    assert times
    assert not folder.exists()
    with pytest.raises(UserError, match="is half built"):
        Files(path=str(folder)).load()

    code, out, err = command(*BUILD, GIVEN, f"--to={tmp_path}", "--processes=1")
    assert code == 0, err
    assert f"next: python train.py --config=configs/ct_lowdose.py --workdir=runs/phantoms --config.data.path={folder}" in out
    kept = [path for path, when in times.items() if (folder / path.name).stat().st_mtime_ns == when]
    assert {path.name for path in kept} >= {path.stem for path in written}  # what was whole was not written again
    assert list(tmp_path.rglob(".*")) == []

    records = Files(path=str(folder), cache=str(tmp_path / "cache")).load()
    source = {record.id: record.image for record in Phantoms(**OPTIONS).load()}
    assert sorted(record.id for record in records) == sorted(source)
    for record in records:
        np.testing.assert_array_equal(np.asarray(record.image), source[record.id])
    noted = json.loads((folder / "manifest.json").read_text())
    assert set(noted["files"]) | {"manifest.json"} == {path.name for path in folder.iterdir()}
    assert [row["examples"] for row in noted["splits"].values()] == [20, 2, 2]

    code, out, err = command(*BUILD, f"--to={tmp_path}", "--verify")
    assert code == 0, err
    assert f"verified: {folder}" in out
    shard = sorted(folder.glob("*train*-of-?????"))[1]
    damaged = bytearray(shard.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    shard.write_bytes(damaged)
    code, out, err = command(*BUILD, f"--to={tmp_path}", "--verify")
    assert (code, out) == (2, "")
    assert err.splitlines()[-1].endswith(
        f"error: {shard}: fails its checksum; delete it and run the command that builds the set again")
    shard.unlink()
    again = phantoms(**OPTIONS, source="", patch=(), overlap=0, dtype="", fractions=(0.8, 0.1, 0.1))  # as the flags say it
    assert shard_writer.build(again, folder)["splits"] == noted["splits"]
    shard_writer.verify(folder)


def test_a_full_disk_is_one_line_and_the_same_command_goes_on(tmp_path):
    """A limit on the size of files stands for the disk: the write fails in the middle, as it does there."""
    folder = tmp_path / "out"
    random = np.random.default_rng(0)
    (tmp_path / "in").mkdir()
    for number in range(6):
        shape = (40, 40, 40) if number == 2 else (8, 8, 8)
        np.save(tmp_path / "in" / f"s{number}.npy", random.integers(0, 30000, shape).astype(np.int16))
    builder = builder_class(ROOT / "datasets" / "files.py")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, hard))
    try:
        with pytest.raises(UserError, match=r"array_record.*can't be written: .*File too large.*; make room") as caught:
            shard_writer.build(builder(source=str(tmp_path / "in")), folder)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "\n" not in str(caught.value)
    assert not folder.exists()
    assert not list(tmp_path.rglob(f"{UNFINISHED}*"))
    shard_writer.build(builder(source=str(tmp_path / "in")), folder)
    shard_writer.verify(folder)
    records = Files(path=str(folder), cache=str(tmp_path / "cache")).load()
    for record in readable(folder, records, [f"s{number}" for number in range(6)]):
        np.testing.assert_array_equal(np.asarray(record.image)[..., 0], np.load(tmp_path / "in" / f"{record.id}.npy"))


def test_a_folder_that_holds_another_build_is_left_alone(tmp_path):
    folder = tmp_path / "out"
    before = shard_writer.build(phantoms(shape=(16, 16), count=4), folder)
    with pytest.raises(UserError, match="is there already, of other files or other options"):
        shard_writer.build(phantoms(shape=(16, 16), count=5), folder)
    assert shard_writer.build(phantoms(shape=(16, 16), count=4), folder) == before
    shard_writer.verify(folder)
    assert not unfinished(folder).exists()


def test_a_second_build_of_the_same_waits_for_nobody(tmp_path):
    with shard_writer._held(tmp_path / "out"), pytest.raises(UserError, match="another build is writing here"):
        shard_writer.build(phantoms(shape=(16, 16), count=4), tmp_path / "out")


def test_studies_that_fail_end_the_build_and_what_is_done_stays(tmp_path, monkeypatch):
    builder = phantoms(shape=(16, 16), count=8)
    read = builder.records

    def failing(item):
        if item.id.endswith("5"):
            raise UserError(item.id, "is damaged")
        return read(item)

    monkeypatch.setattr(builder, "records", failing)
    with pytest.raises(UserError, match="chest-0-0005: is damaged"):
        shard_writer.build(builder, tmp_path / "out")
    read_again = []
    builder = phantoms(shape=(16, 16), count=8)
    read = builder.records
    monkeypatch.setattr(builder, "records", lambda item: read_again.append(item.id) or read(item))
    shard_writer.build(builder, tmp_path / "out")
    assert "chest-0-0005" in read_again
    assert len(read_again) < 8


def test_a_file_that_was_mended_costs_its_own_shard_alone(tmp_path):
    (tmp_path / "in").mkdir()
    for number in range(8):
        np.save(tmp_path / "in" / f"s{number}.npy", np.full((8, 9 + number, 10), number, np.uint8))
    files = builder_class(ROOT / "datasets" / "files.py")
    sound = (tmp_path / "in" / "s6.npy").read_bytes()
    (tmp_path / "in" / "s6.npy").write_bytes(sound[:200])
    with pytest.raises(UserError, match=r"s6\.npy"):
        shard_writer.build(files(source=str(tmp_path / "in")), tmp_path / "out")
    times = {path.name: path.stat().st_mtime_ns for path in unfinished(tmp_path / "out").glob("*/files-*")}
    assert times
    (tmp_path / "in" / "s6.npy").write_bytes(sound)
    shard_writer.build(files(source=str(tmp_path / "in")), tmp_path / "out")
    assert all((tmp_path / "out" / name).stat().st_mtime_ns == when for name, when in times.items())
    shard_writer.verify(tmp_path / "out")


def test_other_options_take_nothing_over_from_a_build_that_was_given_up(tmp_path, monkeypatch):
    builder = phantoms(shape=(16, 16), count=8)
    monkeypatch.setattr(shard_writer, "_finish", lambda *_: (_ for _ in ()).throw(UserError("here", "stopped")))
    with pytest.raises(UserError, match="stopped"):
        shard_writer.build(builder, tmp_path / "out")
    monkeypatch.undo()
    shard_writer.build(phantoms(shape=(16, 16), count=5, seed=1), tmp_path / "out")
    records = Files(path=str(tmp_path / "out"), cache=str(tmp_path / "cache")).load()
    assert sorted(r.id for r in records) == [f"chest-1-{n:04d}" for n in range(5)]
    assert {path.name for path in (tmp_path / "out").glob("*train*-of-?????")} == {
        f"phantoms-train.array_record-{n:05d}-of-00003" for n in range(3)}


def test_a_built_set_names_nobody(tmp_path):
    """Neither a shard nor its index, the manifest or a digest has, or lets one test a guess at, a name."""
    names = ["DOE^JANE", "ROE^RICHARD", "POE^EDGAR"]
    for number, name in enumerate(names):
        (tmp_path / "in" / name).mkdir(parents=True)
        np.save(tmp_path / "in" / name / f"{name}.npy", np.full((8, 9, 10), number, np.uint8))
    files = builder_class(ROOT / "datasets" / "files.py")
    folder = tmp_path / "files" / "1.0.0"
    noted = shard_writer.build(files(source=str(tmp_path / "in")), folder)
    salt = salt_file(folder)
    assert salt.parent == folder.parent
    assert stat.S_IMODE(salt.stat().st_mode) == 0o600
    unpacked = Files(path=str(folder), cache=str(tmp_path / "cache")).load()
    in_place = Shards(str(folder)).load()
    for told in (unpacked, in_place):
        ids = sorted(f"{name}/{name}" for name in names)
        assert sorted(r.id for r in told) == sorted(stored_as(folder, id_) for id_ in ids)
        assert {r.subject for r in told} == {stored_as(folder, name) for name in names}
    stored = [path for place in (folder, tmp_path / "cache") for path in place.rglob("*") if path.is_file()]
    for path in stored:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".index" else path.read_bytes()
        assert not any(part.encode() in content + str(path.name).encode() for name in names for part in name.split("^"))
    # Without the salt what is written doesn't follow from the names, and with it, it does.
    one, other = (shard_writer.build(files(source=str(tmp_path / "in")), tmp_path / place)["digest"] for place in "ab")
    assert len({one, other, noted["digest"]}) == 3
    salt_file(tmp_path / "c").write_text(salt.read_text())
    assert shard_writer.build(files(source=str(tmp_path / "in")), tmp_path / "c")["digest"] == noted["digest"]


def test_a_set_whose_salt_is_gone_is_not_built_on(tmp_path):
    (tmp_path / "in").mkdir()
    for number in range(3):
        np.save(tmp_path / "in" / f"s{number}.npy", np.full((8, 9, 10), number, np.uint8))
    files = builder_class(ROOT / "datasets" / "files.py")
    shard_writer.build(files(source=str(tmp_path / "in")), tmp_path / "out")
    salt = salt_file(tmp_path / "out").read_text()
    salt_file(tmp_path / "out").unlink()
    with pytest.raises(UserError, match=r"out\.salt: is gone, and the names in .*out are hashes with it; restore it"):
        shard_writer.build(files(source=str(tmp_path / "in")), tmp_path / "out")
    assert len(Files(path=str(tmp_path / "out"), cache=str(tmp_path / "cache")).load()) == 3  # reading needs none
    salt_file(tmp_path / "out").write_text(salt[:10])
    with pytest.raises(UserError, match=r"out\.salt: is damaged"):
        shard_writer.build(files(source=str(tmp_path / "in")), tmp_path / "out")


def test_a_build_that_fails_leaves_no_salt(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.npy").write_bytes(b"damaged")
    files = builder_class(ROOT / "datasets" / "files.py")
    with pytest.raises(UserError, match="damaged"):
        shard_writer.build(files(source=str(tmp_path / "in")), tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


@pytest.mark.parametrize(("given", "says"), [
    (["-m", "medjax.build", "nothing"], "error: medjax.build: no builder 'nothing'; there is fastmri, files, lodopab, mayo"),
    ([*BUILD, "--options=colour=1"], "error: --options: phantoms has no 'colour'; it has kind, shape, count, seed"),
])
def test_mistakes_are_one_line(tmp_path, given, says):
    code, out, err = command(*given, f"--to={tmp_path}")
    assert (code, out) == (2, "")
    assert err.startswith(says)
    assert len(err.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(importlib.util.find_spec("apache_beam") is not None, reason="apache-beam is installed")
def test_beam_that_is_not_installed_is_said(tmp_path):
    with pytest.raises(UserError, match="--engine: beam needs a package that is not installed: pip install apache-beam"):
        shard_writer.build(phantoms(shape=(16, 16), count=4), tmp_path / "out", engine="beam")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(importlib.util.find_spec("apache_beam") is None, reason="apache-beam is not installed")
def test_beam_builds_the_same(tmp_path):
    alone, beam = (shard_writer.build(phantoms(shape=(16, 16), count=6), tmp_path / engine, engine=engine)
                   for engine in ("processes", "beam"))
    assert alone["splits"] == beam["splits"]
    assert alone["digest"] == beam["digest"]
