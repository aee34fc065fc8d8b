"""One process or many: under `torchrun` the same code trains on all of them (nccl on GPUs, gloo on CPUs)."""

import ctypes
import os
import re
import signal
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from backbones.errors import ConfigError, UserError

T = TypeVar("T")
TIMEOUT_MINUTES = 30.0
_PR_SET_PDEATHSIG = 1
_LONGEST_TIMEOUT = 60 * 24 * 366  # minutes


class LostProcessesError(UserError):
    """Other processes of this run have died, or can't be reached any more."""


@dataclass(frozen=True)
class World:
    """Which process this is.

    Args:
        rank: its number among all processes; 0 writes files and prints.
        size: the number of processes.
        device: where its tensors live.
    """

    rank: int
    size: int
    device: torch.device

    @property
    def is_main(self) -> bool:
        """Whether this process writes files and prints."""
        return self.rank == 0


@contextmanager
def join_world(device: str, timeout_minutes: float = TIMEOUT_MINUTES) -> Iterator[World]:
    """Joins the processes that `torchrun` started; alone without it.

    Args:
        device: "auto" (a GPU where there is one), "cpu" or "cuda".
        timeout_minutes: how long processes wait for one another before they count as lost.

    Raises:
        ConfigError: a GPU was asked for and there is none, or the time-out makes no sense.
        LostProcessesError: see `explain_loss`.
    """
    if not 0 < timeout_minutes <= _LONGEST_TIMEOUT:
        raise ConfigError(f"timeout_minutes {timeout_minutes}: give a number above 0, {_LONGEST_TIMEOUT} at most")
    size, rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda":
        if not torch.cuda.is_available():
            raise ConfigError("device cuda: this machine has no usable GPU; set --device cpu")
        local_rank = int(os.environ.get("LOCAL_RANK", "0"))
        if local_rank >= torch.cuda.device_count():
            raise ConfigError(
                f"{local_rank + 1} processes for {torch.cuda.device_count()} GPUs: lower --nproc-per-node"
            )
        torch.cuda.set_device(local_rank)
        device = f"cuda:{local_rank}"
    world = World(rank, size, torch.device(device))
    if "WORLD_SIZE" not in os.environ:
        yield world
        return
    _stop_with_parent()
    lost = False
    try:
        with explain_loss(world):
            timeout = timedelta(minutes=timeout_minutes)
            # What lies on the CPU, such as whether to stop, is exchanged without waiting for the GPU.
            dist.init_process_group(
                "cpu:gloo,cuda:nccl" if world.device.type == "cuda" else "gloo",
                store=_store_of_attempt(world, timeout),
                rank=world.rank,
                world_size=world.size,
                timeout=timeout,
            )
            yield world
    except LostProcessesError:
        lost = True
        raise
    finally:
        if dist.is_initialized():
            if lost:  # else a GPU would go on waiting for the others
                with suppress(RuntimeError):
                    dist.distributed_c10d._get_default_group().abort()
            dist.destroy_process_group()


def _store_of_attempt(world: World, timeout: timedelta) -> dist.Store | None:
    """Where the processes of this machine find one another; None: as PyTorch has it.

    A torchrun that starts its processes anew keeps its store. In that, PyTorch would find the addresses of those that
    have ended, and fail to connect. With several machines this can't be mended here: restarts are counted on each.
    """
    given = os.environ
    if given.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        return None
    if given.get("GROUP_WORLD_SIZE") != "1":
        if world.is_main:
            print("set TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 for torchrun: else restarts may fail", flush=True)
        return None
    port = int(given["MASTER_PORT"])
    store = dist.TCPStore(given["MASTER_ADDR"], port, world.size, is_master=False, timeout=timeout)
    return dist.PrefixStore(f"attempt {given['TORCHELASTIC_RESTART_COUNT']}", store)


def _stop_with_parent() -> None:
    """Asks for a SIGTERM when torchrun dies, which starts its processes in sessions of their own: they would go on."""
    with suppress(OSError, AttributeError):  # not Linux
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


@contextmanager
def explain_loss(world: World) -> Iterator[None]:
    """Says in one line what PyTorch's many errors mean that come when another process does not answer.

    Raises:
        LostProcessesError: in place of such an error.
    """
    try:
        yield
    except RuntimeError as error:
        text = " ".join(str(error).split())
        if not isinstance(error, dist.DistError) and "gloo" not in text.lower():  # gloo's are plain
            raise
        reason = re.sub(r"\[\S*\.(cc|cpp|h):\d+\] ?", "", text).partition(" This is typically")[0][:200].rstrip(". ")
        raise LostProcessesError(
            f"rank {world.rank} of {world.size} processes lost the others ({reason}): start the command again, "
            "training goes on from its last checkpoint with --resume (under torchrun --max-restarts by itself)"
        ) from error


def data_parallel(model: nn.Module, world: World, *, unused_parameters: bool) -> nn.Module:
    """Wraps `model` so that gradients are averaged over all processes; see `first_pass.py` for the order of their sums.

    Gradients live in the buckets in which they are summed: they take no memory twice and are not copied back.
    Batch-norm statistics stay each process's own, as in the paper.

    Args:
        unused_parameters: whether some parameters get no gradient in a step.
    """
    devices = [world.device] if world.device.type == "cuda" else None
    with warnings.catch_warnings(action="ignore", category=FutureWarning):  # `broadcast_buffers` gets another name
        return DistributedDataParallel(
            model,
            device_ids=devices,
            broadcast_buffers=False,
            gradient_as_bucket_view=True,
            find_unused_parameters=unused_parameters,
        )


def share_buffers(model: nn.Module) -> None:
    """Gives every process the main one's buffers (batch-norm statistics), so that all evaluate the same network."""
    if dist.is_initialized():
        for buffer in model.buffers():
            dist.broadcast(buffer, src=0)


def gather_objects(value: Any) -> list[Any]:
    """The values of all processes, by rank."""
    if not dist.is_initialized():
        return [value]
    values: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return values


def on_main(world: World, act: Callable[[], T]) -> T:
    """Lets the main process act, on a disk that may look otherwise on other machines; tells all what came of it.

    Raises:
        UserError: in every process, where the main one's action does.
    """
    answer: Any = None
    if world.is_main:
        try:
            answer = act()
        except UserError as error:
            answer = error
    if dist.is_initialized():
        box = [answer]
        dist.broadcast_object_list(box, src=0)
        answer = box[0]
    if isinstance(answer, UserError):
        raise answer
    return answer


@contextmanager
def entered_by_main(world: World, context: AbstractContextManager[T]) -> Iterator[T | None]:
    """Enters a context in the main process alone; None in the others, which go on once that is done.

    Raises:
        UserError: in every process, where the main one can't enter.
    """
    with ExitStack() as stack:
        entered: list[T] = []
        on_main(world, lambda: entered.append(stack.enter_context(context)))
        yield entered[0] if entered else None


def highest_over_processes(number: int) -> int:
    """The highest of the processes' numbers, by way of the CPU."""
    if not dist.is_initialized():
        return number
    highest = torch.tensor(number)
    dist.all_reduce(highest, dist.ReduceOp.MAX)
    return int(highest)


def mean_over_processes(values: Tensor) -> Tensor:
    """The mean of a tensor over all processes."""
    if dist.is_initialized():
        dist.all_reduce(values)
        values = values / dist.get_world_size()
    return values


def wait_for_all() -> None:
    """Returns when every process has come here."""
    if dist.is_initialized():
        dist.barrier()
