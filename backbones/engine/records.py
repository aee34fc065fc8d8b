"""What a training leaves on its way: lines of the log, checkpoints, tests."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from backbones.engine.checkpoint import save_checkpoint
from backbones.engine.distributed import World, on_main, share_buffers
from backbones.engine.run import RunFolder
from backbones.engine.state import TrainState
from backbones.engine.window import diverged
from backbones.stopping import StopRequests


class Records:
    """Writes in the main process; all processes call its methods at the same steps.

    Args:
        run: where the main process records; None in the others, or where nothing is kept.
        batch_size: pictures of a step.
        saved: the step of the newest checkpoint.
        keep: how many checkpoints stay.
        describe_batch: what to say of the batch of a step at which the loss is no number.
    """

    def __init__(
        self,
        state: TrainState,
        run: RunFolder | None,
        world: World,
        *,
        batch_size: int,
        saved: int,
        keep: int,
        describe_batch: Callable[[int], str],
    ):
        self._state, self._run, self._world, self._window = state, run, world, state.window
        self._batch_size, self._saved, self._keep = batch_size, saved, keep
        self._describe_batch = describe_batch
        self._rate = 0.0
        self.last: dict[str, float] = {}

    def add(self, values: dict[str, Tensor], rate: float) -> None:
        """Takes the numbers of a step, and its learning rate."""
        self._window.add(values)
        self._rate = rate

    def log(self, done: int) -> None:
        """Writes a line of averages over the steps since the line before; `last` keeps it.

        Raises:
            DivergedError: a number was not finite in any process.
        """
        means, speed = self._window.close(done, self._describe_batch)
        self.last = means | {"images_per_second": round(speed * self._batch_size, 2), "lr": self._rate}
        if self._run is not None:
            self._run.log(done, "train", self.last)

    def save(self, done: int) -> None:
        """Writes the checkpoint after `done` steps, where that is not the newest already.

        Raises:
            DivergedError: a loss or a weight is no finite number.
            RunFolderError: it can't be written.
        """
        if done == self._saved:
            return
        self._window.gather(done, self._describe_batch)
        _check_weights(self._state.model, done)
        on_main(self._world, lambda: self._write(done))
        self._saved = done
        self._window.start_clock()

    def _write(self, done: int) -> None:
        if self._run is not None:
            parts = {name: part.state_dict() for name, part in self._state.parts().items()}
            self._run.flush()
            save_checkpoint(self._run.checkpoints, done, {"step": done} | parts, self._keep)
            self._run.update()

    def test(self, done: int, evaluate: Callable[[], dict[str, float]], stops: StopRequests) -> None:
        """Tests the weights that the run would keep: their average, where there is one. Can be left at any time."""
        model, average = self._state.model, self._state.average
        if average is not None:
            average.exchange(model)
        share_buffers(model)
        model.eval()
        try:
            with stops.at_once(done):
                results = evaluate()
        finally:
            model.train()
            if average is not None:
                average.exchange(model)
        if self._run is not None:
            self._run.log(done, "test", results)
        self._window.start_clock()


def _check_weights(model: nn.Module, step: int) -> None:
    """The loss is finite, but the update that follows it can still overflow."""
    if not torch.stack([p.detach().isfinite().all() for p in model.parameters()]).all():
        raise diverged(f"the weights are not finite numbers after step {step}")
