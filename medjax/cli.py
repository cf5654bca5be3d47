"""What every command does with what the user gave: parse it, and say in one line what is wrong with it."""

import os
import sys
from collections.abc import Callable

from absl import app, flags, logging

from medjax.types import UserError


def run(main: Callable[[], None]) -> None:
    """Parses the flags and runs `main`. Exit code 0: done; 2: `error: <file or key>: <what is wrong>`, no traceback."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    logging.set_verbosity(logging.WARNING)
    app.run(lambda _: _guarded(main), flags_parser=lambda argv: _guarded(lambda: flags.FLAGS(argv)))


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
        if "Failed loading config file" not in str(error):
            raise
        _fail(str(error).split("Failed loading config file", 1)[1].split("Attempted", 1)[1])


def _fail(text: str) -> None:
    print("error: " + " ".join(text.split()), file=sys.stderr)
    sys.exit(2)
