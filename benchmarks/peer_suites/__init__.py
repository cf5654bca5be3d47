"""The peers' own tests with medjax's functions in the place of theirs (`python -m benchmarks.peer_suites`).

Two processes: this one has medjax, and answers the calls that come through a pipe from the peers' Python, where pytest runs
the peer's tests (`in_peer`).
"""
