"""Records what TensorBoard reads in the event files of `tests/golden/tensorboard`.

    RAGAR_WRITE_GOLDEN=1 cargo test --release --test it -- tensorboard
    python tests/golden/event_files.py

Needs tensorboard (recorded with 2.21). The files are this crate's, held byte for byte by `tests/it/tensorboard.rs`.
"""

import json
from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

folder = Path(__file__).resolve().parent / "tensorboard"
events = EventAccumulator(str(folder), size_guidance={"scalars": 0, "images": 0})
events.Reload()
tags = events.Tags()
record = {
    "scalars": {tag: [[e.step, e.value] for e in events.Scalars(tag)] for tag in sorted(tags["scalars"])},
    "images": {
        tag: [[e.step, e.width, e.height, len(e.encoded_image_string)] for e in events.Images(tag)]
        for tag in sorted(tags["images"])
    },
}
text = json.dumps(record, indent=1, ensure_ascii=False) + "\n"
(folder / "golden.json").write_text(text)
print(text)
