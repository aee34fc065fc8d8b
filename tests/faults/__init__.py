"""The fault harness: real runs, hurt in every way that a machine, a disk or a user can hurt them.

They must end in the bits of the undisturbed run.

`python -m tests.faults` is the long form, `test_faults.py` the short one. Read `harness.py` first, then any kind.
"""
