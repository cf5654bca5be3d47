"""The peers' side of `benchmarks.peer_suites`: runs in the peers' Python, under pytest, and imports nothing of medjax.

A module for each peer, of its name, puts medjax's functions in the place of the peer's (`replace`); `plugin` connects them
with the process that has medjax, and sends the result of each test there.
"""
