"""The server's DICOM side with jobs that only copy: real clients send series, a real archive gets what comes back."""

import contextlib
import io
import re
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian, JPEG2000Lossless, generate_uid

pynetdicom = pytest.importorskip("pynetdicom", reason="pynetdicom is not installed: pip install medjax[serve]")

from pynetdicom.sop_class import CTImageStorage, MRImageStorage, Verification  # noqa: E402

from medjax.serve import dicom  # noqa: E402
from medjax.serve.dicom import Listener, Peer, checked_title, contexts  # noqa: E402
from medjax.serve.limits import MIB, Limits  # noqa: E402
from medjax.types import UserError  # noqa: E402
from tests.dicom_files import image, slices  # noqa: E402
from tests.serving import Copies, files_below, until, working  # noqa: E402

DCMTK = [shutil.which(name) for name in ("storescu", "echoscu", "storescp")]
needs_dcmtk = pytest.mark.skipif(None in DCMTK, reason="dcmtk is not installed (Debian: apt-get install dcmtk)")

# pynetdicom leaves a connection that was refused, or that its peer has ended, to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")


class Archive:
    """Stores what is sent to it, by pynetdicom, and answers with `status`."""

    def __init__(self):
        self.got, self.status = [], 0x0000
        entity = pynetdicom.AE(ae_title="ARCHIVE")
        entity.add_supported_context(MRImageStorage, [ImplicitVRLittleEndian, ExplicitVRLittleEndian])
        self._server = entity.start_server(("127.0.0.1", 0), block=False, evt_handlers=[
            (pynetdicom.evt.EVT_C_STORE, self._store)])
        self.peer = Peer("ARCHIVE", "127.0.0.1", self._server.server_address[1])
        self.stop = self._server.shutdown

    def _store(self, event) -> int:
        self.got.append((event.dataset.SOPInstanceUID, event.dataset.SeriesInstanceUID, event.assoc.requestor.ae_title))
        return self.status


@contextlib.contextmanager
def listening(folder: Path, to: Peer, limits: Limits | None = None, engine: Copies | None = None,
              **more) -> Iterator[Listener]:
    """A listener at a free port, whose series are complete after a moment."""
    (folder / "incoming").mkdir()
    with working(folder, limits or Limits(), engine or Copies()) as jobs:
        listener = Listener(jobs, folder / "incoming", ("127.0.0.1", 0), "MEDJAX", to, **{"quiet": 0.15, **more})
        listener.jobs, listener.files = jobs, lambda: files_below(folder)
        listener.start()
        try:
            yield listener
        finally:
            listener.stop()


@pytest.fixture(scope="module")
def one_archive() -> Iterator[Archive]:
    one = Archive()
    yield one
    one.stop()


@pytest.fixture
def archive(one_archive) -> Archive:
    one_archive.got, one_archive.status = [], 0x0000
    return one_archive


@pytest.fixture(autouse=True)
def no_pause(monkeypatch):
    monkeypatch.setattr(dicom, "PAUSE", 0.0)
    monkeypatch.setattr(dicom, "TICK", 0.05)


@contextlib.contextmanager
def association(listener: Listener, title: str = "SCANNER", called: str = "MEDJAX") -> Iterator:
    entity = pynetdicom.AE(ae_title=title)
    for kind in (Verification, MRImageStorage, CTImageStorage):
        entity.add_requested_context(kind)
    made = entity.associate("127.0.0.1", listener.port, ae_title=called)
    yield made
    if made.is_established:
        made.release()


def send(listener: Listener, datasets, **who) -> list[int | None]:
    """The status of each image; None for no answer."""
    with association(listener, **who) as made:
        return [made.send_c_store(one).get("Status") for one in datasets]


def series(count: int = 3, size: int = 4, **tags) -> list[pydicom.Dataset]:
    uid = generate_uid()
    return [image(np.full((size, size), number, np.uint16), float(number), SeriesInstanceUID=uid, **tags)
            for number in range(count)]


def test_a_series_comes_back_when_it_is_complete(tmp_path, archive):
    one, two = series(3), series(2, PatientName="DOE^JOHN")
    with listening(tmp_path, archive.peer) as listener:
        with association(listener) as made:
            assert made.send_c_echo().Status == 0x0000
            assert [made.send_c_store(image_).Status for image_ in [*one, *two]] == [0x0000] * 5
            time.sleep(0.4)
            assert archive.got == []  # more may come: the association is open
        until(lambda: len(archive.got) == 5)
        until(lambda: not listener.files())
    assert {uid for uid, _, _ in archive.got} == {image_.SOPInstanceUID for image_ in one + two}
    assert {title for _, _, title in archive.got} == {"MEDJAX"}


@pytest.mark.slow
def test_a_series_may_come_in_an_association_for_each_image(tmp_path, archive):
    engine, images = Copies(), series(3)
    with listening(tmp_path, archive.peer, engine=engine, quiet=0.8) as listener:
        for one in images:
            assert send(listener, [one]) == [0x0000]
        until(lambda: len(archive.got) == 3)
    assert len(engine.seen) == 1


@pytest.mark.slow
def test_a_series_is_complete_after_long_silence_though_its_association_is_open(tmp_path, archive, monkeypatch):
    monkeypatch.setattr(dicom, "ATTENDED", 0.5)
    with listening(tmp_path, archive.peer) as listener, association(listener) as made:
        made.send_c_store(series(1)[0])
        until(lambda: len(archive.got) == 1)
        assert made.is_established


def test_a_series_whose_association_is_aborted_is_given_up(tmp_path, archive, capsys):
    engine = Copies()
    with listening(tmp_path, archive.peer, engine=engine) as listener:
        with association(listener) as made:
            made.send_c_store(series(2)[0])
            assert len(listener.files()) == 1
            made.abort()
        until(lambda: not listener.files())
        until(lambda: "its association was aborted" in capsys.readouterr().err)
        time.sleep(0.5)
    assert engine.seen == []


def test_only_the_right_title_is_answered(tmp_path, archive):
    with listening(tmp_path, archive.peer) as listener, association(listener, called="ANOTHER") as made:
        assert made.is_rejected


@pytest.mark.parametrize(("sender", "title", "status"), [
    (Peer("SCANNER", "127.0.0.1"), "SCANNER", 0x0000), (Peer("SCANNER", "127.0.0.1"), "OTHER", 0x0124),
    (Peer("SCANNER", "127.0.0.7"), "SCANNER", None)])
def test_only_those_who_may_are_heard(tmp_path, archive, sender, title, status):
    with listening(tmp_path, archive.peer, senders=[sender]) as listener, association(listener, title) as made:
        assert made.is_established == (status is not None)
        if status is not None:
            assert made.send_c_store(series(1)[0]).Status == status


@pytest.mark.parametrize(("limits", "statuses"), [
    (Limits(files=2), [0x0000, 0x0000, 0xA700, 0xA700]), (Limits(upload=2500), [0x0000, 0x0000, 0xA700, 0xA700]),
    (Limits(stored=900), [0xA700] * 4)], ids=["files", "bytes", "memory"])
def test_a_series_above_a_limit_is_refused_and_given_up(tmp_path, archive, limits, statuses):
    engine = Copies()
    with listening(tmp_path, archive.peer, limits, engine) as listener:
        assert send(listener, series(4, size=4)) == statuses
        time.sleep(0.4)
        assert listener.files() == []
        assert engine.seen == []
        if limits.stored > 900:
            assert send(listener, series(1)) == [0x0000]


@pytest.mark.slow
def test_a_full_queue_refuses_a_new_series_and_not_one_that_has_begun(tmp_path, archive):
    with listening(tmp_path, archive.peer, Limits(waiting=1)) as listener, association(listener) as made:
        first, second = series(2), series(2)
        statuses = [made.send_c_store(one).Status for one in (first[0], second[0], first[1], second[1])]
        assert statuses == [0x0000, 0xA700, 0x0000, 0xA700]


def test_what_is_no_image_or_not_what_it_says_is_refused(tmp_path, archive):
    (one,) = series(1)
    with listening(tmp_path, archive.peer) as listener, association(listener) as made:
        for change, status in ((lambda d: delattr(d, "Rows"), 0xA900), (lambda d: delattr(d, "SeriesInstanceUID"), 0xC000)):
            wrong = image(np.zeros((4, 4), np.uint16))
            change(wrong)
            assert made.send_c_store(wrong).Status == status
        assert made.send_c_store(one).Status == 0x0000
        assert len(listener.files()) == 1


def test_more_than_may_be_sent_at_all_ends_the_association(tmp_path, archive):
    with listening(tmp_path, archive.peer, Limits(upload=MIB)) as listener:
        (large,) = series(1, size=2300)  # 10 MB in one message
        assert send(listener, [large]) == [None]
        until(lambda: not listener.files())
        assert send(listener, series(1)) == [0x0000]


@pytest.mark.parametrize("sent", [b"GET / HTTP/1.1\r\n\r\n", b"\1\0\xff\xff\xff\xff" + bytes(1000),
                                  b"\4\0\0\0\0\4\0\0\0\0", b""])
def test_what_is_no_dicom_does_no_harm(tmp_path, archive, sent):
    with listening(tmp_path, archive.peer) as listener:
        with socket.create_connection(("127.0.0.1", listener.port), timeout=5) as connection:
            connection.sendall(sent)
        assert send(listener, series(1)) == [0x0000]


@pytest.mark.parametrize(("title", "port", "says"), [
    ("ARCHIVE", 0, "answers C-STORE with the status 42752"), ("ARCHIVE", 1, "does not answer")])
def test_results_that_cannot_be_sent_are_said(tmp_path, archive, title, port, says):
    archive.status = 0xA700
    peer = Peer(title, "127.0.0.1", port or archive.peer.port)
    with listening(tmp_path, peer) as listener:
        assert send(listener, series(2)) == [0x0000] * 2
        job = until(lambda: next((job for job in listener.jobs._jobs.values() if job.status == "failed"), None))
        assert job.outcome.error == f"{peer}: {says}"
        assert listener.files() == []
    assert len(archive.got) == (0 if port else 2 * dicom.ATTEMPTS)


def test_a_job_that_fails_names_itself_and_nothing_else_in_the_log(tmp_path, archive, monkeypatch):
    said = io.StringIO()
    monkeypatch.setattr("sys.stderr", said)
    engine = Copies(error="series: its PatientName is DOE^JOHN")
    with listening(tmp_path, archive.peer, engine=engine) as listener:
        send(listener, series(2, PatientName="DOE^JOHN", PatientID="DOE-1", SeriesDescription="DOE"), title="DOE")
        name = until(lambda: re.search(r"GET /jobs/(\S+)", said.getvalue()))[1]
        assert listener.jobs.get(name).outcome.error == engine.error
    assert "DOE" not in said.getvalue()


def test_what_is_taken():
    taken = {context.abstract_syntax.keyword: context.transfer_syntax for context in contexts()}
    assert {"MRImageStorage", "EnhancedCTImageStorage", "UltrasoundMultiFrameImageStorage", "SecondaryCaptureImageStorage",
            "DigitalMammographyXRayImageStorageForPresentation", "Verification"} <= set(taken)
    assert not {"SegmentationStorage", "RTDoseStorage", "BasicTextSRStorage", "RawDataStorage"} & set(taken)
    assert {ImplicitVRLittleEndian, JPEG2000Lossless} <= set(taken["MRImageStorage"])


@pytest.mark.parametrize("given", ["", "PACS", "@host:104", "PACS@host", "PACS@host:0", "PACS@host:70000", "P\\ACS@host:104",
                                   "A" * 17 + "@host:104", "PÄCS@host:104"])
def test_a_peer_is_a_title_a_host_and_a_port(given):
    with pytest.raises(UserError, match="--send_to: "):
        Peer.parse("--send_to", given, with_port=True)


def test_peers_are_read_as_they_are_written():
    assert Peer.parse("--send_to", "MY PACS@[::1]:104", with_port=True) == Peer("MY PACS", "::1", 104)
    assert str(Peer.parse("--dicom_from", "CT1@127.0.0.1", with_port=False)) == "CT1@127.0.0.1"
    assert checked_title("--ae_title", " MEDJAX ") == "MEDJAX"


@needs_dcmtk
def test_dcmtk_sends_and_gets_back(tmp_path):
    storescu, echoscu, storescp = DCMTK
    files = slices(tmp_path / "in", range(4))
    (tmp_path / "back").mkdir()
    (tmp_path / "server").mkdir()
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    archive = subprocess.Popen([storescp, "-aet", "BACK", "-od", tmp_path / "back", str(port)], stdout=subprocess.DEVNULL,
                               stderr=subprocess.DEVNULL)
    try:
        with listening(tmp_path / "server", Peer("BACK", "127.0.0.1", port)) as listener:
            to = ["127.0.0.1", str(listener.port)]
            assert subprocess.run([echoscu, "-aec", "MEDJAX", *to], check=False).returncode == 0
            assert subprocess.run([echoscu, "-aec", "OTHER", *to], check=False, capture_output=True).returncode != 0
            assert subprocess.run([storescu, "-aec", "MEDJAX", *to, *files], check=False).returncode == 0
            until(lambda: len(list((tmp_path / "back").iterdir())) == 4)
            until(lambda: not listener.files())
    finally:
        archive.terminate()
        archive.wait()
    uids = [{pydicom.dcmread(path).SOPInstanceUID for path in folder} for folder in (files, (tmp_path / "back").iterdir())]
    assert uids[0] == uids[1]
    assert threading.active_count() < 30
