"""What every command does with what the user gave: parse it, and say in one line what is wrong with it."""

import ast
import ctypes
import difflib
import importlib.util
import logging as python_logging
import os
import re
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import NoReturn, TypeVar

import ml_collections
from absl import app, flags, logging
from tqdm import tqdm

from medjax import registry
from medjax.files import NO_ROOM
from medjax.types import UserError

REMOTE = re.compile(r"[a-z][a-z0-9+.-]*://")
T = TypeVar("T")
INTERRUPTED = 128 + signal.SIGINT


def run(main: Callable[[], None], keeps_memory: bool = True) -> None:
    """Parses the flags and runs `main` (see `run_with_words`)."""
    run_with_words(lambda _: main(), keeps_memory)


def run_with_words(main: Callable[[Sequence[str]], None], keeps_memory: bool = True) -> None:
    """Parses the flags and runs `main` on what stands in the command beside them.

    `keeps_memory` is for repeated steps (see `keep_memory`); a command that holds large volumes does better without.
    Exit code 0: done; 2: `error: <file or key>: <what is wrong>`, no traceback; 130, 143: ended by Ctrl-C, SIGTERM, after
    cleaning up.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    _log_above_bars()
    signal.signal(signal.SIGTERM, _end)
    if keeps_memory:
        keep_memory()
    app.run(lambda words: _guarded(lambda: main(words[1:])), flags_parser=lambda argv: _guarded(lambda: _parsed(argv)))


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


class _Handler(python_logging.Handler):
    """Warnings as lines of their own above a progress bar.

    What Orbax and its threads log of a failed checkpoint, in many lines, is left out: it is raised, too.
    """

    def emit(self, record: python_logging.LogRecord) -> None:
        if "orbax" not in Path(record.pathname).parts and record.name not in ("asyncio", "concurrent.futures"):
            tqdm.write(f"{record.levelname.lower()}: {record.getMessage()}", file=sys.stderr)


def _log_above_bars() -> None:
    logging.use_absl_handler()
    logging.set_verbosity(logging.WARNING)
    logger = logging.get_absl_logger()
    for handler in list(logger.handlers) + list(python_logging.root.handlers):
        logger.removeHandler(handler)
        python_logging.root.removeHandler(handler)
    logger.addHandler(_Handler())
    python_logging.root.addHandler(_Handler(python_logging.WARNING))
    logger.propagate = False
    sys.unraisablehook = _unraisable


def _unraisable(error: "sys.UnraisableHookArgs") -> None:
    """Prints what no caller can catch, but for writes that end after Orbax, failing, has closed its loop."""
    if str(error.exc_value) != "Event loop is closed":
        sys.__unraisablehook__(error)


def _end(number: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + number)


def _parsed(argv: Sequence[str]) -> list[str]:
    """The arguments without flags. Raises UserError for a config that is not there, its unknown keys and wrong values."""
    config = _config_of(argv) if "config" in flags.FLAGS else None
    if config is not None:
        for arg in argv[1:]:
            if arg.startswith(("--config.", "-config.")):
                _check_key(config, *arg.lstrip("-").removeprefix("config.").partition("=")[::2])
        if {"--help", "-help", "-h", "-?"} & set(argv):
            print("\n".join(["keys of the config, with its values:", *_lines(config)]) + "\n")
    rest = flags.FLAGS(argv)
    _check_paths()
    return rest


def _check_paths() -> None:
    """Raises UserError for what is no path of this machine: it would become a folder of that name."""
    given = {f"--{name}": value for name, value in flags.FLAGS.flag_values_dict().items()}
    config = given.get("--config")
    if isinstance(config, ml_collections.ConfigDict):
        given |= {f"config.{key}": value for key, value in registry.flat(config).items()}
    for where, value in given.items():
        for text in value if isinstance(value, list | tuple) else [value]:
            if isinstance(text, str) and REMOTE.match(text):
                raise UserError(where, f"{text} is on another machine; mount it, and give its path here")


def _config_of(argv: Sequence[str]) -> ml_collections.ConfigDict | None:
    given = next((arg.partition("=")[2] for arg in reversed(argv[1:]) if arg.startswith(("--config=", "-config="))), "")
    if not given:
        return None
    file, _, argument = given.partition(":")
    path = Path(file)
    if not path.is_file():
        there = [*path.parent.glob("*.py"), *Path("configs").glob("*.py")]
        known = sorted({str(p) for p in there if p.stem != "base" and "def get_config" in p.read_text(encoding="utf-8")})
        raise UserError("--config", f"no file {file}" + (f"; choose from {', '.join(known)}" if known else ""))
    spec = importlib.util.spec_from_file_location(f"medjax_config_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.get_config(argument) if argument else module.get_config()


def _check_key(config: ml_collections.ConfigDict, key: str, text: str) -> None:
    group, known = config, list(registry.flat(config))
    for part in key.split("."):
        if not isinstance(group, ml_collections.ConfigDict) or part not in group:
            near = difflib.get_close_matches(key, known, 1)
            if not near:
                near = [name for name in known if name.rpartition(".")[2] == key.rpartition(".")[2]][:1]
            there = ", ".join(group) if isinstance(group, ml_collections.ConfigDict) else "no keys"
            raise UserError(f"--config.{key}", f"no such key; did you mean {near[0]}?" if near else f"no such key; there is "
                            f"{there}")
        group = group[part]
    kinds = {bool: ("true", "false", "True", "False", "1", "0", ""), int: int, float: float, tuple: ast.literal_eval}
    check = kinds.get(type(group))
    try:
        if isinstance(check, tuple) and text not in check:
            raise ValueError
        if callable(check) and text:
            check(text)
    except (ValueError, SyntaxError):
        raise UserError(f"--config.{key}", f"{text!r} is no {type(group).__name__}; the config has {group!r}") from None


def _lines(config: ml_collections.ConfigDict) -> list[str]:
    return [f"  --config.{key}={value!r}" for key, value in registry.flat(config).items()]


def _guarded(action: Callable[[], T]) -> T:
    try:
        return action()
    except UserError as error:
        _fail(str(error))
    except flags.Error as error:
        _fail(_flag_problem(str(error)))
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        raise SystemExit(INTERRUPTED) from None
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        # config_flags raises these for a value of another type, before main is reached.
        if flags.FLAGS.is_parsed():
            raise
        _fail(str(error))
    except OSError as error:
        room = "; make room and run the same command again" if error.errno in NO_ROOM else ""
        if error.filename is None and not room:
            raise
        _fail(f"{error.filename or 'disk'}: {error.strerror}{room}")


def _flag_problem(text: str) -> str:
    """What absl says of a flag, with the flag first."""
    if text.startswith("flag --") and "must have a value" in text:
        return f"{text.split()[1].partition('=')[0]}: is missing; give it a value"
    return text.removeprefix("flag ")


def _fail(text: str) -> NoReturn:
    print("error: " + " ".join(text.split()), file=sys.stderr)
    sys.exit(2)
