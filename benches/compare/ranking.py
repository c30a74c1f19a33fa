#!/usr/bin/env python3
"""MICRO over made-up catalogues: this program beside PyTorch with sparse tensors, in one sitting.

    cargo build --release
    python benches/compare/ranking.py --threads 1 10000 20000        (torch 2.9)

For every size both programs train the same number of epochs on the same data with the same settings, one after the
other, round by round, so that a busy machine slows both. Reported are seconds per epoch, evaluation aside (the median
over epochs but the first, in which item graphs are searched for the first time), and the largest resident memory.

PyTorch's side is the model as its authors train it, made to fit: adjacencies as sparse matrices, neighbours searched in
blocks of rows, and a contrastive loss in blocks that are computed again on the way back; keeping them, as the authors
do, takes 16 bytes for every pair of items.
"""

import argparse
import csv
import json
import os
import resource
import statistics
import struct
import subprocess
import sys
import tempfile
import time
import zlib
from pathlib import Path

WIDTH, NEIGHBOURS, BATCH, TEMPERATURE, CONTRAST = 64, 10, 1024, 0.5, 0.03
BLOCK_CELLS = 1 << 24


def prepare(folder, users, items, per_user, features):
    import numpy as np
    random = np.random.default_rng(items)
    folder.mkdir(parents=True)
    chunk = lambda kind, data: struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    (folder / "none.png").write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 2, 0, 0, 0))
        + chunk(b"IDAT", zlib.compress(b"\0\x80\x80\x80")) + chunk(b"IEND", b""))
    with open(folder / "items.csv", "w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["item_id", "image", "text"])
        table.writerows([item, "none.png", f"item {item}"] for item in range(items))
    taken = np.stack([random.choice(items, per_user, replace=False) for _ in range(users)])
    with open(folder / "interactions.csv", "w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["user_id", "item_id", "timestamp"])
        table.writerows([f"u{user}", item, time] for user, row in enumerate(taken) for time, item in enumerate(row))
    with open(folder / "histories.jsonl", "w") as file:
        for user, row in enumerate(taken):
            line = {"user": f"u{user}", "history": [str(i) for i in row[:-1]], "reference": str(row[-1])}
            file.write(json.dumps(line) + "\n")
    header, body = {}, b""
    for name in ("image", "text"):
        # Loose groups, as embeddings have.
        centres = random.standard_normal((items // 50 + 1, features)).astype(np.float32)
        rows = centres[random.integers(0, len(centres), items)] + random.standard_normal((items, features)).astype(np.float32)
        data = rows.astype(np.float32).tobytes()
        header[name] = {"dtype": "F32", "shape": [items, features], "data_offsets": [len(body), len(body) + len(data)]}
        body += data
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    (folder / "features.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + body)
    np.save(folder / "taken.npy", taken)


def peak_of(command, environment):
    """Runs `command`; its largest resident memory in GiB."""
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE)
    output = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"failed: {' '.join(map(str, command))}")
    return usage.ru_maxrss / 2**20, output


def rust(arguments, folder, run, contrasted):
    values = {
        "data.folder": folder, "data.history_length": 0, "ranking.features": folder / "features.safetensors",
        "ranking.model.kind": arguments.model, "ranking.model.contrastive_items": contrasted,
        "ranking.training.max_epochs": arguments.epochs, "ranking.training.evaluation_interval": arguments.epochs,
    }
    settings = [word for key, value in values.items() for word in ("--set", f"{key}={value}")]
    command = [arguments.ragar, "--quiet", "rank", "train", "--out", run, *settings]
    threads = str(arguments.threads)
    peak, _ = peak_of(command, os.environ | {"RAYON_NUM_THREADS": threads})
    lines = [json.loads(line) for line in open(run / "metrics.jsonl")]
    return [line["seconds"] for line in lines], peak, lines[-1]["losses"]["total"]


def pytorch(arguments, folder, contrasted):
    command = [sys.executable, __file__, "--worker", folder, "--model", arguments.model, "--epochs", str(arguments.epochs),
               "--threads", str(arguments.threads), "--contrasted", str(contrasted)]
    peak, output = peak_of(command, os.environ | {"OMP_NUM_THREADS": str(arguments.threads)})
    result = json.loads(output)
    return result["seconds"], peak, result["loss"]


def worker(arguments):
    import numpy as np
    import torch
    import torch.nn.functional as F
    from torch.utils.checkpoint import checkpoint

    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    folder = arguments.worker
    raw = (folder / "features.safetensors").read_bytes()
    size = struct.unpack("<Q", raw[:8])[0]
    header, body = json.loads(raw[8:8 + size]), memoryview(raw)[8 + size:]
    tables = {}
    for name, info in header.items():
        start, end = info["data_offsets"]
        tables[name] = torch.from_numpy(np.frombuffer(body[start:end], np.float32).reshape(info["shape"]).copy())
    taken = np.load(folder / "taken.npy")[:, :-4]
    (users, per_user), items = taken.shape, len(tables["image"])

    def nearest(features):
        unit = F.normalize(features, dim=1)
        rows = max(1, BLOCK_CELLS // items)
        found = [torch.topk(block @ unit.T, NEIGHBOURS, dim=1).indices for block in unit.split(rows)]
        return torch.cat(found)

    def graph(features, columns):
        unit = F.normalize(features, dim=1)
        weights = (unit[:, None] * unit[columns]).sum(2)
        degree = weights.sum(1).clamp_min(1e-12).rsqrt()
        return weights * degree[:, None] * degree[columns]

    place = torch.arange(items).repeat_interleave(NEIGHBOURS)
    sparse = lambda columns, weights: torch.sparse_coo_tensor(
        torch.stack([place, columns.flatten()]), weights.flatten(), (items, items), check_invariants=False)

    liked = torch.from_numpy(taken.astype(np.int64))
    pairs = torch.stack([torch.arange(users).repeat_interleave(per_user), liked.flatten() + users])
    loops = torch.arange(users + items)
    index = torch.cat([pairs, pairs.flip(0), torch.stack([loops, loops])], 1)
    degree = torch.bincount(index[0], minlength=users + items).float()
    adjacency = torch.sparse_coo_tensor(index, 1 / degree[index[0]], (users + items,) * 2).coalesce().to_sparse_csr()

    xavier = lambda rows: torch.nn.Parameter(torch.nn.init.xavier_uniform_(torch.empty(rows, WIDTH)))
    user_table, item_table = xavier(users), xavier(items)
    modal = arguments.model == "micro"
    parameters = [user_table, item_table]
    if modal:
        trained = {name: torch.nn.Parameter(table.clone()) for name, table in tables.items()}
        projection = {name: torch.nn.Linear(table.shape[1], WIDTH) for name, table in tables.items()}
        query = torch.nn.Sequential(torch.nn.Linear(WIDTH, WIDTH), torch.nn.Tanh(), torch.nn.Linear(WIDTH, 1, bias=False))
        parameters += [*trained.values(), *query.parameters(), *(p for layer in projection.values() for p in layer.parameters())]
        with torch.no_grad():
            original = {}
            for name, table in tables.items():
                columns = nearest(table)
                original[name] = sparse(columns, graph(table, columns)).coalesce()
    optimizer = torch.optim.Adam(parameters, lr=5e-4)

    def contrast_block(rows, match, own, fused):
        within, across = torch.exp(rows @ own.T / TEMPERATURE), torch.exp(rows @ fused.T / TEMPERATURE)
        self_score = torch.exp((rows * rows).sum(1) / TEMPERATURE)
        total = within.sum(1) + across.sum(1) - self_score
        return (torch.log(total) - (rows * match).sum(1) / TEMPERATURE).sum()

    def contrast(rows, fused):
        if arguments.contrasted:
            chosen = torch.randperm(items)[: arguments.contrasted]
            rows, fused = rows[chosen], fused[chosen]
        rows, fused = F.normalize(rows, dim=1), F.normalize(fused, dim=1)
        size = max(1, BLOCK_CELLS // (2 * len(rows)))
        return sum(checkpoint(contrast_block, a, b, rows, fused, use_reentrant=False)
                   for a, b in zip(rows.split(size), fused.split(size))) / len(rows)

    seconds, loss = [], None
    known = [set(row) for row in taken.tolist()]
    random = np.random.default_rng(0)
    for _ in range(arguments.epochs):
        started = time.perf_counter()
        adjacencies, losses = {}, []
        if modal:
            with torch.no_grad():
                columns = {name: nearest(projection[name](trained[name])) for name in tables}
        for batch in range(users * per_user // BATCH + 1):
            chosen = random.integers(0, users, BATCH) if users < BATCH else random.choice(users, BATCH, replace=False)
            positive = taken[chosen, random.integers(0, per_user, BATCH)]
            negative = random.integers(0, items, BATCH)
            for row, user in enumerate(chosen):
                while negative[row] in known[user]:
                    negative[row] = random.integers(0, items)
            layers = [torch.cat([user_table, item_table])]
            for _ in range(2):
                layers.append(adjacency @ layers[-1])
            user_rows, item_rows = (sum(layers) / 3).split([users, items])
            total = 0.0
            if modal:
                states = []
                for name in tables:
                    if batch == 0:
                        weights = graph(projection[name](trained[name]), columns[name])
                        adjacencies[name] = sparse(columns[name], weights)
                    if batch == 1:
                        adjacencies[name] = adjacencies[name].detach().coalesce()
                    states.append(0.9 * torch.sparse.mm(original[name], item_table)
                                  + 0.1 * torch.sparse.mm(adjacencies[name], item_table))
                share = torch.softmax(torch.cat([query(state) for state in states], 1), 1)
                fused = states[0] * share[:, :1] + states[1] * share[:, 1:]
                item_rows = item_rows + F.normalize(fused, dim=1)
                total = CONTRAST * sum(contrast(state, fused) for state in states)
            u, p, n = user_rows[chosen], item_rows[positive], item_rows[negative]
            total = total - F.logsigmoid((u * p).sum(1) - (u * n).sum(1)).mean()
            total = total + 1e-5 * 0.5 * sum((rows ** 2).sum() for rows in (u, p, n)) / BATCH
            optimizer.zero_grad()
            total.backward()
            optimizer.step()
            losses.append(float(total.detach()))
        seconds.append(time.perf_counter() - started)
        loss = statistics.mean(losses)
    print(json.dumps({"seconds": seconds, "loss": loss}))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sizes", nargs="*", type=int, default=[10000, 20000], help="items per catalogue")
    parser.add_argument("--ragar", type=Path, default=Path("target/release/ragar"))
    parser.add_argument("--model", default="micro", choices=["micro", "light-gcn"])
    parser.add_argument("--users", type=int, default=1000)
    parser.add_argument("--per-user", type=int, default=20)
    parser.add_argument("--features", type=int, default=128, help="width of either feature table")
    parser.add_argument("--contrasted", type=int, default=0, help="items of the contrastive loss per batch; 0 for all")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--only", choices=["ragar", "pytorch"], help="leave the other out")
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        return worker(arguments)
    print(f"{arguments.model}, {arguments.users} users with {arguments.per_user} items, features {arguments.features} wide, "
          f"contrasted {arguments.contrasted or 'all'}, {arguments.threads} thread(s), {arguments.rounds} round(s)\n")
    print("| items | program | seconds per epoch | peak GiB | loss |\n|---|---|---|---|---|", flush=True)
    for items in arguments.sizes:
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary) / "data"
            prepare(folder, arguments.users, items, arguments.per_user, arguments.features)
            results = {}
            for round in range(arguments.rounds):
                if arguments.only != "pytorch":
                    run = Path(temporary) / f"run{round}"
                    results.setdefault("ragar", []).append(rust(arguments, folder, run, arguments.contrasted))
                if arguments.only != "ragar":
                    results.setdefault("PyTorch", []).append(pytorch(arguments, folder, arguments.contrasted))
            for name, rows in results.items():
                steady = [value for seconds, _, _ in rows for value in (seconds[1:] or seconds)]
                peak = max(row[1] for row in rows)
                print(f"| {items:,} | {name} | {statistics.median(steady):.2f} | {peak:.2f} | {rows[-1][2]:.4f} |", flush=True)


if __name__ == "__main__":
    main()
