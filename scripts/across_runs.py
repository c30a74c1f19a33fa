"""One method over several trainings, beside the others: tables from the `scores.csv` of `ragar eval`. Python alone.

    python scripts/across_runs.py runs/ragar-0/eval runs/ragar-1/eval runs/ragar-2/eval
    python scripts/across_runs.py ... --method ragar --data assets/stickers --metrics both@1 ΔR

A user's value is the mean over the runs that have one. Intervals are percentile bootstraps of users, and of groups of users who share
the reference's glyph (its item, where the data name no glyphs), drawn together. Methods that several runs have are averaged in the same
way; the last table is the difference to `--method` on the same users.
"""

import argparse
import csv
import random
from collections import defaultdict
from pathlib import Path

METRICS = ["style@1", "glyph@1", "glyph@5", "both@1", "ΔR", "CPS", "CPIS", "CIS"]
RESAMPLES = 2000


def read(folders):
    """Values by method, metric and user, one for each folder; references by user."""
    values = defaultdict(lambda: defaultdict(lambda: defaultdict(list)))
    references = {}
    for folder in folders:
        with open(Path(folder) / "scores.csv", newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                values[row["method"]][row["metric"]][row["user"]].append(float(row["value"]))
                references[row["user"]] = row["reference"]
    return values, references


def glyphs(data):
    """The glyph of each item, where `data` is a sticker folder."""
    path = Path(data) / "stickers.csv"
    if not path.exists():
        return {}
    with open(path, newline="", encoding="utf-8") as file:
        return {row["item_id"]: row["glyph"] for row in csv.DictReader(file)}


def interval(values, groups):
    """Ends of the 95 % interval of the mean; users of one group are drawn together."""
    sums = defaultdict(lambda: [0.0, 0])
    for value, group in zip(values, groups):
        sums[group][0] += value
        sums[group][1] += 1
    sums = list(sums.values())
    draw = random.Random(0)
    means = []
    for _ in range(RESAMPLES):
        drawn = draw.choices(sums, k=len(sums))
        means.append(sum(s for s, _ in drawn) / sum(n for _, n in drawn))
    means.sort()
    return means[int(0.025 * RESAMPLES)], means[int(0.975 * RESAMPLES)]


def cell(values, groups, signed=False):
    sign = "+" if signed else ""
    mean = sum(values) / len(values)
    digits = 3 if signed else 2 if max(map(abs, values)) <= 1 else 1
    ends = [interval(values, range(len(values))), interval(values, groups)]
    texts = [f"{low:.{digits}f} … {high:.{digits}f}" for low, high in ends]
    return f"{mean:{sign}.{digits}f} ({texts[0]}; {texts[1]})"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", nargs="+", help="folders that `ragar eval` wrote")
    parser.add_argument("--method", default="ragar", help="the method that the others are compared with")
    parser.add_argument("--data", default="assets/stickers", help="a sticker folder, for the glyphs")
    parser.add_argument("--metrics", nargs="+", default=METRICS)
    given = parser.parse_args()
    values, references = read(given.folders)
    named = glyphs(given.data)
    group = {user: named.get(item, item) for user, item in references.items()}
    mean = {
        method: {metric: {user: sum(own) / len(own) for user, own in users.items()} for metric, users in metrics.items()}
        for method, metrics in values.items()
    }
    metrics = [metric for metric in given.metrics if any(metric in of for of in mean.values())]
    print(f"{len(references)} users, {len(set(group.values()))} groups; mean (interval over users; over groups)\n")
    head = "| | " + " | ".join(metrics) + " |\n|---|" + "---|" * len(metrics)
    print(head)
    for method, of in mean.items():
        cells = [cell(list(of[m].values()), [group[u] for u in of[m]]) if m in of else "" for m in metrics]
        print(f"| {method} | " + " | ".join(cells) + " |")
    if given.method not in mean:
        return
    print(f"\n{given.method} less each other, on the same users\n\n{head}")
    for method, of in mean.items():
        if method == given.method:
            continue
        cells = []
        for metric in metrics:
            ours, theirs = mean[given.method].get(metric, {}), of.get(metric, {})
            both = [user for user in ours if user in theirs]
            cells.append(cell([ours[u] - theirs[u] for u in both], [group[u] for u in both], True) if both else "")
        print(f"| {method} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
