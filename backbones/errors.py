"""The errors that a user can cause and mend; every command prints them as one line."""


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
