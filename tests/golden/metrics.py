"""Metrics of a few made-up users, written by transformers, numpy and scipy.

`metrics`: CPS, CPIS, CS and CIS of `tests/golden/clip` (100 · cosine of its embeddings); Fréchet distances of feature
sets in float64 (by scipy's matrix root where covariances have full rank, by eigenvalues where they have not); the exact
p of paired permutation tests.

    python tests/golden/metrics.py        (after `generate.py clip`; torch 2.9, transformers 5.23, scipy 1.17)
"""

import numpy as np
import scipy.linalg
import scipy.stats
import torch
from generate import HERE, generator, normal, save
from transformers import CLIPModel

USERS, HISTORY = 3, 4
SQUARE = 8


def unit(values):
    return values / values.norm(dim=-1, keepdim=True)


def embeddings(output):
    """A tensor in older releases, a named output in newer ones."""
    return output if torch.is_tensor(output) else output.pooler_output


@torch.no_grad()
def clip_scores():
    model = CLIPModel.from_pretrained(HERE / "clip/model", dtype=torch.float32, attn_implementation="eager").eval()
    config = model.config
    random = generator("metrics", "clip")
    side = config.vision_config.image_size
    # Squares of one colour, so that little need be recorded.
    squares = side // SQUARE
    drawn = normal(random, USERS, 3, squares, squares)
    reference = normal(random, USERS, 3, squares, squares)
    history = normal(random, USERS, HISTORY, 3, squares, squares)
    tokens, vocabulary = config.text_config.max_position_embeddings, config.text_config.vocab_size
    ids = torch.randint(3, vocabulary - 2, (2 * USERS, tokens), generator=random)
    # The end token: the largest id under the older rule, the configured one under the newer.
    end = config.text_config.eos_token_id
    ids[:, -1] = vocabulary - 1 if end == 2 else end
    whole = lambda squares: squares.repeat_interleave(SQUARE, -1).repeat_interleave(SQUARE, -2)
    image = lambda squares: unit(embeddings(model.get_image_features(pixel_values=whole(squares))))
    text = unit(embeddings(model.get_text_features(input_ids=ids)))
    preference, words = text[:USERS], text[USERS:]
    of_drawn, of_reference = image(drawn), image(reference)
    of_history = image(history.flatten(0, 1)).unflatten(0, (USERS, HISTORY))
    return {
        "input.drawn": drawn,
        "input.reference": reference,
        "input.history": history,
        "input.preference_ids": ids[:USERS],
        "input.reference_ids": ids[USERS:],
        "output.cps": 100 * (of_drawn * preference).sum(-1),
        "output.cpis": 100 * (of_drawn[:, None] * of_history).sum(-1).mean(-1),
        "output.cs": 100 * (of_drawn * words).sum(-1),
        "output.cis": 100 * (of_drawn * of_reference).sum(-1),
    }


def frechet(first, second):
    first, second = first.double().numpy(), second.double().numpy()
    one, other = np.cov(first, rowvar=False), np.cov(second, rowvar=False)
    apart = ((first.mean(0) - second.mean(0)) ** 2).sum()
    if min(len(first), len(second)) > first.shape[1]:
        overlap = scipy.linalg.sqrtm(one @ other).real.trace()
    else:
        overlap = np.sqrt(np.linalg.eigvals(one @ other).real.clip(min=0)).sum()
    return apart + np.trace(one) + np.trace(other) - 2 * overlap


def frechet_distances():
    random = generator("metrics", "frechet")
    mixed = normal(random, 9, 9)
    first = normal(random, 60, 9) @ mixed
    second = 0.7 * normal(random, 31, 9) @ mixed + 0.4
    few = normal(random, 4, 9)
    distances = [frechet(first, second), frechet(first, few), frechet(few, second)]
    return {
        "input.first": first,
        "input.second": second,
        "input.few": few,
        "output.frechet": torch.tensor(distances, dtype=torch.float32),
    }


def permutation_tests():
    random = generator("metrics", "permutation")
    first = normal(random, 4, 9)
    second = first + torch.tensor([0.0, 0.3, 1.0, -0.6])[:, None] + 0.5 * normal(random, 4, 9)
    second[1, 3] = first[1, 3]
    p = [
        scipy.stats.permutation_test(
            (a.double().numpy(), b.double().numpy()), lambda x, y, axis: np.mean(x - y, axis=axis),
            permutation_type="samples", n_resamples=np.inf, vectorized=True).pvalue
        for a, b in zip(first, second)
    ]
    return {"input.ours": first, "input.theirs": second, "output.p_value": torch.tensor(p, dtype=torch.float32)}


def main():
    torch.set_num_threads(1)
    tensors = clip_scores() | frechet_distances() | permutation_tests()
    (HERE / "metrics").mkdir(exist_ok=True)
    tensors = {name: value.contiguous() for name, value in tensors.items()}
    save(tensors, HERE / "metrics/golden.safetensors", {"kind": "metrics", "compute_dtype": "float32"})
    for name, value in tensors.items():
        if name.startswith("output"):
            print(name, value.tolist())


if __name__ == "__main__":
    main()
