"""MICRO as the frozen judge of pictures (equation 13): the score and rank of a picture in the reference's place.

Everything that no picture changes is computed once, when the judge is made: both modalities' item graphs, LightGCN's vectors,
the text side. A picture takes the reference's row in the two image graphs; degrees of its neighbours follow.
"""

import torch


def unit(rows):
    return rows / rows.square().sum(-1, keepdim=True).clamp_min(1e-24).sqrt()


def scale(degree):
    return torch.where(degree > 0, degree.clamp_min(1e-30).rsqrt(), torch.zeros_like(degree))


class Space:
    """A space in which neighbours are looked for: given or learned features."""

    def __init__(self, features, count):
        self.directions, self.count = unit(features), count
        similarity = self.directions @ self.directions.T
        # An item without features is similar to itself alone.
        empty = (features == 0).all(1)
        similarity[empty, empty] = 1.0
        # One more than the graph has: it moves up where the reference was a neighbour.
        self.values, self.places = similarity.sort(dim=1, descending=True, stable=True)
        self.values, self.places = self.values[:, :count + 1], self.places[:, :count + 1]

    def graph(self):
        values, places = self.values[:, :self.count], self.places[:, :self.count]
        scales = scale(values.sum(1))
        weights = values * scales[:, None] * scales[places]
        return torch.zeros(len(values), len(values)).scatter_(1, places, weights)

    def row(self, features, references):
        """Neighbours and weights of the references with other features, `[cases, count]` each."""
        similarity = unit(features) @ self.directions.T
        similarity[torch.arange(len(features)), references] = 1.0
        values, places = similarity.topk(self.count)
        degrees = self.degrees(places, references[:, None], values)
        degrees = torch.where(places == references[:, None], values.sum(1, keepdim=True), degrees)
        return places, values * scale(values.sum(1, keepdim=True)) * scale(degrees)

    def degrees(self, places, reference, similarity):
        """Degrees of items whose similarity to the reference is now the given one."""
        values, others = self.values[places], self.places[places]
        other = others != reference[..., None]
        kept = other & (other.cumsum(-1) <= self.count)
        total = (values * kept).sum(-1)
        last = torch.where(kept, values, torch.inf).min(-1)
        worst = others.gather(-1, last.indices[..., None])[..., 0]
        comes_in = (similarity > last.values) | ((similarity == last.values) & (reference < worst))
        return torch.where(comes_in, total - last.values + similarity, total)


class Judge:
    def __init__(self, tensors, settings):
        self.weights = tensors
        self.share = settings["original_weight"]
        self.ids = tensors["item_id_embedding.weight"]
        given, count = tensors["given_image"], settings["num_neighbours"]
        self.given = Space(given, count)
        self.learned = Space(self.project("image", tensors["image_embedding.weight"]), count)
        # A new picture is moved as far as training moved the reference's own features.
        self.displacement = tensors["image_embedding.weight"] - given
        text = Space(tensors["given_text"], count)
        learned_text = Space(self.project("text", tensors["text_embedding.weight"]), count)
        self.text_items = self.blend(text, learned_text) @ self.ids
        image_items = self.blend(self.given, self.learned) @ self.ids
        users, items = tensors["interactions"].T
        self.users, collaborative = self.light_gcn(users, items, settings["num_layers"])
        self.items = collaborative + unit(self.fuse(image_items, self.text_items))
        self.taken = torch.zeros(len(self.users), len(self.ids), dtype=torch.bool)
        self.taken[users, items] = True
        # A cold item's collaborative vector says nothing: its warm text neighbours' stands in.
        warm = self.taken.any(0)
        neighbours = text.places[:, :count]
        shares = warm[neighbours].float()
        mean = (collaborative[neighbours] * shares[..., None]).sum(1) / shares.sum(1, keepdim=True).clamp_min(1.0)
        self.collaborative = torch.where(warm[:, None], collaborative, mean)

    def project(self, modality, features):
        return features @ self.weights[f"{modality}_trs.weight"] + self.weights[f"{modality}_trs.bias"]

    def blend(self, given, learned):
        return self.share * given.graph() + (1 - self.share) * learned.graph()

    def light_gcn(self, users, items, layers):
        table = self.weights["user_embedding.weight"]
        size = len(table) + len(self.ids)
        adjacency = torch.eye(size)
        adjacency[users, len(table) + items] = 1.0
        adjacency[len(table) + items, users] = 1.0
        adjacency /= adjacency.sum(1, keepdim=True)
        nodes = [torch.cat([table, self.ids])]
        for _ in range(layers):
            nodes.append(adjacency @ nodes[-1])
        return torch.stack(nodes).mean(0).split([len(table), len(self.ids)])

    def fuse(self, image, text):
        def query(rows):
            hidden = torch.tanh(rows @ self.weights["query.0.weight"] + self.weights["query.0.bias"])
            return hidden @ self.weights["query.2.weight"]

        attention = torch.softmax(torch.cat([query(image), query(text)], 1), 1)
        return attention[:, :1] * image + attention[:, 1:] * text

    @torch.no_grad()
    def judge(self, users, references, visual):
        """Score and rank of one picture per case; `visual` are normalised features, `[cases, d]`."""
        moved = self.project("image", visual + self.displacement[references])
        image = torch.zeros(len(visual), self.ids.shape[1])
        for space, features, share in ((self.given, visual, self.share), (self.learned, moved, 1 - self.share)):
            places, weights = space.row(features, references)
            image += share * (weights[..., None] * self.ids[places]).sum(1)
        items = self.collaborative[references] + unit(self.fuse(image, self.text_items[references]))
        scores = (items * self.users[users]).sum(1)
        higher = (self.users[users] @ self.items.T > scores[:, None]) & ~self.taken[users]
        higher[torch.arange(len(users)), references] = False
        return scores, 1 + higher.sum(1)
