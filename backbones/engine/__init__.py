"""The engine: one training loop for classifiers and detectors. It knows no model, data set or metric."""
