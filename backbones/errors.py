"""The errors that a user can cause and mend; every command prints them as one line."""

import signal


class UserError(Exception):
    """Something that the user gave is wrong. The message names the file, key or value and says what to do."""


class ConfigError(UserError):
    """A configuration key or value that makes no sense."""


class DataError(UserError):
    """A data set, picture or annotation that can't be used."""

    def about(self, name: str) -> "DataError":
        """The same, naming the picture that it is about, unless it does."""
        return self if name in str(self) else DataError(f"{name}: {self}")


class CheckpointError(UserError):
    """A weights file or checkpoint that can't be used."""


class RunFolderError(UserError):
    """An output folder that can't be used."""


class Stopped(KeyboardInterrupt):
    """A signal asked to stop; an interruption, so that nothing that goes on after errors goes on after it.

    Args:
        number: of the signal.
        steps: optimizer steps that a training had done, which are saved; None outside of training's steps.
    """

    def __init__(self, number: int, steps: int | None = None):
        super().__init__(number, steps)
        self.number, self.steps = number, steps
        self.resumable = False  # set by the run that it ends

    def __str__(self) -> str:
        after = "" if self.steps is None else f" after step {self.steps}"
        advice = ": go on with --resume" if self.resumable else ""
        return f"interrupted by {signal.Signals(self.number).name}{after}{advice}"
