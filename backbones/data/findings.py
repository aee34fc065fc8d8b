"""What checks of data sets find, and how it is written down. Each module of checks has its own kinds of findings."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from backbones.text import printable

Severity = Literal["error", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")


@dataclass(frozen=True)
class Kind:
    """A kind of finding.

    Args:
        name: a word, for programs.
        severity: error: training or testing stops at it, or means something else than one thinks; warning: better
            looked at; note: good to know.
        title: what all findings of this kind have in common.
    """

    name: str
    severity: Severity
    title: str


@dataclass(frozen=True)
class Finding:
    """Something about one file or folder.

    Args:
        kind: what it is.
        file: where.
        message: a sentence about it, and what to do.
    """

    kind: Kind
    file: str
    message: str


def count_severities(findings: Sequence[Finding]) -> dict[Severity, int]:
    """How many findings there are of each severity."""
    counts = Counter(finding.kind.severity for finding in findings)
    return {severity: counts[severity] for severity in SEVERITIES}


def findings_as_json(findings: Sequence[Finding]) -> dict[str, Any]:
    """All findings, for a JSON file: counts by severity and by kind, then each."""
    return {
        "severities": count_severities(findings),
        "kinds": dict(Counter(finding.kind.name for finding in findings)),
        "findings": [
            {"severity": f.kind.severity, "kind": f.kind.name, "file": f.file, "message": f.message} for f in findings
        ],
    }


def format_findings(findings: Sequence[Finding], first: int = 5) -> str:
    """A table by kind, the worst on top, and then the first few of each kind."""
    by_kind: dict[Kind, list[Finding]] = {}
    for finding in findings:
        by_kind.setdefault(finding.kind, []).append(finding)
    kinds = sorted(by_kind, key=lambda kind: (SEVERITIES.index(kind.severity), -len(by_kind[kind]), kind.name))
    width = max((len(kind.name) for kind in kinds), default=0)
    table = [f"{kind.severity:<8} {kind.name:<{width}} {len(by_kind[kind]):>9,}  {kind.title}" for kind in kinds]
    examples = []
    for kind in kinds:
        examples.append(f"\n{kind.severity} {kind.name}")
        examples += [f"  {printable(f.file)}: {printable(f.message)}" for f in by_kind[kind][:first]]
        if (more := len(by_kind[kind]) - first) > 0:
            examples.append(f"  and {more:,} more")
    return "\n".join([*table, *examples])
