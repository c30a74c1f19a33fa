"""Kills a training at random moments and holds what comes out against a run that nobody touched.

    cargo build --release
    target/release/ragar rank train --config configs/tiny.toml --out runs/rank
    python3 scripts/kill.py --kills 20

Each time the process gets SIGKILL: no handler runs, nothing is saved on the way out. The next start goes on from the newest
whole checkpoint. In the end metrics.jsonl, validation.jsonl and all weights must be the same, byte for byte but for times.
"""

import argparse
import hashlib
import json
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

BUDGET = [
    "data.train_users=8",
    "training.steps=40",
    "training.batch_size=2",
    "training.save_every=1",
    "training.average_decay=0.9",
    "training.validation.every=10",
    "training.validation.users=4",
    "reflection.num_steps=2",
    "inference.num_steps=2",
]


def command(ragar, config, ranking, out):
    values = [*BUDGET, f"models.ranking={ranking}"]
    sets = [argument for value in values for argument in ("--set", value)]
    return [ragar, "train", "--config", config, "--out", str(out), "--quiet", *sets]


def lines(path):
    """What a log says, without the times that no run repeats."""
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    return [{key: value for key, value in row.items() if not key.startswith("seconds_")} for row in rows]


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ragar", default="target/release/ragar")
    parser.add_argument("--config", default="configs/tiny.toml")
    parser.add_argument("--ranking", default="runs/rank")
    parser.add_argument("--out", type=Path, default=Path("runs/kill"))
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    whole, killed = arguments.out / "whole", arguments.out / "killed"
    for folder in (whole, killed):
        shutil.rmtree(folder, ignore_errors=True)
    started = time.monotonic()
    subprocess.run(command(arguments.ragar, arguments.config, arguments.ranking, whole), check=True)
    seconds = time.monotonic() - started
    print(f"whole: {seconds:.1f} s")

    # Kills are spread over what one run takes from start to end, so that some come while nothing is loaded yet, some within a
    # step and some within a save.
    draw = random.Random(arguments.seed)
    kills = 0
    while kills < arguments.kills:
        process = subprocess.Popen(command(arguments.ragar, arguments.config, arguments.ranking, killed), stderr=subprocess.PIPE)
        try:
            process.wait(draw.uniform(0.1, 1.0) * seconds / 4)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            kills += 1
            steps = sorted(int(path.name[5:]) for path in (killed / "checkpoints").glob("step-*") if path.suffix != ".tmp")
            print(f"kill {kills}: checkpoints {steps}")
            continue
        if process.returncode != 0:
            sys.exit(f"a start failed: {process.stderr.read().decode()}")
        # Done before all kills were spent: begin anew.
        if kills < arguments.kills:
            shutil.rmtree(killed)
    subprocess.run(command(arguments.ragar, arguments.config, arguments.ranking, killed), check=True)

    wrong = [name for name in ("metrics.jsonl", "validation.jsonl") if lines(whole / name) != lines(killed / name)]
    weights = ["preference.safetensors", "best.safetensors", "adapter/adapter_model.safetensors"]
    wrong += [name for name in weights if digest(whole / name) != digest(killed / name)]
    if wrong:
        sys.exit(f"different after {kills} kills: {', '.join(wrong)}")
    print(f"{kills} kills: logs and weights are the same")


if __name__ == "__main__":
    main()
