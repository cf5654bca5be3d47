"""Many clients at once, half of them with files that are broken, too large or made to harm, and servers that are killed.

    python -m benchmarks.serve_load --uploads=50 --json=benchmarks/results/serve_load.json

Every good answer is compared with what `medjax.apply` makes of the same file: NIfTI byte for byte, DICOM by pixels and
headers but for the identifiers and times that are new in each result. In the second round the computing process is killed in
the midst, in the third the server itself, after which a new one answers. Counted are wrong answers and files that are left;
measured is the memory of both processes and of the files of jobs, 20 times a second.
"""

import gzip
import http.client
import io
import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import nibabel
import numpy as np
import pydicom
from absl import app, flags

from tests.dicom_files import image

UPLOADS = flags.DEFINE_integer("uploads", 50, "Clients at once.")
SHAPE = flags.DEFINE_list("shape", ["192", "192", "24"], "Voxels of each scan: rows, columns, slices.")
SEED = flags.DEFINE_integer("seed", 0, "Seed of the scans, and of who sends what.")
WORKDIR = flags.DEFINE_string("workdir", "", "Folder of the run that is served; a small one is trained if empty.")
JSON = flags.DEFINE_string("json", "", "Where to write the result.")

ROOT = Path(__file__).parents[1]
TRAIN = ["train.py", "--config=configs/quickstart.py", "--config.steps=2", "--config.batch_size=2", "--config.model.width=8",
         "--config.model.depth=2", "--config.data.patch=(32,32)", "--config.data.workers=0", "--config.references=('none',)",
         "--config.eval_samples=1"]
ACCEPT = "--accept=spacing,values"
SCANS, LIMIT, MEMORY = 5, 8, 3072  # scans; MiB of an upload, of a job
NEW = {"SOPInstanceUID", "SeriesInstanceUID", "InstanceCreationDate", "InstanceCreationTime",
       "ContributingEquipmentSequence"}
PATIENCE, PIECE = 600, 1 << 16
LOST = "lost"  # the connection to a server that is killed
CRASHED = b"made the process that reads and computes end"


def command(*words: str | Path) -> None:
    """Runs a command of medjax. Raises RuntimeError where it fails."""
    done = subprocess.run([sys.executable, *map(str, words)], cwd=ROOT, capture_output=True, text=True, check=False,
                          env={**os.environ, "JAX_PLATFORMS": "cpu"})
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])


def draw(folder: Path, shape: tuple[int, ...]) -> None:
    """Scans as NIfTI, and one as the files of a DICOM series."""
    numbers = np.random.default_rng(SEED.value)
    (folder / "nifti").mkdir(parents=True)
    for number in range(SCANS):
        volume = numbers.normal(100, 30, shape).clip(1, 230).astype(np.int16)
        nibabel.Nifti1Image(volume, np.eye(4)).to_filename(folder / "nifti" / f"{number}.nii.gz")
    (folder / "series").mkdir()
    for k in range(shape[2]):
        image(volume[..., k].view(np.uint16), float(k), PixelSpacing=[1.0, 1.0], InstanceNumber=k + 1).save_as(
            folder / "series" / f"{k:04d}.dcm", enforce_file_format=True)


def zipped(files: dict[str, bytes]) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, contents in files.items():
            archive.writestr(name, contents)
    return made.getvalue()


Body = bytes | Callable[[], Any]


class Uploads:
    """What clients send, with whether an answer is right: good ones by number, bad ones by what is wrong with them."""

    def __init__(self, scans: Path, applied: Path):
        self.good: list[tuple[bytes, Callable[[bytes], bool]]] = []
        for number in range(SCANS):
            expected = (applied / "nifti" / f"{number}.nii.gz").read_bytes()
            self.good.append(((scans / "nifti" / f"{number}.nii.gz").read_bytes(), expected.__eq__))
        series = {path.name: path.read_bytes() for path in sorted((scans / "series").iterdir())}
        self.good.append((zipped(series), lambda body: same_series(body, applied / "series")))
        scan, first = self.good[0][0], next(iter(series.values()))
        plain = gzip.decompress(scan)
        claims = bytearray(plain[:400])
        claims[40:48] = np.array([3, 30000, 30000, 30000], "<i2").tobytes()
        large = scan[:400] + os.urandom(LIMIT << 20)
        self.bad: dict[str, tuple[Body, dict[str, str], tuple[int, ...]]] = {
            "too large, said": (large, {}, (413,)),
            "too large, in chunks": (lambda: (large[i:i + PIECE] for i in range(0, len(large), PIECE)), {}, (413,)),
            "no scan": (os.urandom(5000), {}, (415,)),
            "cut off": (scan[:len(scan) // 2], {}, (422,)),
            "damaged": (scan[:len(scan) // 2] + bytes(100) + scan[len(scan) // 2 + 100:], {}, (422,)),
            "claims 50 TB": (bytes(claims), {}, (422,)),
            "gzip bomb": (gzip.compress(plain[:352] + bytes(300 << 20), 9), {}, (422,)),
            "zip bomb": (zipped({f"{i}.dcm": bytes(20 << 20) for i in range(10)}), {}, (422,)),
            "zip that leads out": (zipped({"../../../tmp/out.dcm": first}), {}, (422,)),
            "zip in a zip": (zipped({"a.dcm": zipped({"a.dcm": first})}), {}, (422,)),
            "series without a slice": (zipped({name: part for name, part in series.items() if name != "0001.dcm"}), {},
                                       (422,)),
            "shorter than said": (scan[:len(scan) // 2], {"Content-Length": str(len(scan))}, (400, 408)),
        }

    def one(self, number: int) -> tuple[str, Body, dict[str, str], Callable[[int, bytes], bool]]:
        """What client `number` sends, and whether an answer to that is right."""
        if number % 2 == 0:
            body, check = self.good[number // 2 % len(self.good)]
            return "good", body, {}, lambda status, answer: status == 200 and check(answer)
        name = list(self.bad)[number // 2 % len(self.bad)]
        body, headers, statuses = self.bad[name]
        return name, body, headers, lambda status, answer: status in statuses and one_line(answer)


def one_line(answer: bytes) -> bool:
    said = json.loads(answer)["error"]
    return bool(said) and "\n" not in said and "Traceback" not in said and tempfile.gettempdir() not in said


def same_series(body: bytes, folder: Path) -> bool:
    """Whether a zip holds the images of a folder, but for what is new in each result."""
    with zipfile.ZipFile(io.BytesIO(body)) as archive:
        found = {Path(name).name: pydicom.dcmread(io.BytesIO(archive.read(name))) for name in archive.namelist()}
    expected = {path.name: pydicom.dcmread(path) for path in folder.iterdir()}
    return found.keys() == expected.keys() and all(
        [e for e in found[name] if e.keyword not in NEW] == [e for e in expected[name] if e.keyword not in NEW]
        for name in expected)


class Server:
    """The command, its port, and a watch over its memory."""

    def __init__(self, workdir: Path, scratch: Path, temporary: Path):
        self.scratch, self.temporary = scratch, temporary
        words = [sys.executable, "-m", "medjax.serve", f"--workdir={workdir}", "--port=0", f"--scratch={scratch}", ACCEPT,
                 f"--max_upload_mib={LIMIT}", f"--max_memory_mib={MEMORY}", "--max_stored_mib=256", "--max_unpacked_mib=256"]
        self.log = scratch.with_name("log").open("a+")
        self.process = subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, stderr=self.log, text=True,
                                        env={**os.environ, "JAX_PLATFORMS": "cpu", "TMPDIR": str(temporary)})
        said = ""
        while "next:" not in said:
            line = self.process.stdout.readline()
            if not line:
                raise RuntimeError(said)
            said += line
        self.port = int(re.search(r"http://127\.0\.0\.1:(\d+)/", said)[1])
        self.most = Counter()
        self._ends = threading.Event()
        self._watch = threading.Thread(target=self._look)
        self._watch.start()

    def computing(self) -> int | None:
        """The id of the process that computes: the child that holds the most memory."""
        pids = []
        for task in Path(f"/proc/{self.process.pid}/task").glob("*"):
            try:
                pids += (task / "children").read_text().split()
            except OSError:
                continue
        return max((int(pid) for pid in pids), key=resident, default=None)

    def _look(self) -> None:
        while not self._ends.wait(0.05):
            computing = self.computing()
            now = {"listening": resident(self.process.pid), "files": bytes_below(self.scratch),
                   "computing": resident(computing) if computing else 0}
            now["together"] = sum(now.values())
            for name, value in now.items():
                self.most[name] = max(self.most[name], value)

    def end(self, number: int) -> None:
        """Ends it, and waits until it and its computing process are gone."""
        computing = self.computing()
        self.process.send_signal(number)
        self.process.wait(PATIENCE)
        self._ends.set()
        self._watch.join()
        until = time.monotonic() + 10
        while computing and resident(computing) and time.monotonic() < until:
            time.sleep(0.05)
        self.process.stdout.close()
        self.log.close()

    def left(self) -> list[str]:
        """Files that are left, and processes, a moment after the end."""
        until = time.monotonic() + 5
        while any(self.scratch.iterdir()) and time.monotonic() < until:
            time.sleep(0.05)
        return [str(path.name) for folder in (self.scratch, self.temporary) for path in folder.rglob("*") if path.is_file()]


def resident(pid: int) -> int:
    """Bytes of memory that a process holds; 0 for one that has ended."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError):
        return 0


def bytes_below(folder: Path) -> int:
    total = 0
    for place, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.lstat(os.path.join(place, name)).st_size
            except OSError:
                continue
    return total


def ask(port: int, body: Body, headers: dict[str, str]) -> tuple[int | str, bytes]:
    """Status and answer; `LOST` where there is none. One that is told to come again does."""
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
        try:
            try:
                sent, chunked = (body(), True) if callable(body) else (body, False)
                connection.request("POST", "/apply", sent, headers, encode_chunked=chunked)
                if headers:
                    connection.sock.shutdown(1)  # nothing more will come
            except (BrokenPipeError, ConnectionResetError):
                pass  # it is refused before all is sent; the answer is there
            answer = connection.getresponse()
            content = answer.read()
        except (OSError, http.client.HTTPException):
            return LOST, b""
        finally:
            connection.close()
        if answer.status != 503:
            return answer.status, content
        time.sleep(min(5.0, float(answer.headers["Retry-After"])) * random.uniform(0.5, 1.0))
    return "no answer in time", b""


def load(server: Server, uploads: Uploads, kill: str = "") -> dict[str, Any]:
    """All clients at once; a third into the good answers the `kill` of the computing process, or of the server."""
    found: Counter[str] = Counter()
    wrong: list[str] = []
    lock, begin = threading.Lock(), time.monotonic()

    def client(number: int) -> None:
        name, body, headers, is_right = uploads.one(number)
        status, answer = ask(server.port, body, headers)
        with lock:
            if status == LOST and kill == "server":
                found["lost"] += 1
            elif kill == "computing" and status == 422 and CRASHED in answer:
                found["told that the process ended"] += 1
            elif isinstance(status, int) and is_right(status, answer):
                found["right results" if name == "good" else "refused in one line"] += 1
            else:
                wrong.append(f"{name}: {status} {answer[:200]!r}")

    threads = [threading.Thread(target=client, args=(number,)) for number in range(UPLOADS.value)]
    random.Random(SEED.value).shuffle(threads)
    for thread in threads:
        thread.start()
    if kill:
        wanted = (UPLOADS.value + 1) // 2 // 3
        while found["right results"] < wanted and any(thread.is_alive() for thread in threads):
            time.sleep(0.01)
        if kill == "computing":
            os.kill(server.computing() or 0, signal.SIGKILL)
        else:
            server.end(signal.SIGKILL)
    for thread in threads:
        thread.join()
    return {**found, "wrong": len(wrong), **({"what was wrong": wrong} if wrong else {}),
            "seconds": round(time.monotonic() - begin, 1)}


def main(_: list[str]) -> None:
    shape = tuple(int(size) for size in SHAPE.value)
    memory = Path("/dev/shm") if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory() as place, tempfile.TemporaryDirectory(dir=memory) as held:
        folder, scratch, temporary = Path(place), Path(held, "scratch"), Path(place, "temporary")
        scratch.mkdir()
        temporary.mkdir()
        draw(folder / "scans", shape)
        run = Path(WORKDIR.value) if WORKDIR.value else folder / "run"
        if not WORKDIR.value:
            command(*TRAIN, f"--workdir={run}")
        command("-m", "medjax.apply", f"--workdir={run}", f"--input={folder / 'scans'}", f"--output={folder / 'applied'}",
                ACCEPT)
        uploads = Uploads(folder / "scans", folder / "applied")
        rounds: dict[str, Any] = {}
        server = Server(run, scratch, temporary)
        rounds["as it is"] = load(server, uploads)
        rounds["the computing process killed"] = load(server, uploads, "computing")
        first, names = server, ("listening", "computing", "files", "together")
        rounds["the server killed"] = load(server, uploads, "server")
        after_kill = server.left()
        server = Server(run, scratch, temporary)
        rounds["a new server"] = load(server, uploads)
        server.end(signal.SIGTERM)
        most = {name: max(first.most[name], server.most[name]) >> 20 for name in names}
        log = scratch.with_name("log").read_text(encoding="utf-8")
        summary = {"clients at once": UPLOADS.value, "shape": shape, "rounds": rounds,
                   "wrong answers": sum(found["wrong"] for found in rounds.values()),
                   "files left after the kill": len(after_kill), "files left at the end": len(server.left()),
                   "MiB at most": most, "MiB allowed for the computing process and its job's files": MEMORY,
                   "lines of the log with an error inside": len(re.findall("Error(?! at|$)|Traceback", log)),
                   "jax": jax.__version__}
    print(json.dumps(summary, indent=1))
    if JSON.value:
        Path(JSON.value).write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
    bad = summary["wrong answers"] or after_kill or summary["files left at the end"]
    sys.exit(int(bool(bad) or most["computing"] > 1.1 * MEMORY))


if __name__ == "__main__":
    app.run(main)
