"""Learns 20 real pictures by heart: what a detector can't do if targets, losses or boxes are wrong anywhere."""

import json
from pathlib import Path
from typing import Any

import pytest
from detector_commands import ROOT, record

from backbones.train import main as pretrain_main
from detection.train import main as train_main

PICTURES, SMALLEST = 20, 48  # pixels a side of the smallest object
