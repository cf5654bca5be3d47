"""The log of a server: nothing of what a file holds or is called, no address of a client, no path of a request."""

import sys
from datetime import datetime


def say(job: str, what: str) -> None:
    """One line: the time, the first characters of the name that the server gave the job ("-" for none), and what."""
    print(f"{datetime.now().isoformat(' ', 'seconds')} {job} {what}", file=sys.stderr, flush=True)
