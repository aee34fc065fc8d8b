"""Hostile input: every parser of files that someone else may have made, fuzzed.

`python -m tests.fuzz --help` says how; what it found lies in `crashes/`, and is tried again by every `make test`.
"""
