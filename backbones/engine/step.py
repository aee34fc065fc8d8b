"""One optimizer step, kernel by kernel or as one CUDA graph; the network as it is or compiled."""

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from backbones.engine.acceleration import Precision, autocast
from backbones.errors import UserError

# (the model as wrapped for many processes, a micro-batch) -> (loss to minimise, numbers to log)
ComputeLoss = Callable[[nn.Module, Any], tuple[Tensor, dict[str, Tensor]]]
# micro-batches -> the loss and the numbers of one step, on the device
TakeStep = Callable[[Iterator[Any]], dict[str, Tensor]]

_WARM_UP = 3  # steps before a capture, in which libraries choose their algorithms and allocate what they keep


class Step:
    """Forward and backward passes over the portions of a batch, and the update.

    Args:
        model: as wrapped for many processes.
        compute_loss: the mean loss over a micro-batch, and what to log.
        accumulate: portions that this process works through one after the other.
        precision: of the forward passes.
        device: of the model.
        clip_grad_norm: the gradient's norm is cut to this; 0 leaves it alone.
        log_gradient_norm: whether `gradient_norm`, before it is cut, is among the numbers.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        compute_loss: ComputeLoss,
        *,
        accumulate: int,
        precision: Precision,
        device: torch.device,
        clip_grad_norm: float = 0.0,
        log_gradient_norm: bool = False,
    ):
        self.model, self.optimizer, self.device = model, optimizer, device
        self.accumulate = accumulate
        self._compute_loss, self._precision = compute_loss, precision
        self._clip_grad_norm, self._log_gradient_norm = clip_grad_norm, log_gradient_norm

    def __call__(self, batches: Iterator[Any]) -> dict[str, Tensor]:
        """Takes `accumulate` of the micro-batches; the means over them of the loss and the numbers."""
        self.optimizer.zero_grad(set_to_none=True)
        portions = []
        for portion in range(self.accumulate):
            last = portion == self.accumulate - 1
            # Of many processes, gradients are exchanged once a step.
            with nullcontext() if last or not hasattr(self.model, "no_sync") else self.model.no_sync():  # type: ignore[operator]
                with autocast(self._precision, self.device):
                    loss, numbers = self._compute_loss(self.model, next(batches))
                (loss / self.accumulate).backward()
            portions.append({"loss": loss.detach(), **{name: value.detach() for name, value in numbers.items()}})
        values = {name: torch.stack([p[name].double() for p in portions]).mean() for name in portions[0]}
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        if self._clip_grad_norm or self._log_gradient_norm:
            norm = nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
            if self._log_gradient_norm:
                values["gradient_norm"] = norm.double()
            if self._clip_grad_norm:
                nn.utils.clip_grads_with_norm_(parameters, self._clip_grad_norm, norm)
        self.optimizer.step()
        return values


class CapturedStep:
    """A step whose kernels are recorded once, as a CUDA graph, and then started all at once.

    Small networks leave a GPU waiting for the CPU that starts its kernels one by one; a graph does not. The optimizer
    must be a fused one, whose rate can be a tensor (of float32). The state of training is that of steps that were not
    captured: what the warm-up before the capture changes is put back.

    Args:
        step: what to record, all portions of a batch; its micro-batches must be tensors, or named tuples of tensors, of
            one shape.
        model: whose buffers the step changes.
        give_up: is told why the step can't be captured; from then on `step` is taken as it is. None raises the error.
    """

    def __init__(self, step: Step, model: nn.Module, give_up: Callable[[str], None] | None = None):
        self._step, self._model = step, model
        self._give_up, self._gave_up = give_up, False
        self._graph: torch.cuda.CUDAGraph | None = None
        self._portions: list[Any] = []  # where the graph finds its micro-batches
        self._values: dict[str, Tensor] = {}

    def __call__(self, batches: Iterator[Any]) -> dict[str, Tensor]:
        portions = [next(batches) for _ in range(self._step.accumulate)]
        if self._graph is None and not self._gave_up:
            self._graph = self._capture(portions)
        if self._graph is None:
            return self._step(iter(portions))
        for kept, new in zip(self._portions, portions, strict=True):
            for target, source in zip(_tensors(kept), _tensors(new), strict=True):
                target.copy_(source, non_blocking=True)
        self._graph.replay()
        return {name: value.clone() for name, value in self._values.items()}

    def _capture(self, portions: list[Any]) -> torch.cuda.CUDAGraph | None:
        """The graph; None where the capture failed, with all as it was before."""
        device, optimizer = self._step.device, self._step.optimizer
        rates = [group["lr"] for group in optimizer.param_groups]
        states = {parameter: dict(state) for parameter, state in optimizer.state.items()}
        random_state, stream = torch.cuda.get_rng_state(device), torch.cuda.current_stream()
        changing: list[tuple[Tensor, Tensor]] = []
        reason = None
        try:
            self._portions = [_map_tensors(lambda tensor: tensor.to(device, copy=True), batch) for batch in portions]
            for group in optimizer.param_groups:
                group["lr"] = torch.tensor(float(group["lr"]), device=device)
                for parameter in group["params"]:  # as SGD's own first step would leave them, but before the capture
                    optimizer.state[parameter].setdefault("momentum_buffer", torch.zeros_like(parameter))
            momenta = [buffer for state in optimizer.state.values() for buffer in state.values()]
            for tensor in (*self._model.state_dict().values(), *momenta):
                changing.append((tensor, tensor.clone()))
            graph = self._warm_up_and_record(changing)
        except Exception as error:  # forbidden operations, too little memory: each has its own
            # What fails within a capture ends it, and its end fails too: the first of them says why.
            reason = describe(error.__context__ if isinstance(error.__context__, Exception) else error)
            if device.type == "cuda":
                _leave_capture(device, stream)
            _put_back(changing)
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = rate
            optimizer.state.clear()
            optimizer.state.update(states)
            optimizer.zero_grad(set_to_none=True)
            self._portions, self._values = [], {}
            if self._give_up is None or isinstance(error, UserError):
                raise
        finally:
            torch.cuda.set_rng_state(random_state, device)
        if reason is None:
            return graph
        self._gave_up = True
        if self._give_up is not None:
            self._give_up(reason)
        return None

    def _warm_up_and_record(self, changing: list[tuple[Tensor, Tensor]]) -> torch.cuda.CUDAGraph:
        aside = torch.cuda.Stream()
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            for _ in range(_WARM_UP):
                self._step(iter(self._portions))
            self._step.optimizer.zero_grad(set_to_none=True)
        torch.cuda.current_stream().wait_stream(aside)
        _put_back(changing)
        graph = torch.cuda.CUDAGraph()
        # Other threads, such as one that pins loaded batches, may go on with what a capture forbids.
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):
            self._values = self._step(iter(self._portions))
        return graph


def _put_back(changing: list[tuple[Tensor, Tensor]]) -> None:
    for tensor, kept in changing:
        tensor.copy_(kept)


def _leave_capture(device: torch.device, stream: torch.cuda.Stream) -> None:
    """A capture whose end fails leaves PyTorch on its own stream, and random numbers that wait for its end."""
    torch.cuda.set_stream(stream)
    index = torch.cuda.current_device() if device.index is None else device.index
    generator = torch.cuda.default_generators[index]
    generator.graphsafe_set_state(generator.clone_state())


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Sets the learning rate of the next step, times a group's own `lr_factor`; of a captured step on the device."""
    for group in optimizer.param_groups:
        own = rate * group.get("lr_factor", 1.0)
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(own)
        else:
            group["lr"] = own


def why_not_captured(device: torch.device, world_size: int) -> str | None:
    """Why steps can't be captured here; None where they can."""
    if device.type != "cuda":
        return f"CUDA graphs need a GPU, this runs on {device.type}"
    return f"not with {world_size} processes" if world_size > 1 else None


def why_not_compiled(device: torch.device) -> str | None:
    """Why networks can't be compiled here; None where they can. Compiles a small function to find out."""
    try:
        torch.compile(lambda x: (x + 1).relu(), fullgraph=True)(torch.zeros(2, device=device))
    except Exception as error:  # no C++ compiler, no Triton, a Python that is too new: each has its own
        return describe(error)
    return None


def describe(error: Exception) -> str:
    """An error in one line."""
    return " ".join(str(error).split())[:200] or type(error).__name__


def _tensors(batch: Any) -> list[Tensor]:
    return [batch] if isinstance(batch, Tensor) else list(batch)


def _map_tensors(change: Callable[[Tensor], Tensor], batch: Any) -> Any:
    return change(batch) if isinstance(batch, Tensor) else type(batch)(*map(change, batch))
