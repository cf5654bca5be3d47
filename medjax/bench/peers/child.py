"""The other end of `medjax.bench.peer`: runs under any Python, imports nothing of medjax.

    python child.py MODULE

Reads one JSON request a line and answers each with one line. MODULE has `versions()` and a class `Peer`.
"""

import importlib
import json
import os
import sys
import traceback
from typing import Any


def main(name: str) -> None:
    """Serves until its input ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print must not mix with the answers

    def answer(**message: Any) -> None:
        print(json.dumps(message), file=answers, flush=True)

    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        answer(missing=error.name)
        return
    except ImportError as error:  # a package that is there and can't be loaded
        answer(error=f"{sys.executable}: {error}")
        return
    peer = module.Peer()
    answer(result=module.versions())
    for line in sys.stdin:
        request = json.loads(line)
        try:
            result = getattr(peer, request["method"])(**request["arguments"])
        except NotImplementedError as error:
            answer(error=str(error))
        except Exception as error:
            traceback.print_exc()
            answer(error=f"{type(error).__name__}: {error}")
        else:
            answer(result=result)


if __name__ == "__main__":
    main(sys.argv[1])
