#!/usr/bin/env python3
"""Trains the ranking models on the shipped stickers, with many and with few training items per user, and prints a table.

    cargo build --release
    python scripts/stickers_ranking.py                          # every model, three seeds, until early stopping
    python scripts/stickers_ranking.py --left 16 4 --models micro light-gcn

Python 3.9 or later, no packages. A user of the stickers has two themes (a style and a group of glyphs) and draws items of
them at random, a tenth of them strays. So there is a best any ranking can do: put what is left of both themes first, in
any order. The last row is that: the recall of someone who knows the themes. `--left` is how many of a user's 20 items
are trained on; what remains is halved between validation and test (16: two and two, as configured).
"""

import argparse
import csv
import json
import subprocess
import sys
from collections import Counter, defaultdict
from pathlib import Path

from ml100k import cell

MODELS = ["micro", "lattice", "light-gcn", "matrix-factorisation", "popularity"]
HISTORY = 20


def kept_for_test(left):
    return (HISTORY - left) // 2


def knowing_the_themes(folder, left):
    """Expected recall@20 of a list that begins with all items of the user's two themes, in random order."""
    with open(folder / "stickers.csv", newline="", encoding="utf-8") as file:
        theme = {row["item_id"]: (row["style"], row["group"]) for row in csv.DictReader(file) if row["held_out"] != "true"}
    with open(folder / "interactions.csv", newline="") as file:
        by_user = defaultdict(list)
        for row in csv.DictReader(file):
            if row["item_id"] in theme:
                by_user[row["user_id"]].append((int(row["timestamp"]), row["item_id"]))
    sizes = Counter(theme.values())
    total = 0.0
    for timed in by_user.values():
        items = [item for _, item in sorted(timed)]
        both = {name for name, _ in Counter(theme[item] for item in items).most_common(2)}
        test = items[-kept_for_test(left):]
        trained = items[: len(items) - 2 * kept_for_test(left)]
        places = sum(sizes[name] for name in both) - sum(theme[item] in both for item in trained)
        total += sum(theme[item] in both for item in test) / len(test) * min(1.0, 20 / places)
    return total / len(by_user)


def run(arguments, kind, left, seed):
    folder = arguments.runs / f"{kind}-left-{left}-seed-{seed}"
    values = {
        "ranking.model.kind": kind, "ranking.model.seed": seed, "ranking.training.seed": seed,
        "ranking.training.validation_items": kept_for_test(left), "ranking.training.test_items": kept_for_test(left),
        "ranking.training.max_epochs": arguments.epochs,
    } | dict(pair.split("=", 1) for pair in arguments.set)
    settings = [word for key, value in values.items() for word in ("--set", f"{key}={value}")]
    call = [arguments.ragar, "--config", arguments.config, "--quiet", "--json", *settings]
    report = json.loads(subprocess.run([*call, "rank", "train", "--out", folder], check=True, stdout=-1).stdout)
    at = {row["cutoff"]: row for row in report["test"]}
    figures = [at[10]["recall"], at[20]["recall"], at[20]["ndcg"]]
    print(f"{kind}, {left} left, seed {seed}: {report['num_epochs']} epochs, best {report['best_epoch']}: "
          + " ".join(f"{figure:.4f}" for figure in figures), file=sys.stderr)
    return [*figures, report["best_epoch"]]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ragar", type=Path, default=Path("target/release/ragar"), help="the program")
    parser.add_argument("--config", type=Path, default=Path("configs/tiny.toml"))
    parser.add_argument("--data", type=Path, default=Path("assets/stickers"), help="the configuration's data folder")
    parser.add_argument("--runs", type=Path, default=Path("runs/stickers-ranking"), help="where models go")
    parser.add_argument("--models", nargs="+", default=MODELS, choices=MODELS)
    parser.add_argument("--left", nargs="+", type=int, default=[16, 4, 2], choices=range(2, HISTORY - 1, 2),
                        help="training items per user, even")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=1000, help="at most; early stopping ends trainings before")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="further configuration")
    arguments = parser.parse_args()
    print("| training items per user | model | R@10 | R@20 | NDCG@20 | best epoch |\n|---|---|---|---|---|---|")
    for left in arguments.left:
        for kind in arguments.models:
            # Nothing is drawn by chance where nothing is learned.
            seeds = 1 if kind == "popularity" else arguments.seeds
            columns = list(zip(*(run(arguments, kind, left, seed) for seed in range(seeds))))
            cells = [cell(column) for column in columns[:3]] + [", ".join(str(epoch) for epoch in columns[3])]
            print(f"| {left} | {kind} | " + " | ".join(cells) + " |", flush=True)
        print(f"| {left} | *both themes known* | | {knowing_the_themes(arguments.data, left):.3f} | | |", flush=True)


if __name__ == "__main__":
    main()
