"""The other end of `medjax.bench.peer`: runs under any Python, imports nothing of medjax.

    python child.py MODULE

Reads one JSON request a line and replies to each with one line. MODULE has `versions()` and a class `Peer`.
"""

import importlib
import json
import os
import sys
import traceback
from typing import Any


def main(name: str) -> None:
    """Serves until its input ends."""
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print must not mix with the replies

    def reply(**message: Any) -> None:
        print(json.dumps(message), file=replies, flush=True)

    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        reply(missing=error.name)
        return
    except ImportError as error:  # a package that is there and can't be loaded
        reply(error=f"{sys.executable}: {error}")
        return
    peer = module.Peer()
    reply(result=module.versions())
    for line in sys.stdin:
        request = json.loads(line)
        try:
            result = getattr(peer, request["method"])(**request["arguments"])
        except NotImplementedError as error:
            reply(error=str(error))
        except Exception as error:
            traceback.print_exc()
            reply(error=f"{type(error).__name__}: {error}")
        else:
            reply(result=result)


if __name__ == "__main__":
    main(sys.argv[1])
