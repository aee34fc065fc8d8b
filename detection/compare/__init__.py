"""Detectors tested in several ways beside each other: what each gains, and what it costs."""
