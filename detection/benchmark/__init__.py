"""The command `benchmark`, and its parts that are about detectors; those about classifiers are in backbones."""
