"""Image classification with the networks of "Deep Residual Learning for Image Recognition"."""

from backbones.models import get_model, list_models

__all__ = ["get_model", "list_models"]
