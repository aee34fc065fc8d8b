"""The 4-step alternating training of Faster R-CNN (its section 3.2), by which the paper's detectors were trained.

1. The RPN, and with it the shared layers, from the classifier (in fine-tuning: from the detector).
2. Fast R-CNN on the proposals of step 1, from the classifier again: the two networks share nothing yet.
3. An RPN on the shared layers of step 2, which are fixed from now on.
4. What Fast R-CNN runs on regions, from step 2, on the proposals of step 3. Together with step 3 this is the detector.

Each step is a run folder of its own, `stages/<step>`, with checkpoints and tests, so the whole can go on from any
optimizer step of any of them. An RPN's proposals are stored once, and removed when they have been trained on.
"""

import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch

from backbones.engine.checkpoint import write_atomically
from backbones.engine.distributed import entered_by_main, explain_loss, on_main, wait_for_all
from backbones.engine.loop import portion_size
from backbones.engine.randomness import derive_seed
from backbones.engine.run import RunFolder, open_run
from backbones.engine.run_record import check_same, read_record
from backbones.engine.schedule import check_schedule
from backbones.errors import ConfigError
from backbones.training import print_outcome
from backbones.weights import load_state, load_weights
from detection.config import DetectorConfig
from detection.data.proposals import StoredProposals
from detection.data.readers import fingerprint
from detection.inference.propose import measure_recall, store_proposals
from detection.models import FasterRCNN
from detection.training import DetectorTask, fit_detector, score_on_test_set


@dataclass(frozen=True)
class Stage:
    """One of the four steps.

    Args:
        name: of its folder.
        part: what is trained.
        title: what this is, in words.
        start: the step whose weights it starts from; None: what the run starts from.
        proposals: the step whose RPN it is trained, and tested, on.
        fixed: whether the shared layers are fixed.
    """

    name: str
    part: Literal["rpn", "regions"]
    title: str
    start: str | None = None
    proposals: str | None = None
    fixed: bool = False


STAGES = (
    Stage("1_rpn", "rpn", "RPN, from the given weights"),
    Stage("2_fast_rcnn", "regions", "Fast R-CNN, from the given weights, on proposals of step 1", proposals="1_rpn"),
    Stage("3_rpn", "rpn", "RPN on the shared layers of step 2", start="2_fast_rcnn", fixed=True),
    Stage("4_fast_rcnn", "regions", "Fast R-CNN on shared layers and proposals of step 3", "3_rpn", "3_rpn", True),
)


def check_stages(config: DetectorConfig, world_size: int) -> None:
    """Refuses settings of the RPN's steps that make no sense, or of steps that there are not.

    Raises:
        ConfigError: names the key.
    """
    given = [name for name, value in vars(config.rpn_stages).items() if value is not None]
    if config.scheme == "alternating":
        try:
            of_rpn = stage_config(config, STAGES[0], 1)
            portion_size(of_rpn.train, world_size)
            check_schedule(of_rpn.schedule)
        except ConfigError as error:
            raise ConfigError(f"{error} (in the RPN's steps; see rpn_stages)") from error
    elif given:
        raise ConfigError(f"rpn_stages.{given[0]}: is of scheme alternating; joint training follows train and schedule")


def stage_config(config: DetectorConfig, stage: Stage, number: int) -> DetectorConfig:
    """The configuration of a step: its own folder, order of pictures and, for an RPN, length."""
    train, schedule, other = config.train, config.schedule, config.rpn_stages
    if stage.part == "rpn":
        own = {name: getattr(other, name) for name in ("steps", "batch_size", "accumulate")}
        train = replace(train, **{name: value for name, value in own.items() if value is not None})
        schedule = schedule if other.milestones is None else replace(schedule, milestones=other.milestones)
    return replace(
        config,
        train=train,
        schedule=schedule,
        expected=[],
        output=str(_folder(config, stage.name)),
        seed=derive_seed(config.seed, number),
    )


def train_alternating(task: DetectorTask, title: str) -> dict[str, Any] | None:
    """Trains a detector in four steps into the run folder `config.output`; goes on with what is not finished.

    Returns:
        The results, in the main process.
    """
    config, world = task.config, task.world
    folder = open_run(
        config.output,
        config,
        resume=config.resume,
        overwrite=config.overwrite,
        allow_mismatch=config.allow_mismatch,
        elastic=config.elastic,
        data_fingerprint=fingerprint(task.train_set),
        official_data=None,
        processes=world.size,
        threads=torch.get_num_threads(),
        class_origins=task.class_origins(),
    )
    with entered_by_main(world, folder) as run, explain_loss(world):
        if run is not None:
            run.update()
            print(title, flush=True)
        for number, stage in enumerate(STAGES, 1):
            stage_run = stage_config(config, stage, number)
            if not on_main(world, partial(_is_finished, stage_run)):
                _train_stage(task, stage, stage_run, number)
            elif world.is_main:
                print(f"step {number} of 4: {stage.title}: is finished", flush=True)
            wait_for_all()  # until the main process has written the last of a step
            if world.is_main:
                _clear_up(config, stage)
        if run is None:
            return None
        return _conclude(config, run)


def _train_stage(task: DetectorTask, stage: Stage, config: DetectorConfig, number: int) -> None:
    detector = task.build()
    if stage.fixed:
        detector.freeze(detector.split.shared_stages())
    if stage.start:
        _load(task, detector, stage.start)
    proposals = _proposals(task, stage.proposals, of_training=True) if stage.proposals else None
    fit_detector(
        task,
        config,
        detector,
        title=f"\nstep {number} of 4: {stage.title}",
        part=stage.part,
        proposals=proposals,
        whole=stage is STAGES[-1],
        test=_test_of(task, stage, detector),
    )


def _clear_up(config: DetectorConfig, stage: Stage) -> None:
    """Removes what nobody needs once a step is finished: its checkpoints, and the proposals it was trained on."""
    shutil.rmtree(_folder(config, stage.name) / "checkpoints", ignore_errors=True)
    if stage.proposals:
        for stored in _folder(config, stage.proposals).glob("proposals_*.npy"):
            stored.unlink()


def _conclude(config: DetectorConfig, run: RunFolder) -> dict[str, Any]:
    """Makes the last step's detector that of the whole run, and one curve of all steps' curves."""
    folders = [_folder(config, stage.name) for stage in STAGES]
    write_atomically(run.weights, lambda path: shutil.copyfile(folders[-1] / "weights.safetensors", path))
    run.forget_after(0)
    done = 0
    for number, (folder, stage) in enumerate(zip(folders, STAGES, strict=True), 1):
        run.take_over(folder / "metrics.jsonl", done)
        done += stage_config(config, stage, number).train.steps
    results = read_record(folders[-1] / "run.json")["results"]
    run.update(results=results)
    print_outcome(config, run.weights, results)
    return results


def _load(task: DetectorTask, detector: FasterRCNN, stage: str) -> None:
    """The weights that a finished step has left."""
    path = _folder(task.config, stage) / "weights.safetensors"
    state, _ = load_weights(path)
    load_state(detector, state, str(path))


def _proposals(task: DetectorTask, stage: str, *, of_training: bool) -> StoredProposals:
    """Those of the RPN of a finished step, made where they are not there."""
    dataset = task.train_set if of_training else task.test_set
    assert dataset is not None
    path = _folder(task.config, stage) / ("proposals_train.npy" if of_training else "proposals_test.npy")
    if not on_main(task.world, path.exists):
        detector = task.build()
        _load(task, detector, stage)
        store_proposals(detector.eval(), dataset, path, to_train=of_training, **task.viewing())
    return StoredProposals(path, len(dataset))


def _test_of(task: DetectorTask, stage: Stage, detector: FasterRCNN) -> Callable[[], dict[str, Any]]:
    """How the network is tested after a step."""
    if task.test_set is None:
        return dict
    if stage.part == "rpn":
        dataset = task.test_set
        return lambda: {"proposals": measure_recall(detector, dataset, **task.viewing())}
    if stage.fixed:
        return partial(score_on_test_set, task, detector)
    # Its RPN is another network: that of the step before.
    assert stage.proposals
    return partial(score_on_test_set, task, detector, _proposals(task, stage.proposals, of_training=False))


def _folder(config: DetectorConfig, stage: str) -> Path:
    return Path(str(config.output)) / "stages" / stage


def _is_finished(config: DetectorConfig) -> bool:
    """Whether a step is done. Raises RunFolderError if it was done with other options."""
    folder = Path(str(config.output))
    if not (folder / "weights.safetensors").is_file() or not (folder / "run.json").is_file():
        return False
    record = read_record(folder / "run.json")
    if record.get("status") != "finished":
        return False
    check_same(folder, record, config, {}, "this step is finished: set it back, or start anew with --overwrite")
    return True
