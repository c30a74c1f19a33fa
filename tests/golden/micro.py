"""The ranking models, equation by equation, in double precision.

An independent writing of the equations of MICRO (Zhang et al., TKDE 2023), LATTICE (Zhang et al., MM 2021) and
LightGCN over the row-normalised graph, dense and slow on purpose: every stage is one line of algebra.

    python tests/golden/micro.py             check the recording of the authors' code, write the other cases
    python tests/golden/micro.py --verify    recompute what is recorded everywhere, write nothing

`micro` is a recording of the authors' program; given its inputs and initial parameters, this file must give every
recorded tensor, and prints the largest differences. `micro-uneven`, `lattice` and `light-gcn` are written here, from
seeds: other sizes, more layers, an item that nobody touched, a user with one interaction, features that are all zero.

Guards that the authors' code lacks, as ours: an item without features is similar to itself alone; a row whose
similarities do not sum to more than zero is cut off; of equally similar items the first is the neighbour.
"""

import sys
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import save_file

HERE = Path(__file__).parent
torch.set_default_dtype(torch.float64)
FIRST_BATCH_ONLY = ("image_embedding", "text_embedding", "image_trs", "text_trs", "modal_weight")


class Case:
    """Inputs, settings and initial parameters of one model."""

    def __init__(self, metadata, inputs, parameters):
        self.kind = metadata["kind"]
        self.metadata = metadata
        self.inputs = inputs
        self.parameters = parameters
        self.users, self.items = int(metadata["n_users"]), int(metadata["n_items"])
        self.top_k, self.lam = int(metadata["topk"]), float(metadata["lambda"])
        self.layers, self.item_layers = int(metadata["ui_layers"]), int(metadata["layers"])
        self.temperature, self.contrast = float(metadata["tau"]), float(metadata["loss_ratio"])
        self.decay, self.rate = float(metadata["decay"]), float(metadata["lr"])
        self.batch = int(metadata["batch"])
        self.cutoffs = [int(k) for k in metadata["ks"].split(",")]

    @property
    def modal(self):
        return self.kind != "light-gcn"

    def features(self, modality):
        return self.inputs[f"{modality}_feats"].double()


def interaction_matrix(case):
    """D^-1 (A + I) over users, then items."""
    size = case.users + case.items
    adjacency = torch.eye(size)
    for user, item in case.inputs["train_pairs"].tolist():
        adjacency[user, case.users + item] = adjacency[case.users + item, user] = 1.0
    return adjacency / adjacency.sum(1, keepdim=True)


def directions(rows):
    return rows / (rows * rows).sum(1, keepdim=True).clamp_min(1e-24).sqrt()


def similarities(features):
    unit = directions(features)
    empty = (features.detach() == 0).all(1)
    return unit @ unit.T + torch.diag(empty.double())


def neighbourhood(similarity, top_k):
    """The k largest of each row, in order, and the matrix that holds nothing else."""
    order = torch.argsort(-similarity.detach(), dim=1, stable=True)[:, :top_k]
    mask = torch.zeros_like(similarity).scatter_(1, order, 1.0)
    return order, similarity * mask


def symmetric(matrix):
    degree = matrix.sum(1)
    scale = torch.where(degree > 0, degree.clamp_min(1e-30).rsqrt(), torch.zeros_like(degree))
    return scale[:, None] * matrix * scale[None, :]


def projected(parameters, modality):
    table = parameters[f"{modality}_embedding.weight"]
    return table @ parameters[f"{modality}_trs.weight"].T + parameters[f"{modality}_trs.bias"]


def item_graphs(case, parameters):
    """Every graph between items, by name; those that the model propagates over under `<modality>_adj`, or `item_adj`."""
    graphs = {}
    for modality in ("image", "text"):
        for kind, features in (("original", case.features(modality)), ("learned", projected(parameters, modality))):
            similarity = similarities(features)
            order, nearest = neighbourhood(similarity, case.top_k)
            name = f"{modality}_{kind}"
            graphs[f"{name}_sim"], graphs[f"{name}_knn"], graphs[f"{name}_nearest"] = similarity, order, nearest
            graphs[f"{name}_adj"] = symmetric(nearest)
        blend = case.lam * graphs[f"{modality}_original_adj"] + (1 - case.lam) * graphs[f"{modality}_learned_adj"]
        if case.kind == "micro":
            graphs[f"{modality}_adj"] = blend
    if case.kind == "lattice":
        share = torch.softmax(parameters["modal_weight"], 0)
        mixed = share[0] * graphs["image_learned_nearest"] + share[1] * graphs["text_learned_nearest"]
        original = share[0] * graphs["image_original_adj"] + share[1] * graphs["text_original_adj"]
        graphs["learned_adj"] = symmetric(mixed)
        graphs["item_adj"] = case.lam * original + (1 - case.lam) * graphs["learned_adj"]
    return graphs


def forward(case, parameters, graphs):
    ids = parameters["item_id_embedding.weight"]
    nodes = [torch.cat([parameters["user_embedding.weight"], ids])]
    matrix = interaction_matrix(case)
    for _ in range(case.layers):
        nodes.append(matrix @ nodes[-1])
    users, items = torch.stack(nodes).mean(0).split([case.users, case.items])
    stages = {"norm_adj": matrix}
    if case.kind == "micro":
        modal = []
        for modality in ("image", "text"):
            rows = ids
            for _ in range(case.item_layers):
                rows = graphs[f"{modality}_adj"] @ rows
            stages[f"{modality}_item"] = rows
            modal.append(rows)
        score = [torch.tanh(rows @ parameters["query.0.weight"].T + parameters["query.0.bias"])
                 @ parameters["query.2.weight"].T for rows in modal]
        stages["attention"] = torch.softmax(torch.cat(score, 1), 1)
        stages["h"] = sum(stages["attention"][:, [m]] * modal[m] for m in range(2))
    elif case.kind == "lattice":
        rows = ids
        for _ in range(case.item_layers):
            rows = graphs["item_adj"] @ rows
        stages["h"] = rows
    if case.modal:
        items = items + directions(stages["h"])
    stages["user_emb"], stages["item_emb"], stages["scores"] = users, items, users @ items.T
    return stages


def contrastive(case, rows, target):
    rows, target = directions(rows), directions(target)
    within = torch.exp(rows @ rows.T / case.temperature)
    across = torch.exp(rows @ target.T / case.temperature)
    total = within.sum(1) - within.diagonal() + across.sum(1)
    return -torch.log(across.diagonal() / total).mean()


def losses(case, stages, batch):
    users = stages["user_emb"][case.inputs["users"][batch]]
    liked, other = (stages["item_emb"][case.inputs[name][batch]] for name in ("pos", "neg"))
    parts = {
        "bpr_loss": -F.logsigmoid((users * liked).sum(1) - (users * other).sum(1)).mean(),
        "reg_loss": case.decay * 0.5 * sum((rows**2).sum() for rows in (users, liked, other)) / case.batch,
    }
    parts["total_loss"] = parts["bpr_loss"] + parts["reg_loss"]
    if case.kind == "micro":
        for modality in ("image", "text"):
            parts[f"contrastive_{modality}"] = contrastive(case, stages[f"{modality}_item"], stages["h"])
        parts["contrastive_loss"] = case.contrast * (parts["contrastive_image"] + parts["contrastive_text"])
        parts["total_loss"] = parts["total_loss"] + parts["contrastive_loss"]
    return parts


def leaves(case):
    return {name: value.double().clone().requires_grad_() for name, value in case.parameters.items()}


def detached(graphs):
    return {name: value.detach() for name, value in graphs.items()}


def gradients(case, frozen_graphs):
    parameters = leaves(case)
    graphs = item_graphs(case, parameters) if case.modal else {}
    if frozen_graphs:
        graphs = detached(graphs)
    losses(case, forward(case, parameters, graphs), 0)["total_loss"].backward()
    return {name: value.grad for name, value in parameters.items() if value.grad is not None}


def three_steps(case, coast):
    """Adam; the graphs of the first batch stay. Without `coast` a parameter out of the loss's reach stands still."""
    parameters = leaves(case)
    moments = {name: [torch.zeros_like(value), torch.zeros_like(value), 0] for name, value in parameters.items()}
    graphs = item_graphs(case, parameters) if case.modal else {}
    record = []
    for batch in range(3):
        loss = losses(case, forward(case, parameters, graphs), batch)["total_loss"]
        record.append(loss.detach())
        names = list(parameters)
        grads = torch.autograd.grad(loss, [parameters[name] for name in names], allow_unused=True)
        graphs = detached(graphs)
        for name, gradient in zip(names, grads):
            if gradient is None:
                if not coast:
                    continue
                gradient = torch.zeros_like(parameters[name])
            first, second, steps = moments[name]
            first = 0.9 * first + 0.1 * gradient
            second = 0.999 * second + 0.001 * gradient**2
            steps += 1
            moments[name] = [first, second, steps]
            step = first / (1 - 0.9**steps) / ((second / (1 - 0.999**steps)).sqrt() + 1e-8)
            parameters[name] = (parameters[name].detach() - case.rate * step).requires_grad_()
    return {"loss": torch.stack(record)} | {name: value.detach() for name, value in parameters.items()}


def metrics(case, scores):
    def by_user(part):
        rows = [set() for _ in range(case.users)]
        for user, item in case.inputs[f"{part}_pairs"].tolist():
            rows[user].add(item)
        return rows

    train, test = by_user("train"), by_user("test")
    longest = max(case.cutoffs)
    gain = lambda places: sum(1 / np.log2(place + 2) for place in places)
    figures = {name: [] for name in ("recall", "precision", "hit_ratio", "ndcg", "ndcg_standard")}
    for cutoff in case.cutoffs:
        rows = []
        for user in range(case.users):
            if not test[user]:
                continue
            order = torch.argsort(-scores[user], stable=True).tolist()
            ranked = [item for item in order if item not in train[user]][:longest]
            hits = [place for place, item in enumerate(ranked) if item in test[user]]
            within = [place for place in hits if place < cutoff]
            own_ideal = gain(range(min(len(hits), cutoff)))
            rows.append((
                len(within) / len(test[user]), len(within) / cutoff, float(bool(within)),
                gain(within) / own_ideal if own_ideal else 0.0, gain(within) / gain(range(min(len(test[user]), cutoff)))))
        for name, value in zip(figures, np.mean(rows, 0)):
            figures[name].append(value)
    return {f"metric.{name}": torch.tensor(values) for name, values in figures.items()}


def results(case):
    parameters = leaves(case)
    graphs = item_graphs(case, parameters) if case.modal else {}
    stages = forward(case, parameters, graphs)
    outputs = {name: value for name, value in graphs.items() if not name.endswith("nearest")}
    outputs |= stages | {name: value.reshape(1) for name, value in losses(case, stages, 0).items()}
    outputs |= {f"grad.{name}": value for name, value in gradients(case, False).items()}
    if case.modal:
        outputs |= {f"grad_detached.{name}": value for name, value in gradients(case, True).items()}
        outputs |= {f"adam3_zero.{name}": value for name, value in three_steps(case, True).items()}
    outputs |= {f"adam3_none.{name}": value for name, value in three_steps(case, False).items()}
    outputs |= metrics(case, stages["scores"].detach())
    return {name: value.detach() for name, value in outputs.items()}


def recorded(name):
    with safe_open(HERE / name / "golden.safetensors", "pt") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}
        part = lambda prefix: {
            key[len(prefix):]: value for key, value in tensors.items() if key.startswith(prefix)}
        metadata = file.metadata()
    return Case(metadata, part("input."), part("param.")), part("output.")


def verify(name):
    """Holds what is recorded against the equations; the three largest differences, by the size of each tensor."""
    case, expected = recorded(name)
    found = results(case)
    missing = sorted(set(expected) - set(found))
    worst = []
    for key, value in expected.items():
        if key in missing:
            continue
        if value.dtype == torch.int64:
            worst.append((float((value != found[key]).sum()), key))
            continue
        difference = (value.double() - found[key]).abs().max()
        # Adam turns rounding of a vanishing gradient into a step of full size: 1e-5 of the parameter is its tolerance.
        size = max(1.0, float(value.abs().max())) if "adam3" in key else max(1e-8, float(value.abs().max()))
        worst.append((float(difference) / size, key))
    worst.sort(reverse=True)
    print(f"{name}: {len(worst)} tensors, missing {missing or 'none'}; largest differences "
          + ", ".join(f"{key} {difference:.1e}" for difference, key in worst[:3]))
    assert not missing and worst[0][0] < 5e-5, name


def fresh(kind, seed, **sizes):
    """Inputs and parameters from a seed: the last item has no interactions, the first user one, and two items no features."""
    random = np.random.default_rng(seed)
    settings = dict(n_users=19, n_items=31, image=9, text=14, embed=8, topk=4, ui_layers=3, layers=2, batch=16) | sizes
    users, items = settings["n_users"], settings["n_items"]
    pairs = {"train": [], "val": [], "test": []}
    for user in range(users):
        count = 1 if user == 0 else int(random.integers(4, 12))
        drawn = random.permutation(items - 1)[: count + 3].tolist()
        pairs["train"] += [(user, item) for item in drawn[:count]]
        pairs["val"] += [(user, drawn[count])]
        pairs["test"] += [(user, item) for item in drawn[count + 1:]]
    train = [set(item for owner, item in pairs["train"] if owner == user) for user in range(users)]
    batch = settings["batch"]
    chosen = random.integers(0, users, (3, batch))
    inputs = {f"{part}_pairs": np.array(rows) for part, rows in pairs.items()} | {
        "users": chosen,
        "pos": np.array([[random.choice(sorted(train[user])) for user in row] for row in chosen]),
        "neg": np.array([[random.choice(sorted(set(range(items)) - train[user])) for user in row] for row in chosen]),
    }
    inputs = {name: torch.from_numpy(value.astype(np.int64)) for name, value in inputs.items()}
    normal = lambda *shape: torch.from_numpy(random.standard_normal(shape).astype(np.float32))
    width = settings["embed"]
    parameters = {"user_embedding.weight": 0.3 * normal(users, width), "item_id_embedding.weight": 0.3 * normal(items, width)}
    if kind != "light-gcn":
        for modality, empty in (("image", 5), ("text", 11)):
            features = normal(items, settings[modality])
            features[empty] = 0.0
            inputs[f"{modality}_feats"] = features
            # The trained tables have moved away from the given features.
            parameters[f"{modality}_embedding.weight"] = features + 0.05 * normal(items, settings[modality])
            parameters[f"{modality}_trs.weight"] = 0.4 * normal(width, settings[modality])
            parameters[f"{modality}_trs.bias"] = 0.1 * normal(width)
    if kind == "micro":
        parameters |= {"query.0.weight": 0.4 * normal(width, width), "query.0.bias": 0.1 * normal(width),
                       "query.2.weight": 0.4 * normal(1, width)}
    if kind == "lattice":
        parameters["modal_weight"] = torch.tensor([0.8, 0.3], dtype=torch.float32)
    metadata = {name: str(value) for name, value in settings.items() if name not in ("image", "text")} | {
        "kind": kind, "lambda": "0.7", "lr": "0.0005", "tau": "0.4", "loss_ratio": "0.05", "decay": "0.001", "ks": "5,10",
        "source": "tests/golden/micro.py, float64", "cf": "lightgcn", "norm": "row"}
    return Case(metadata, inputs, parameters)


def write(name, case):
    tensors = {f"input.{key}": value for key, value in case.inputs.items()}
    tensors |= {f"param.{key}": value for key, value in case.parameters.items()}
    for key, value in results(case).items():
        tensors[f"output.{key}"] = value if value.dtype == torch.int64 else value.float()
    folder = HERE / name
    folder.mkdir(exist_ok=True)
    save_file({key: value.contiguous() for key, value in sorted(tensors.items())}, folder / "golden.safetensors",
              metadata=case.metadata)


def main():
    if "--verify" not in sys.argv:
        write("micro-uneven", fresh("micro", 71))
        write("lattice", fresh("lattice", 72, n_items=27, topk=5, ui_layers=2, layers=1))
        write("light-gcn", fresh("light-gcn", 73))
    for name in ("micro", "micro-uneven", "lattice", "light-gcn"):
        verify(name)


if __name__ == "__main__":
    main()
