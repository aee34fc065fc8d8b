"""A layer with outputs of its own for each class, of which only those of the classes asked for are computed."""

import torch
from torch import Tensor, nn


class PerClassLayer(nn.Module):
    """A 1x1 convolution (or a fully connected layer) with K x `outputs` outputs.

    With a thousand classes and nine anchors all outputs of a cell are 45,000 numbers; a picture needs those of one
    class, or of five.

    Args:
        in_channels: D.
        outputs: O of each class.
        num_classes: K.
        std: of the new weights, which are normal; biases are 0.
    """

    def __init__(self, in_channels: int, outputs: int, num_classes: int, *, std: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(num_classes, outputs, in_channels))
        self.bias = nn.Parameter(torch.zeros(num_classes, outputs))
        nn.init.normal_(self.weight, std=std)

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        """The outputs (N, P, O, L) of N maps (N, D, L), with L cells, for P classes of each: labels (N, P) in 1..K."""
        weight, bias = self.weight[labels - 1], self.bias[labels - 1]
        out = torch.baddbmm(bias.flatten(1)[:, :, None], weight.flatten(1, 2), x)
        return out.unflatten(1, weight.shape[1:3])
