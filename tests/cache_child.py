"""What other processes do to a cache, for `tests.test_cache`; it imports little, since each process does."""

import os
import signal

import numpy as np

from medjax.data import io
from medjax.data.storage import cache


def unpack_in_process(folder, root, barrier, answers):
    studies = io.discover(folder)
    read, count = io.Study.read, [0]

    def counted(study):
        count[0] += 1
        return read(study)

    io.Study.read = counted
    barrier.wait()
    try:
        records = cache.unpack(studies, root)
        answers.put((count[0], sorted(int(np.asarray(record.image).sum()) for record in records)))
    except BaseException as error:
        answers.put((-1, repr(error)))


def unpack_and_be_killed(folder, root):
    write_text = cache.Path.write_text
    cache.Path.write_text = lambda *args, **kwargs: os.kill(os.getpid(), signal.SIGKILL) or write_text(*args, **kwargs)
    cache.unpack(io.discover(folder), root)
