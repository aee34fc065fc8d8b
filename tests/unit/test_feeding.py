"""A network that is trained from files, beside the same on pictures that are on the device: the same steps."""

import torch
from torch import Tensor

from backbones.benchmark.feeding import resident
from backbones.data.sampler import StepSampler
from backbones.inputs import TrainingInput


def test_resident_pictures_are_prepared_in_every_step_as_those_from_files_are() -> None:
    prepared: list[Tensor] = []
    loads = 0

    def load(sampler: StepSampler) -> list[Tensor]:
        nonlocal loads
        loads += 1
        return [torch.tensor(sampler.indices_of(step)) for step in range(len(sampler))]

    def prepare(batch: Tensor) -> tuple[Tensor, Tensor]:
        prepared.append(batch)
        return batch.float(), batch

    source = resident(TrainingInput(load, prepare), 8, 4, torch.device("cpu"))
    sampler = StepSampler(8, batch_size=4, accumulate=1, start_step=0, steps=3, seed=0, rank=0, world_size=1)
    batches = list(source.batches(sampler))
    inputs = [source.prepare(batch)[0] for batch in batches]
    assert loads == 1
    assert len(prepared) == len(inputs) == 3
    assert all(torch.equal(each, prepared[0].float()) for each in inputs)
