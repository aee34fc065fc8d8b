"""What tests of preparing data share."""

import re
from collections.abc import Callable

import pytest

from detection.prepare import main


@pytest.fixture
def refused(capsys: pytest.CaptureFixture) -> Callable[..., str]:
    """Runs `prepare_data`, which must leave with exit code 2; returns its error message."""

    def refused(*arguments: str) -> str:
        with pytest.raises(SystemExit) as left:
            main(arguments)
        assert left.value.code == 2
        last = re.split(r"[\r\n]", capsys.readouterr().err.rstrip("\n"))[-1]
        assert last.startswith("error: ")
        return last

    return refused
