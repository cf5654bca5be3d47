"""The memory of a process that reads a file that may be damaged. It imports little: such a process begins at once."""

import resource


def limit(size: int) -> None:
    """Leaves this process `size` bytes of memory beside what it has."""
    with open("/proc/self/statm", encoding="ascii") as pages:
        used = int(pages.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + size, resource.getrlimit(resource.RLIMIT_AS)[1]))
