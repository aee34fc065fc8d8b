"""Batch normalisation fixed during detector training: an affine transform (Appendix A)."""

import torch
from torch import Tensor
from torchvision.ops import misc


class FrozenBatchNorm2d(misc.FrozenBatchNorm2d):
    """torchvision's, computed in one pass over the map and in the map's own precision (bfloat16 stays bfloat16)."""

    def forward(self, x: Tensor) -> Tensor:
        scale = self.weight * (self.running_var + self.eps).rsqrt()
        shift = self.bias - self.running_mean * scale
        scale, shift = (v.to(x.dtype)[:, None, None] for v in (scale, shift))
        return torch.addcmul(shift, x, scale)
