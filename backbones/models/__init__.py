"""The networks of the paper."""

from backbones.models.factory import get_model, list_models, model_options
from backbones.models.stages import Stage, StagedNetwork, run_stages

__all__ = ["Stage", "StagedNetwork", "get_model", "list_models", "model_options", "run_stages"]
