"""Serves a trained run on this machine: python -m medjax.serve --workdir=runs/mine

What is uploaded by HTTP, or sent by DICOM (`--dicom_port`, `--send_to`), gets the answer of `medjax.apply`. Patient data
stays in memory and goes with its job. It is for research and is no medical device; docs/serve.md says who may reach it.
"""

import contextlib
import importlib.util
import os
import shlex
import tempfile
import threading
from pathlib import Path

from absl import flags

from medjax import cli
from medjax.infer import uncertainty
from medjax.infer.fit import CHECKS, RESCALE
from medjax.report.page import template
from medjax.serve.access import Access, access_at, address_of, in_url, is_loopback
from medjax.serve.jobs import Jobs
from medjax.serve.limits import MIB, Limits
from medjax.serve.scratch import default_base, private_folder
from medjax.serve.web import Server
from medjax.serve.work import Setup
from medjax.serve.worker import Worker, serve_jobs
from medjax.types import UserError

WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the trained run.", required=True)
HOST = flags.DEFINE_string("host", "127.0.0.1", "Address to listen at; others than those of the loopback need --token_file, "
                           "and --dicom_from where there is DICOM.")
PORT = flags.DEFINE_integer("port", 8080, "Port of HTTP; a free one if 0.", lower_bound=0, upper_bound=65535)
TOKEN = flags.DEFINE_string("token_file", "", "A file that holds a token, for its owner alone to read; clients give it as "
                            "Authorization: Bearer.")
HOSTS = flags.DEFINE_list("allowed_host", [], "Further names by which clients may ask for this server.")
RESCALING = flags.DEFINE_enum("rescale", "none", RESCALE, "As in medjax.apply, for all jobs.")
ACCEPT = flags.DEFINE_list("accept", [], f"As in medjax.apply, for all jobs: {', '.join(CHECKS)}.")
UNCERTAINTY = uncertainty.flag()
UPLOAD = flags.DEFINE_integer("max_upload_mib", 512, "Of an upload, or a series.", lower_bound=1)
UNPACKED = flags.DEFINE_integer("max_unpacked_mib", 2048, "Of what an upload unpacks to.", lower_bound=1)
STORED = flags.DEFINE_integer("max_stored_mib", 2048, "Of the uploads and results of all jobs.", lower_bound=1)
MEMORY = flags.DEFINE_integer("max_memory_mib", 8192, "Of the computing process and its job's files.", lower_bound=1)
FILES = flags.DEFINE_integer("max_files", 5000, "In a zip, or images in a series.", lower_bound=1)
QUEUE = flags.DEFINE_integer("queue", 8, "Jobs that may wait.", lower_bound=1)
JOB = flags.DEFINE_float("job_seconds", 600, "How long a job may run.", lower_bound=0.1)
KEEP = flags.DEFINE_float("keep_seconds", 600, "How long a result waits to be downloaded.", lower_bound=0.1)
SCRATCH = flags.DEFINE_string("scratch", "", "Folder for the files of jobs; /dev/shm, which is memory, if empty.")
DICOM_PORT = flags.DEFINE_integer("dicom_port", None, "Port of DICOM, a free one if 0; no DICOM if not given.",
                                  lower_bound=0, upper_bound=65535)
TITLE = flags.DEFINE_string("ae_title", "MEDJAX", "The server's own title, by which it must be called.")
SEND_TO = flags.DEFINE_string("send_to", "", "AE@HOST:PORT, where results of series go that came by DICOM.")
DICOM_FROM = flags.DEFINE_list("dicom_from", [], "AE@HOST, from whom images are taken; from anybody if empty.")
QUIET = flags.DEFINE_float("dicom_quiet_seconds", 3, "How long after its last image a series is complete.", lower_bound=0)


def main() -> None:
    """Serves until it is ended."""
    limits = Limits(upload=UPLOAD.value * MIB, unpacked=UNPACKED.value * MIB, stored=STORED.value * MIB,
                    memory=MEMORY.value * MIB, files=FILES.value, waiting=QUEUE.value, job=JOB.value, keep=KEEP.value)
    if limits.stored < limits.upload:
        raise UserError("--max_stored_mib", f"{STORED.value}; give at least --max_upload_mib, {UPLOAD.value}")
    address = address_of(HOST.value)
    access = access_at(address, HOST.value, TOKEN.value, HOSTS.value)
    setup = Setup(Path(WORKDIR.value), limits, tuple(UNCERTAINTY.value), RESCALING.value, tuple(ACCEPT.value))
    _check_dicom(address)
    base = Path(SCRATCH.value).expanduser() if SCRATCH.value else default_base()
    with private_folder(base, limits.stored + limits.unpacked) as folder, contextlib.ExitStack() as stack:
        _keep_temporary_files_in(folder / "tmp")
        jobs = Jobs(folder / "jobs", limits)
        server = _server(address, jobs, access)
        stack.callback(server.server_close)
        listening = _listen(stack, jobs, folder / "incoming", address)
        worker, ends = Worker(setup), threading.Event()
        stack.callback(worker.stop)
        stack.callback(ends.set)
        server.page = template("upload.html").render(task=worker.task, token=bool(access.token), most=limits.upload,
                                                     keep=limits.keep, connects=True).encode()
        threading.Thread(target=serve_jobs, args=(jobs, worker, worker.rest, ends.is_set), daemon=True).start()
        _say(server, worker.task, listening, folder)
        server.serve_forever()


def _check_dicom(address: str) -> None:
    if DICOM_PORT.value is None:
        for flag in (SEND_TO, DICOM_FROM):
            if flag.value:
                raise UserError(f"--{flag.name}", "is about DICOM; give --dicom_port, too")
        return
    if importlib.util.find_spec("pynetdicom") is None:
        raise UserError("--dicom_port", "DICOM needs the package pynetdicom: pip install medjax[serve]")
    if not SEND_TO.value:
        raise UserError("--send_to", "is missing: results of series that come by DICOM go to it; give AE@HOST:PORT")
    if not is_loopback(address) and not DICOM_FROM.value:
        raise UserError("--dicom_from", f"is missing: others could send to {address}; give AE@HOST for each who may")


def _keep_temporary_files_in(folder: Path) -> None:
    """Whatever a library writes for a time, here and in the computing process, goes with the private folder."""
    folder.mkdir()
    os.environ["TMPDIR"], tempfile.tempdir = str(folder), None


def _server(address: str, jobs: Jobs, access: Access) -> Server:
    try:
        return Server((address, PORT.value), jobs, access)
    except OSError as error:
        raise UserError("--port", f"can't listen at {address}, port {PORT.value}: {error.strerror}") from error


def _listen(stack: contextlib.ExitStack, jobs: Jobs, folder: Path, address: str) -> str:
    """Starts the DICOM side, if there is one, until the stack ends; returns what is said of it."""
    if DICOM_PORT.value is None:
        return ""
    from medjax.serve.dicom import Listener, Peer, checked_title  # needs an optional package

    title, peer = checked_title("--ae_title", TITLE.value), Peer.parse("--send_to", SEND_TO.value, with_port=True)
    senders = [Peer.parse("--dicom_from", one, with_port=False) for one in DICOM_FROM.value]
    folder.mkdir()
    try:
        listener = Listener(jobs, folder, (address, DICOM_PORT.value), title, peer, senders, QUIET.value)
    except OSError as error:
        raise UserError("--dicom_port", f"can't listen at {address}, port {DICOM_PORT.value}: {error.strerror}") from error
    listener.start()
    stack.callback(listener.stop)
    return f"{title}@{address}:{listener.port}, results go to {peer}"


def _say(server: Server, task: str, dicom: str, folder: Path) -> None:
    """What is served where, and the next command."""
    address, port = server.server_address[:2]
    url, limits = f"http://{in_url(str(address))}:{port}", server.limits
    cells = [["run", f"{WORKDIR.value}: {task}"], ["page", f"{url}/"], *([["DICOM", dicom]] if dicom else []),
             ["upload", f"at most {limits.upload // MIB} MiB, unpacked {limits.unpacked // MIB} MiB, {limits.files} files"],
             ["job", f"at most {limits.job:g} s and {limits.memory // MIB} MiB; {limits.waiting} may wait"],
             ["result", f"kept until it is downloaded, at most {limits.keep:g} s"], ["files of jobs", str(folder)]]
    token = f"""printf 'header = "Authorization: Bearer %s"' "$(cat {shlex.quote(TOKEN.value)})" | """ if TOKEN.value else ""
    curl = "curl -K -" if token else "curl"  # in a header that is an argument, other users could read it
    print("\n".join(f"{name:14s}{value}" for name, value in cells))
    print("it is for research and is no medical device")
    print(f"next: {token}{curl} --fail-with-body -X POST -T SCAN.nii.gz {url}/apply -o RESULT.nii.gz", flush=True)


if __name__ == "__main__":
    cli.run(main, keeps_memory=False)  # the process that computes is another one
