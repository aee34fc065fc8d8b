"""Runs `pretrain` several times in the same processes: `run_in_turn.py PORT arguments ... --then PORT arguments ...`.

Importing PyTorch in every process takes longer than these runs. Each run has a port of its own, by which its processes
find each other: torchrun's own store serves only one after the other.
"""

import os
import sys
from itertools import groupby

from backbones.train import main

os.environ["TORCHELASTIC_USE_AGENT_STORE"] = "False"
for is_separator, arguments in groupby(sys.argv[1:], lambda argument: argument == "--then"):
    if not is_separator:
        os.environ["MASTER_PORT"], *argv = arguments
        main(argv)
