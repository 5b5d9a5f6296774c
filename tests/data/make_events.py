"""Writes tests/data/events.out.tfevents.runs, with tensorboard 2.21: scalars in both forms."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from tensorboard.compat.proto import event_pb2, summary_pb2, tensor_pb2
from tensorboard.summary.writer.record_writer import RecordWriter


def main() -> None:
    path = Path(__file__).with_name("events.out.tfevents.runs")
    with open(path, "wb") as file:
        writer = RecordWriter(file)

        def add(step: int, **fields: object) -> None:
            value = summary_pb2.Summary.Value(**fields)
            event = event_pb2.Event(
                wall_time=1.5e9 + step, step=step, summary=summary_pb2.Summary(value=[value])
            )
            writer.write(event.SerializeToString())

        writer.write(
            event_pb2.Event(wall_time=1.5e9, file_version="brain.Event:2").SerializeToString()
        )
        for step in (1, 2, 300):
            add(step, tag="train/loss", simple_value=1 / step)
            add(
                step,
                tag="Accuracy/val",
                tensor=tensor_pb2.TensorProto(dtype=1, float_val=[step / 300]),
            )
            content = np.asarray(step / 4, dtype="<f8").tobytes()
            add(step, tag="lr", tensor=tensor_pb2.TensorProto(dtype=2, tensor_content=content))
        add(300, tag="note", tensor=tensor_pb2.TensorProto(dtype=7, string_val=[b"text"]))
        writer.flush()


if __name__ == "__main__":
    main()
