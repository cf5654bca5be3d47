"""What every command does with what the user gave: parse it, and say in one line what is wrong with it."""

import ctypes
import os
import sys
from collections.abc import Callable

from absl import app, flags, logging

from medjax.files import NO_ROOM
from medjax.types import UserError


def run(main: Callable[[], None]) -> None:
    """Parses the flags and runs `main`. Exit code 0: done; 2: `error: <file or key>: <what is wrong>`, no traceback."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    logging.set_verbosity(logging.WARNING)
    keep_memory()
    app.run(lambda _: _guarded(main), flags_parser=lambda argv: _guarded(lambda: flags.FLAGS(argv)))


def keep_memory() -> None:
    """Lets glibc keep freed memory for the next train step; it must come before JAX starts its threads.

    XLA on CPU takes all of a step's temporary memory anew at each step. glibc gives so large a piece back to the system
    each time, and to get its pages again took 10-15 % of a step. Up to six pieces may be kept, so only those of less than
    1/64 of the machine's memory are.
    """
    tune = getattr(ctypes.CDLL(None), "mallopt", None)
    if tune is None:  # not glibc
        return
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    trim_threshold, mmap_threshold, arena_max = -1, -3, -8
    tune(trim_threshold, 2**31 - 1)
    tune(mmap_threshold, min(memory // 64, 2**31 - 1))
    tune(arena_max, 1)  # others than the first arena have no pieces above 64 MB


def _guarded(action: Callable[[], object]) -> object:
    try:
        return action()
    except UserError as error:
        _fail(str(error))
    except flags.Error as error:
        _fail(str(error))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        # config_flags raises these for a key that the config lacks or a value of another type, before main is reached.
        if flags.FLAGS.is_parsed():
            raise
        _fail(str(error))
    except OSError as error:
        if error.errno in NO_ROOM:
            _fail(f"{error.filename or 'disk'}: {error.strerror}; make room and run the same command again")
        if "Failed loading config file" not in str(error):
            raise
        _fail(str(error).split("Failed loading config file", 1)[1].split("Attempted", 1)[1])


def _fail(text: str) -> None:
    print("error: " + " ".join(text.split()), file=sys.stderr)
    sys.exit(2)
