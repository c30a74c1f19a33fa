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
three steps, and every reward, score, loss and gradient's length must agree before any time is taken: the second and third step
are taken with weights that the steps before moved, so that gradients and optimiser are held too. Then they take turns, one step
each, in an order that changes from round to round. Printed is a Markdown table: median times, the ratio of ours to theirs (median
over rounds, with the interval that holds half of them), what differed, and the peak of memory during the steps.

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

# Shares of the largest value that may differ. Scores are sums over few of 64-wide vectors, six denoising steps behind.
TOLERANCE = 1e-3


def reset_peak():
    """Forgets the peak of resident memory so far, where the kernel lets a process."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        pass


def peak_memory():
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) / 1024


def worker(folder, threads, images_per_batch):
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
    save_file({key: value.contiguous().clone() for key, value in found.items()}, folder / "pytorch.safetensors")
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


def agree(folder, tolerance):
    """Largest differences: of rewards and scores, of losses, of the gradients' length, of ranks, of how weights moved."""
    import torch
    from safetensors.torch import load_file

    theirs = load_file(folder / "pytorch.safetensors")
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
    return worst | {"weights": float(apart.norm() / moved.norm())}


def build(features):
    words = ["--no-default-features", "--features", features] if features else []
    output = subprocess.run(
        ["cargo", "bench", "--no-run", "--bench", "reflection", "--message-format=json", *words],
        cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout
    return [line["executable"] for line in map(json.loads, output.splitlines())
            if line.get("executable") and line["target"]["name"] == "reflection"][-1]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("settings", nargs="*", metavar="key=value", help="over the demo's budget, as `ragar --set` takes them")
    parser.add_argument("--device", default="flex", help="ours; PyTorch computes on the CPU")
    parser.add_argument("--features", help="Cargo features, where not the default ones")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--images-per-batch", type=int, default=16, help="images that PyTorch draws at once; 0 for all")
    parser.add_argument("--tolerance", type=float, default=TOLERANCE)
    parser.add_argument("--built", type=Path, help="run this in place of building")
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        return worker(arguments.worker, arguments.threads, arguments.images_per_batch)

    ours = arguments.built.resolve() if arguments.built else build(arguments.features)
    threads = str(arguments.threads)
    environment = os.environ | {"RAYON_NUM_THREADS": threads, "OMP_NUM_THREADS": threads, "HF_HUB_OFFLINE": "1"}
    # Paths in the configuration start at the repository.
    os.chdir(ROOT)
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        commands = {
            "here": [ours, folder, arguments.device, threads, *arguments.settings],
            "PyTorch": [sys.executable, Path(__file__).resolve(), "--worker", folder, "--threads", threads,
                        "--images-per-batch", arguments.images_per_batch],
        }
        field = {}
        try:
            # Ours first: it writes what the other reads.
            for name, command in commands.items():
                field[name] = Contender(name, list(map(str, command)), environment)
            off = agree(Path(folder), arguments.tolerance)
            told = json.loads((Path(folder) / "told.json").read_text())
            for turn in range(arguments.rounds + 1):
                for place in range(2):
                    field[list(field)[(place + turn) % 2]].run()
        except Disagreement as reason:
            print(f"no time taken: {reason}", file=sys.stderr)
            return 1
        finally:
            for contender in field.values():
                contender.end()

    # The first round warms caches.
    here, there = (field[name].seconds[1:] for name in ("here", "PyTorch"))
    ratios = [a / b for a, b in zip(here, there)]
    low, high = quartiles(ratios)
    reflection = told["config"]["reflection"]
    print(f"\nA step of {len(told['samples'])} users, {reflection['num_noises']} noises, {reflection['num_steps']} denoising steps with "
          f"guidance; {arguments.device}, {threads} threads, {arguments.rounds} rounds; load of the machine before: {load:.1f}\n")
    print("| here | PyTorch | ratio (half of the rounds) | difference of rewards, losses, gradient's length | ranks, weights' way after "
          f"{told['checked']} steps | loading: here, PyTorch | peak MiB of the steps: here, PyTorch |")
    print("|---|---|---|---|---|---|---|")
    print(f"| {time_text(statistics.median(here))} | {time_text(statistics.median(there))} | {statistics.median(ratios):.2f} "
          f"({low:.2f} … {high:.2f}) | {off['rewards']:.0e}, {off['losses']:.0e}, {off['gradient']:.0e} | {off['ranks']}, {off['weights']:.0e} | "
          f"{', '.join(time_text(field[name].loading) for name in field)} | {', '.join(f'{field[name].peak:.0f}' for name in field)} |")


if __name__ == "__main__":
    sys.exit(main())
