#!/usr/bin/env python3
"""A whole reflection training step, here and in PyTorch (2.9) with diffusers, transformers and peft.

    python benches/compare/reflection.py                   the demo's batch of 8 users, 3 noises, 6 denoising steps
    python benches/compare/reflection.py training.batch_size=24 --rounds 9
    python benches/compare/reflection.py --features tch --device tch

The step is the policy-gradient step of `ragar train`: the language model with its adapter, the mapper and the fusion give a
conditioning, images are drawn around it and decoded, CLIP sees them, MICRO scores them, the rewards weigh the losses, AdamW
moves what trains. benches/compare/reflection/ is our side, benches/compare/pytorch_step/ the other, a straightforward writing
of the same equations. Both take the shipped tiny networks, the same users at every step, the same initial weights.

Each is a process. Ours leaves what the other cannot know (samples, ranking model, initial weights, noise); both take the same
three steps, and every reward, score, loss and gradient's length must agree before any time is taken, and the weights after them: the
second and third step are taken with weights that the steps before moved, so that gradients and optimiser are held too. Then they
take turns, one step each, in an order that changes from round to round. Printed is a Markdown table: median times, the ratio of ours
to theirs (median over rounds, with the interval that holds half of them), what differed, and the peak of memory during the steps.
--rounds 0 only checks.

PyTorch takes part twice where there are threads to wait for each other: as it comes, when they spin, which on a machine that something
else uses too makes a step take several times as long, and with OMP_WAIT_POLICY=passive. The ratio is to the faster of the two.

Kept from step to step on both sides: text states of prompts and captions, the scores of references and keyword images (so keyword
images are drawn in the first step alone), MICRO's graphs and vectors as far as no picture changes them; captions, keywords,
retrieval and embeddings of items are told. Not the same by design: PyTorch keeps the language model's graph while images are
drawn, ours reads the prompts twice and keeps none; ours reads prompt and time steps once per drawing, diffusers' UNet at every
call; ours draws `reflection.images_per_batch` images at once, PyTorch as many as --images-per-batch says (0 for all).
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from networks import ROOT, Contender, Disagreement, quartiles, time_text

# Largest difference: of rewards and scores as a share of the largest, of each loss and the gradients' length as a share of itself.
# L_rank is a sum of terms that nearly cancel.
TOLERANCE = 1e-3
# How far the weights lie apart after the checked steps, as a share of the way that they went. AdamW's first steps take the sign of
# a gradient: where one is nothing but rounding, that is chance.
WEIGHTS = 2e-3
HERE = "here"
# What each of PyTorch's processes finds in its environment.
PYTORCH = {"PyTorch": {}, "PyTorch (passive)": {"OMP_WAIT_POLICY": "passive"}}


def reset_peak():
    """Forgets the peak of resident memory so far, where the kernel lets a process."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        pass


def peak_memory():
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) / 1024


def worker(folder, leave, threads, images_per_batch):
    """PyTorch's side, with the protocol of benches/compare/reflection/main.rs."""
    import torch
    from safetensors.torch import load_file, save_file

    from pytorch_step.preference import as_theirs
    from pytorch_step.step import Training

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    started = time.perf_counter()
    told, tensors = json.loads((folder / "told.json").read_text()), load_file(folder / "told.safetensors")
    training = Training(told, tensors, folder / "adapter", ROOT, images_per_batch)
    loading = time.perf_counter() - started

    before = {name: value.detach().clone() for name, value in training.trained.items()}
    found = {}
    for number in range(told["checked"]):
        step = training.step(tensors[f"exploration.{number}"], tensors[f"latents.{number}"])
        found |= {f"{number}.{key}": value.float() for key, value in step.items()}
    # Where the weights were, where they are, and where ours are, under one name.
    ours = dict(as_theirs(*item) for item in load_file(folder / "ragar.safetensors").items())
    if set(ours) != set(training.trained):
        raise SystemExit(f"trained by one alone: {sorted(set(ours) ^ set(training.trained))}")
    for name, value in training.trained.items():
        found |= {f"before.{name}": before[name], f"theirs.{name}": value.detach(), f"ours.{name}": ours[name]}
    save_file({key: value.contiguous().clone() for key, value in found.items()}, folder / leave)
    del found, before, ours
    reset_peak()
    print(f"ready {loading:.4f}", flush=True)
    for _ in sys.stdin:
        started = time.perf_counter()
        training.step(*training.noise())
        print(f"{time.perf_counter() - started:.6f}", flush=True)
    print(peak_memory())


def ours_of(step):
    """What our side left of a step, in PyTorch's words and shapes."""
    rewards = step["rewards"]

    def each(pick):
        return [[pick(reward) for reward in row] for row in rewards]

    def first(who, what):
        return [row[0][who][what] for row in rewards]

    return {
        "losses": step["losses"], "gradient_norm": step["gradient_norm"], "value": each(lambda r: r["value"]),
        "score": each(lambda r: r["personalised"]["score"]), "likeness": each(lambda r: r["semantic"]),
        "reference": first("reference", "score"), "keyword": first("keyword", "score"),
        "rank": each(lambda r: r["personalised"]["rank"]), "reference_rank": first("reference", "rank"),
        "keyword_rank": first("keyword", "rank"),
    }


def agree(folder, left, tolerance):
    """Largest differences from what PyTorch left: of rewards and scores, of losses, of the gradients' length, of ranks, of how weights moved."""
    import torch
    from safetensors.torch import load_file

    theirs = load_file(folder / left)
    worst = {"rewards": 0.0, "losses": 0.0, "gradient": 0.0, "ranks": 0}
    for number, step in enumerate(json.loads((folder / "ragar.json").read_text())):
        for key, value in ours_of(step).items():
            ours, other = torch.tensor(value, dtype=torch.float32), theirs[f"{number}.{key}"]
            off = (ours - other).abs()
            if "rank" in key:
                worst["ranks"] = max(worst["ranks"], int(off.max()))
                continue
            # Losses differ in size: each against its own.
            off = (off / other.abs()).max() if key == "losses" else off.max() / other.abs().max()
            kind = {"losses": "losses", "gradient_norm": "gradient"}.get(key, "rewards")
            worst[kind] = max(worst[kind], float(off)) if off == off else float("nan")
    for kind in ("rewards", "losses", "gradient"):
        if not worst[kind] <= tolerance:
            raise Disagreement(f"{kind} differ by {worst[kind]:.1e}: {worst}")
    names = [name.removeprefix("before.") for name in theirs if name.startswith("before.")]
    moved = torch.cat([(theirs[f"theirs.{name}"] - theirs[f"before.{name}"]).flatten() for name in names])
    apart = torch.cat([(theirs[f"ours.{name}"] - theirs[f"theirs.{name}"]).flatten() for name in names])
    worst["weights"] = float(apart.norm() / moved.norm())
    if not worst["weights"] <= WEIGHTS:
        raise Disagreement(f"weights lie apart by {worst['weights']:.1e} of their way")
    return worst


def build(features):
    words = ["--no-default-features", "--features", features] if features else []
    output = subprocess.run(
        ["cargo", "bench", "--no-run", "--bench", "reflection", "--message-format=json", *words],
        cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout
    return [line["executable"] for line in map(json.loads, output.splitlines())
            if line.get("executable") and line["target"]["name"] == "reflection"][-1]


def report(arguments, told, field, off, load):
    """The table with its heading."""
    # The first round warms caches.
    seconds = {name: contender.seconds[1:] for name, contender in field.items()}
    faster = min((name for name in field if name != HERE), key=lambda name: statistics.median(seconds[name]))
    ratios = [a / b for a, b in zip(seconds[HERE], seconds[faster])]
    low, high = quartiles(ratios)
    reflection, names = told["config"]["reflection"], ", ".join(field)
    columns = {name: time_text(statistics.median(values)) for name, values in seconds.items()}
    columns |= {
        "ratio to the faster (half of the rounds)": f"{statistics.median(ratios):.2f} ({low:.2f} … {high:.2f})",
        "difference of rewards, losses, gradients' length": ", ".join(f"{off[kind]:.0e}" for kind in ("rewards", "losses", "gradient")),
        f"ranks, weights' way after {told['checked']} steps": f"{off['ranks']}, {off['weights']:.0e}",
        f"loading: {names}": ", ".join(time_text(contender.loading) for contender in field.values()),
        f"peak MiB of the steps: {names}": ", ".join(f"{contender.peak:.0f}" for contender in field.values()),
    }
    table = [columns, dict.fromkeys(columns, "---").values(), columns.values()]
    return (f"\nA step of {len(told['samples'])} users, {reflection['num_noises']} noises, {reflection['num_steps']} denoising steps with "
            f"guidance; {arguments.device}, {arguments.threads} threads, {arguments.rounds} rounds; load of the machine before: {load:.1f}\n\n"
            + "\n".join(f"| {' | '.join(words)} |" for words in table))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("settings", nargs="*", metavar="key=value", help="over the demo's budget, as `ragar --set` takes them")
    parser.add_argument("--device", default="flex", help="ours; PyTorch computes on the CPU")
    parser.add_argument("--features", help="Cargo features, where not the default ones")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--rounds", type=int, default=9, help="0 checks and takes no time")
    parser.add_argument("--images-per-batch", type=int, default=16, help="images that PyTorch draws at once; 0 for all")
    parser.add_argument("--tolerance", type=float, default=TOLERANCE)
    parser.add_argument("--built", type=Path, help="run this in place of building")
    parser.add_argument("--worker", nargs=2, metavar=("FOLDER", "FILE"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        folder, leave = arguments.worker
        return worker(Path(folder), leave, arguments.threads, arguments.images_per_batch)

    ours = arguments.built.resolve() if arguments.built else build(arguments.features)
    threads = str(arguments.threads)
    environment = os.environ | {"RAYON_NUM_THREADS": threads, "OMP_NUM_THREADS": threads, "HF_HUB_OFFLINE": "1"}
    # Paths in the configuration start at the repository.
    os.chdir(ROOT)
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        folder, field, off = Path(folder), {}, []
        try:
            # It writes what the others read.
            field[HERE] = Contender(HERE, list(map(str, [ours, folder, arguments.device, threads, *arguments.settings])), environment)
            for name, further in PYTORCH.items() if arguments.threads > 1 else list(PYTORCH.items())[:1]:
                left = f"{name}.safetensors"
                command = [sys.executable, Path(__file__).resolve(), "--worker", folder, left, "--threads", threads,
                           "--images-per-batch", arguments.images_per_batch]
                field[name] = Contender(name, list(map(str, command)), environment | further)
                off.append(agree(folder, left, arguments.tolerance))
            off = {kind: max(found[kind] for found in off) for kind in off[0]}
            told = json.loads((folder / "told.json").read_text())
            names = list(field)
            for turn in range(arguments.rounds + 1 if arguments.rounds else 0):
                for place in range(len(names)):
                    field[names[(place + turn) % len(names)]].run()
        except Disagreement as reason:
            print(f"no time taken: {reason}", file=sys.stderr)
            return 1
        finally:
            for contender in field.values():
                contender.end()
    print(report(arguments, told, field, off, load) if arguments.rounds else off)


if __name__ == "__main__":
    sys.exit(main())
