"""A file of numbers for TensorBoard, written where it is asked for: no thread whose errors nobody catches."""

import os
import platform
import time
from pathlib import Path


class EventFile:
    """A new file of a folder; to be closed. Raises OSError where it can't be written, as its methods do."""

    def __init__(self, folder: Path):
        from tensorboard.compat.proto.event_pb2 import Event  # half a second to import
        from tensorboard.summary.writer.record_writer import RecordWriter

        now = time.time()
        name = f"events.out.tfevents.{int(now)}.{platform.node()}.{os.getpid()}.{time.monotonic_ns()}"
        self._records = RecordWriter((folder / name).open("wb", buffering=0))
        self._records.write(Event(wall_time=now, file_version="brain.Event:2").SerializeToString())

    def add(self, step: int, values: dict[str, float]) -> None:
        """Adds the numbers after so many steps, by name."""
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary

        scalars = [Summary.Value(tag=name, simple_value=value) for name, value in values.items()]
        event = Event(wall_time=time.time(), step=step, summary=Summary(value=scalars))
        self._records.write(event.SerializeToString())

    def close(self) -> None:
        """Ends the file."""
        self._records.close()
