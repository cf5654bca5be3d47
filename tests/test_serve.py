"""The whole server as it is started, with a trained run: its answers are those of apply, and it leaves nothing behind."""

import gzip
import json
import re
import shutil
import signal
import socket
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import nibabel
import numpy as np
import pydicom
import pytest
from pydicom.uid import generate_uid

from medjax.serve import work
from medjax.serve.access import access_at, address_of
from medjax.serve.jobs import Jobs
from medjax.serve.limits import MIB, Limits
from medjax.serve.work import Setup
from medjax.serve.worker import Worker
from medjax.types import UserError
from tests.browser import Browser
from tests.commands import ROOT, command
from tests.dicom_files import changed, complaints, image, needs_dciodvfy
from tests.serving import Client, files_below, form, until
from tests.test_viewer import needs_chromium

DCMTK = [shutil.which(name) for name in ("storescu", "storescp", "curl")]
ACCEPTED = "--accept=spacing,values"
CHANGED = {"SOPInstanceUID", "SeriesInstanceUID", "InstanceCreationDate", "InstanceCreationTime",
           "ContributingEquipmentSequence"}


@pytest.mark.parametrize(("host", "text", "names", "says"), [
    ("0.0.0.0", None, (), "--host: 0.0.0.0 is open to other machines, and there is no --token_file"),
    ("0.0.0.0", "x" * 20, (), "--allowed_host: is missing"), ("127.0.0.1", "short", (), "--token_file: .* at least 16"),
    ("127.0.0.1", "with a blank in it", (), "at least 16"), ("no.such.host.invalid", None, (), "--host: .* is no address")])
def test_what_opens_the_server_too_far_is_refused(tmp_path, host, text, names, says):
    path = tmp_path / "token"
    if text:
        path.write_text(text)
        path.chmod(0o600)
    with pytest.raises(UserError, match=says):
        access_at(address_of(host), host, str(path) if text else "", names)


def test_a_token_is_its_owners_alone(tmp_path):
    (tmp_path / "token").write_text("x" * 20 + "\n")
    with pytest.raises(UserError, match="chmod 600"):
        access_at("127.0.0.1", "127.0.0.1", str(tmp_path / "token"), ())
    (tmp_path / "token").chmod(0o600)
    found = access_at("192.0.2.1", "scans.example", str(tmp_path / "token"), ["Other.example"])
    assert (found.token, found.hosts) == ("x" * 20, {"scans.example", "192.0.2.1", "other.example"})


@pytest.mark.parametrize(("kind", "inputs", "says"), [
    ("image", ("moving", "fixed"), "takes several images"), ("kspace", ("kspace",), "takes a kspace")])
def test_runs_that_take_something_else_than_an_image_are_not_served(monkeypatch, kind, inputs, says):
    config = SimpleNamespace(task=SimpleNamespace(name="x"))
    run = SimpleNamespace(task=SimpleNamespace(kind=kind, inputs=inputs), config=config)
    monkeypatch.setattr(work.Application, "restore", lambda *_: SimpleNamespace(run=run))
    with pytest.raises(UserError, match=f"runs: its task x {says}; serve a run that takes one image"):
        work.restore(Setup(Path("runs"), Limits()))


@pytest.fixture(scope="module")
def scans(tmp_path_factory) -> Path:
    """A volume as NIfTI in two ways, and as a DICOM series in a folder and in a zip."""
    folder = tmp_path_factory.mktemp("scans")
    (folder / "both" / "series").mkdir(parents=True)
    volume = np.random.default_rng(0).integers(0, 200, (30, 26, 4)).astype(np.int16)
    for name in ("both/a.nii.gz", "a.nii"):
        nibabel.Nifti1Image(volume, np.diag([1, 1, 2, 1.0])).to_filename(folder / name)
    nibabel.Nifti1Image(np.tile(volume, (10, 10, 50)), np.eye(4)).to_filename(folder / "long.nii")
    with zipfile.ZipFile(folder / "series.zip", "w") as archive:
        for number in range(volume.shape[2]):
            path = folder / "both" / "series" / f"DOE {number}.dcm"
            image(volume[..., number].view(np.uint16), 2.0 * number, PatientName="DOE^JOHN", PixelSpacing=[1.0, 1.0],
                  InstanceNumber=number + 1).save_as(path, enforce_file_format=True)
            archive.write(path, f"DOE JOHN/{path.name}")
    return folder


@pytest.fixture(scope="module")
def applied(trained, scans) -> Path:
    """What apply makes of the volume and of the series."""
    code, _, err = command("-m", "medjax.apply", f"--workdir={trained}", f"--input={scans / 'both'}",
                           f"--output={scans / 'applied'}", ACCEPTED)
    assert code == 0, err
    return scans


class Running:
    """The server as a command, with its files below `scratch`."""

    def __init__(self, workdir: Path, scratch: Path, *flags: str):
        scratch.mkdir()
        self.scratch = scratch
        self.process = command("-m", "medjax.serve", f"--workdir={workdir}", "--port=0", f"--scratch={scratch}", ACCEPTED,
                               *flags, wait=False)
        self.said = []
        while not self.said or not self.said[-1].startswith("next:"):
            self.said.append(self.process.stdout.readline())
            assert self.said[-1], self.process.stderr.read()
        text = "".join(self.said)
        (self.folder,) = scratch.iterdir()
        self.client = Client(int(re.search(r"http://127\.0\.0\.1:(\d+)/", text)[1]), self.folder / "jobs")
        found = re.search(r"MEDJAX@127\.0\.0\.1:(\d+)", text)
        self.dicom_port = int(found[1]) if found else 0

    def worker(self) -> int:
        """The id of the process that computes: the child that holds the most memory."""
        children = Path(f"/proc/{self.process.pid}/task")
        pids = [int(pid) for task in children.iterdir() for pid in (task / "children").read_text().split()]
        return max(pids, key=lambda pid: int(Path(f"/proc/{pid}/statm").read_text().split()[1]))

    def end(self, number: int = signal.SIGTERM) -> tuple[int, str]:
        """Its exit code, and all that it said of errors."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        _, err = self.process.communicate(timeout=60)
        return self.process.returncode, err


@pytest.fixture(scope="module")
def server(trained, tmp_path_factory):
    one = Running(trained, tmp_path_factory.mktemp("server") / "scratch", "--queue=3")
    yield one
    code, err = one.end()
    assert code == 128 + signal.SIGTERM
    assert not list(one.scratch.iterdir())
    assert "DOE" not in err
    assert "Traceback" not in err


def shown_in_docs() -> list[str]:
    """The lines for a shell in docs/serve.md."""
    page = ROOT.joinpath("docs", "serve.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```sh\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    return [line for block in blocks for line in re.sub(r"\\\n +", "", block).splitlines()]


def result(server: Running, upload: bytes) -> bytes:
    answer = server.client.ask("POST", "/apply", upload)
    assert answer.status == 200, answer.body
    return answer.body


@pytest.mark.slow
def test_answers_are_those_of_apply(server, applied, tmp_path):
    made = result(server, (applied / "both" / "a.nii.gz").read_bytes())
    assert made == (applied / "applied" / "a.nii.gz").read_bytes()
    plain = result(server, (applied / "a.nii").read_bytes())
    assert plain == gzip.decompress(made)
    (tmp_path / "result.zip").write_bytes(result(server, (applied / "series.zip").read_bytes()))
    with zipfile.ZipFile(tmp_path / "result.zip") as archive:
        archive.extractall(tmp_path)
    expected = sorted((applied / "applied" / "series").iterdir())
    found = sorted((tmp_path / "result").iterdir())
    assert [path.name for path in found] == [path.name for path in expected]
    for one, other in zip(found, expected, strict=True):
        same_but_for_uids(one, other)
    single = expected[0].name
    body, headers = form((applied / "both" / "series" / single).read_bytes(), "DOE.dcm")
    answer = server.client.ask("POST", "/apply", body, headers)
    (tmp_path / "one.dcm").write_bytes(answer.body)
    assert pydicom.dcmread(tmp_path / "one.dcm").PatientName == "DOE^JOHN"
    assert server.client.is_empty()


@pytest.mark.slow
def test_all_series_of_a_zip_are_applied_and_what_is_left_out_is_noted(server, applied, tmp_path):
    with zipfile.ZipFile(tmp_path / "upload.zip", "w") as archive:
        for place in ("T1/a", "T2"):
            uid = generate_uid()
            for path in sorted((applied / "both" / "series").iterdir()):
                changed(path, tmp_path / "one.dcm", SeriesInstanceUID=uid)
                archive.write(tmp_path / "one.dcm", f"{place}/{path.name}")
        changed(path, tmp_path / "one.dcm", SeriesDescription="localizer", SeriesInstanceUID=generate_uid())
        archive.write(tmp_path / "one.dcm", "localizer.dcm")
    name = server.client.ask("POST", "/jobs", (tmp_path / "upload.zip").read_bytes()).json["id"]
    state = server.client.wait(name)
    assert (state["status"], state["notes"]) == ("done", ["series: left out 1 localizer"])
    (tmp_path / "result.zip").write_bytes(server.client.ask("GET", state["result"]).body)
    with zipfile.ZipFile(tmp_path / "result.zip") as archive:
        names = [path.name for path in sorted((applied / "both" / "series").iterdir())]
        assert sorted(archive.namelist()) == [f"{place}/{name}" for place in ("T1/a", "T2") for name in names]


def same_but_for_uids(one: Path, other: Path) -> None:
    """Pixels and header, but for identifiers and times of its own."""
    first, second = (pydicom.dcmread(path) for path in (one, other))
    np.testing.assert_array_equal(first.pixel_array, second.pixel_array)
    assert {e.keyword for e in first} == {e.keyword for e in second}
    assert [e for e in first if e.keyword not in CHANGED] == [e for e in second if e.keyword not in CHANGED]
    assert first.SeriesInstanceUID != second.SeriesInstanceUID


@pytest.mark.slow
def test_the_command_that_it_prints_works(server, applied, tmp_path):
    """As is all that docs/serve.md shows of curl."""
    if not shutil.which("curl"):
        pytest.skip("curl is not installed")
    printed = server.said[-1].removeprefix("next: ").strip()
    shown = [line for line in shown_in_docs() if line.startswith("curl")]
    assert any("/apply" in line for line in shown)
    address = f"http://127.0.0.1:{server.client.port}"
    made = (applied / "applied" / "a.nii.gz").read_bytes()
    (tmp_path / "SCAN.nii.gz").write_bytes((applied / "both" / "a.nii.gz").read_bytes())
    (tmp_path / "SERIES.zip").write_bytes((applied / "series.zip").read_bytes())
    name = ""
    for line in [printed, *shown]:
        line = line.replace("http://127.0.0.1:8080", address).replace("ID", name or "ID")
        done = subprocess.run(["sh", "-c", line], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, (line, done.stderr)
        if "RESULT.nii.gz" in line:
            assert (tmp_path / "RESULT.nii.gz").read_bytes() == made
            (tmp_path / "RESULT.nii.gz").unlink()
        if line.endswith("/jobs"):
            name = json.loads(done.stdout)["id"]
            server.client.wait(name)


@pytest.mark.slow
def test_what_is_damaged_or_does_not_fit_is_said_in_a_line_without_the_servers_folder(server, applied):
    damaged = gzip.compress(gzip.decompress((applied / "both" / "a.nii.gz").read_bytes())[:3000])
    answer = server.client.ask("POST", "/apply", damaged)
    assert answer.status == 422
    assert answer.error.startswith("upload.nii.gz: damaged NIfTI file: ")
    path = applied / "other.dcm"
    image(np.full((8, 8), 9, np.uint16), Modality="CT").save_as(path, enforce_file_format=True)
    answer = server.client.ask("POST", "/apply", path.read_bytes())
    assert (answer.status, answer.error) == (422, "upload: its modality is CT, and the model was trained on MR; use another "
                                             "model, or --accept=modality")


@pytest.mark.slow
@needs_chromium
def test_the_page_uploads_shows_errors_and_saves(server, applied, tmp_path):
    browser = Browser(tmp_path / "profile")
    (tmp_path / "saved").mkdir()
    try:
        browser.send("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path / "saved"))
        browser.send("Page.navigate", url=f"http://127.0.0.1:{server.client.port}/")
        browser.until("document.readyState === 'complete' && document.querySelector('h1')?.textContent === 'denoise'")
        (tmp_path / "bad.nii").write_bytes(b"x" * 500)
        for path in (tmp_path / "bad.nii", applied / "both" / "a.nii.gz"):
            root = browser.send("DOM.getDocument")["root"]["nodeId"]
            node = browser.send("DOM.querySelector", nodeId=root, selector="#file")["nodeId"]
            browser.send("DOM.setFileInputFiles", nodeId=node, files=[str(path)])
            browser.run("document.getElementById('send').click()")
            if path.name == "bad.nii":
                browser.until("document.getElementById('problem').textContent.startsWith('the upload is of no known kind')")
        browser.until("!document.getElementById('done').hidden")
        assert browser.run("document.getElementById('problem').hidden")
        browser.run("document.getElementById('save').click()")
        saved = tmp_path / "saved" / "result.nii.gz"
        until(lambda: saved.exists() and saved.stat().st_size == (applied / "applied" / "a.nii.gz").stat().st_size)
        assert saved.read_bytes() == (applied / "applied" / "a.nii.gz").read_bytes()
        light = browser.run("getComputedStyle(document.body).backgroundColor")
        browser.resize(400, 800, phone=True, dark=True)
        assert browser.run("getComputedStyle(document.body).backgroundColor") != light
        assert browser.run("document.documentElement.scrollWidth <= innerWidth")
        own = (f"http://127.0.0.1:{server.client.port}/", "blob:", "data:")
        assert all(url.startswith(own) for url in browser.requests), browser.requests
        assert [text for text in browser.complaints if "415" not in text] == []
    finally:
        browser.close()
    assert server.client.is_empty()


@pytest.mark.slow
def test_time_and_memory_of_a_job_are_bounded(trained, scans, tmp_path):
    limits = Limits(memory=64 * MIB, job=0.3)
    worker, jobs = Worker(Setup(trained, Limits(job=0.3), accept=("spacing", "values"))), Jobs(tmp_path, limits)
    try:
        job = jobs.open()
        shutil.copy(scans / "long.nii", job.folder / "in" / "upload.nii")
        jobs.submit(job, "nii", "upload.nii")
        outcome = worker.run(jobs.next(0))
        assert (outcome.kind, outcome.error, outcome.result) == ("TooLong", "took longer than 0.3 s", "")
        shutil.rmtree(job.folder / "out")
        worker._setup = replace(worker._setup, limits=Limits(memory=64 * MIB))
        outcome = worker.run(job)
        assert (outcome.kind, outcome.result) == ("TooMuchMemory", "")
        assert worker._process is None
    finally:
        worker.stop()


@pytest.mark.slow
def test_the_load_is_measured(trained, tmp_path, monkeypatch):
    """At a tiny size, with the same bars: right answers or errors in a line, nothing left of a server that is killed."""
    monkeypatch.setenv("XLA_FLAGS", "--xla_backend_optimization_level=0")
    done = subprocess.run([sys.executable, "-m", "benchmarks.serve_load", "--uploads=24", "--shape=32,32,4",
                           f"--workdir={trained}", f"--json={tmp_path / 'load.json'}"], cwd=ROOT, capture_output=True,
                          text=True, timeout=500, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads((tmp_path / "load.json").read_text())
    assert (found["wrong answers"], found["files left after the kill"], found["files left at the end"]) == (0, 0, 0)
    assert found["lines of the log with an error inside"] == 0
    first, killed, lost, again = found["rounds"].values()
    assert (first["right results"], first["refused in one line"]) == (12, 12)
    assert killed["right results"] + killed["refused in one line"] + killed.get("told that the process ended", 0) == 24
    assert killed["right results"] >= 11
    assert lost["lost"] > 0
    assert again["right results"] == 12


@pytest.mark.slow
@needs_dciodvfy
@pytest.mark.skipif(None in DCMTK, reason="dcmtk or curl is not installed (Debian: apt-get install dcmtk curl)")
def test_a_series_that_dcmtk_sends_comes_back_derived_and_valid(trained, applied, tmp_path):
    pytest.importorskip("pynetdicom", reason="pynetdicom is not installed: pip install medjax[serve]")
    storescu, storescp, _ = DCMTK
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    (tmp_path / "back").mkdir()
    archive = subprocess.Popen([storescp, "-aet", "BACK", "-od", tmp_path / "back", str(port)], stdout=subprocess.DEVNULL,
                               stderr=subprocess.DEVNULL)
    make_token, ask = [line for line in shown_in_docs() if "TOKEN" in line and "medjax.serve" not in line]
    subprocess.run(["sh", "-c", make_token.replace("python", sys.executable)], cwd=tmp_path, check=True)
    server = Running(trained, tmp_path / "scratch", "--dicom_port=0", f"--send_to=BACK@127.0.0.1:{port}",
                     "--dicom_quiet_seconds=0.5", f"--token_file={tmp_path / 'TOKEN'}")
    try:
        shutil.copy(applied / "both" / "a.nii.gz", tmp_path / "SCAN.nii.gz")
        for line in (ask.replace(":8080", f":{server.client.port}"), server.said[-1].removeprefix("next: ")):
            subprocess.run(["sh", "-c", line], cwd=tmp_path, check=True)
            assert (tmp_path / "RESULT.nii.gz").read_bytes() == (applied / "applied" / "a.nii.gz").read_bytes()
            (tmp_path / "RESULT.nii.gz").unlink()
        assert server.client.ask("POST", "/apply", b"x").status == 401
        sent = sorted((applied / "both" / "series").iterdir())
        subprocess.run([storescu, "-aec", "MEDJAX", "127.0.0.1", str(server.dicom_port), *sent], check=True)
        until(lambda: len(list((tmp_path / "back").iterdir())) == len(sent))
        until(lambda: not files_below(server.folder / "jobs") and not files_below(server.folder / "incoming"))
    finally:
        _, err = server.end()
        archive.terminate()
        archive.wait()
    assert "DOE" not in err
    sources = {pydicom.dcmread(path).SOPInstanceUID: path for path in sent}
    made = {path.name.split(".")[0]: path for path in (applied / "applied" / "series").iterdir()}
    series = set()
    for path in (tmp_path / "back").iterdir():
        back = pydicom.dcmread(path)
        source = sources.pop(back.SourceImageSequence[0].ReferencedSOPInstanceUID)
        before = pydicom.dcmread(source)
        series.add(back.SeriesInstanceUID)
        assert (back.StudyInstanceUID, back.PatientID) == (before.StudyInstanceUID, before.PatientID)
        assert back.SeriesInstanceUID != before.SeriesInstanceUID
        assert complaints(path) <= complaints(source)
        np.testing.assert_array_equal(back.pixel_array, pydicom.dcmread(made[source.stem]).pixel_array)
    assert (sources, len(series)) == ({}, 1)
