"""What a server takes, how long it waits, how much memory it gives."""

from dataclasses import dataclass
from http import HTTPStatus

MIB = 1 << 20


@dataclass(frozen=True)
class Limits:
    """Sizes in bytes, times in seconds.

    `stored` is for uploads and results of all jobs together, `memory` for the process that computes and the files of the job
    that it works on. A zip or gzip file may unpack to `unpacked`, and above `unsuspected` to `ratio` times its size. A job
    waits for its turn among `waiting` at most, and is forgotten `keep` after its end. A client has `header` for the head of
    a request, `idle` for each piece of what follows, and may not be slower than `rate` bytes a second for longer than that.
    """

    upload: int = 512 * MIB
    unpacked: int = 2048 * MIB
    stored: int = 2048 * MIB
    memory: int = 8192 * MIB
    files: int = 5000
    ratio: int = 100
    unsuspected: int = 64 * MIB
    waiting: int = 8
    job: float = 600
    keep: float = 600
    header: float = 10
    idle: float = 10
    rate: int = 64 << 10
    connections: int = 64


class RefusedError(Exception):
    """A request that is not taken: a status of HTTP, what is wrong in one line, in how many seconds it may be taken."""

    def __init__(self, status: HTTPStatus, problem: str, retry_after: int = 0):
        super().__init__(problem)
        self.status, self.retry_after = status, retry_after
