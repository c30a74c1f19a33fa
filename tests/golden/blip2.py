"""Golden samples of BLIP-2 beyond `blip2-opt`, written by transformers' Blip2ForConditionalGeneration.

`blip2-post-norm`: a random checkpoint with the options that `blip2-opt` leaves out (post-norm OPT, projected word
embeddings, no qkv bias, an untied head, another Q-Former rhythm).
`blip2-beam`: beam decoding of both checkpoints, with end tokens that beams really meet, under several length penalties
and stopping rules.

    python tests/golden/blip2.py        (torch 2.9, transformers 5.23; `generate.py` runs it after `blip2-opt`)
"""

import json
from collections import Counter
from pathlib import Path

import torch
from safetensors.torch import load_file
from generate import save
from transformers import Blip2Config, Blip2ForConditionalGeneration, Blip2QFormerConfig, Blip2VisionConfig, OPTConfig

HERE = Path(__file__).parent


def randomise(model, seed):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if "norm" in name.lower() and name.endswith("weight"):
                parameter.copy_(1 + 0.1 * noise)
            elif parameter.dim() == 1:
                parameter.copy_(0.1 * noise)
            elif "embed_tokens" in name or "lm_head" in name:
                parameter.copy_(0.5 * noise)
            elif "embed" in name or "query_tokens" in name:
                parameter.copy_(0.5 * noise)
            else:
                parameter.copy_(1.2 * noise / parameter[0].numel() ** 0.5)


def post_norm():
    config = Blip2Config(
        vision_config=Blip2VisionConfig(
            hidden_size=24, intermediate_size=40, num_hidden_layers=2, num_attention_heads=3, image_size=28,
            patch_size=14, qkv_bias=False, hidden_act="quick_gelu").to_dict(),
        qformer_config=Blip2QFormerConfig(
            vocab_size=64, hidden_size=16, num_hidden_layers=3, num_attention_heads=2, intermediate_size=32,
            encoder_hidden_size=24, cross_attention_frequency=1).to_dict(),
        text_config=OPTConfig(
            vocab_size=80, hidden_size=32, num_hidden_layers=2, ffn_dim=48, max_position_embeddings=40,
            do_layer_norm_before=False, word_embed_proj_dim=16, num_attention_heads=2, activation_function="gelu",
            enable_bias=False, tie_word_embeddings=False, bos_token_id=2, pad_token_id=1, eos_token_id=50).to_dict(),
        num_query_tokens=4, image_token_index=77, tie_word_embeddings=False)
    # `language_projection` stays as wide as the decoder: the reference scatters its values element by element into the
    # narrower word vectors, and whoever loads such a checkpoint has to do the same.
    return Blip2ForConditionalGeneration(config)


def reference(model, inputs, new_tokens):
    pixels, ids, mask = inputs["pixel_values"], inputs["input_ids"], inputs["attention_mask"]
    features = model.get_image_features(pixels, return_dict=True)
    out = {
        "vision_last_hidden_state": features.vision_outputs.last_hidden_state,
        "qformer_output": features.qformer_outputs.last_hidden_state,
        "language_projection": features.pooler_output,
        "logits": model(pixel_values=pixels, input_ids=ids, attention_mask=mask).logits * mask[..., None],
        "generated_ids": model.generate(pixels, ids, mask, max_new_tokens=new_tokens, do_sample=False),
        "caption_ids": model.generate(pixels, max_new_tokens=new_tokens, do_sample=False),
    }
    return {f"output.{k}": v.detach().contiguous() for k, v in out.items()}


BEAMS = [
    dict(num_beams=3),
    dict(num_beams=3, early_stopping=True),
    dict(num_beams=2, early_stopping="never", length_penalty=2.0),
    dict(num_beams=4, length_penalty=-1.0),
    dict(num_beams=5, length_penalty=0.0),
]


def search(model, inputs, **options):
    """New tokens of the prompted and of the bare beam search, and whether the image placeholder had any part in them:
    what a generated placeholder means is left open by the reference."""
    pixels, ids, mask = inputs["pixel_values"], inputs["input_ids"], inputs["attention_mask"]
    options = dict(max_new_tokens=9, do_sample=False, **options)
    found = [
        (model.generate(pixels, ids, mask, **options, **ban), model.generate(pixels, **options, **ban))
        for ban in ({}, {"suppress_tokens": [model.config.image_token_index]})
    ]
    clean = all(a.shape == b.shape and bool((a == b).all()) for a, b in zip(*found))
    return *found[0], clean


def beams(name, model, inputs, ends, tensors, metadata, wanted):
    taken = 0
    for end in ends:
        if taken == wanted:
            return
        found = [(options, *search(model, inputs, eos_token_id=end, **options)) for options in BEAMS]
        if not all(clean for *_, clean in found):
            continue
        taken += 1
        for options, prompted, bare, _ in found:
            key = f"{name}.{len(metadata)}"
            tensors[f"output.{key}.generated_ids"] = prompted.contiguous()
            tensors[f"output.{key}.caption_ids"] = bare.contiguous()
            metadata[key] = json.dumps({"model": name, "eos_token_id": end, "max_new_tokens": 9, **options})
    if taken < wanted:
        raise SystemExit(f"{name}: only {taken} of {wanted} end tokens keep the image placeholder out of the beams")


@torch.no_grad()
def main():
    torch.manual_seed(7)
    model = post_norm().eval()
    randomise(model, 11)
    folder = HERE / "blip2-post-norm"
    model.save_pretrained(folder / "model")
    q = model.config.num_query_tokens
    image = [model.config.image_token_index] * q
    inputs = {
        "pixel_values": torch.randn(2, 3, 28, 28),
        "input_ids": torch.tensor([image + [2, 9, 30, 41], image + [1, 1, 2, 12]]),
        "attention_mask": torch.tensor([[1] * q + [1, 1, 1, 1], [1] * q + [0, 0, 1, 1]]),
    }
    out = reference(model, inputs, 8)
    print({k: tuple(v.shape) for k, v in out.items()}, out["output.generated_ids"], out["output.caption_ids"])
    meta = {"kind": "blip2", "language_model": "opt", "max_new_tokens": "8", "num_query_tokens": str(q),
            "image_token_index": "77", "compute_dtype": "float32", "weights_dtype": "float32",
            "zeroed": "output.logits where attention_mask == 0"}
    save({**{f"input.{k}": v for k, v in inputs.items()}, **out}, folder / "golden.safetensors", meta)

    tensors, metadata = {}, {}
    beams("blip2-post-norm", model, inputs, [50, int(out["output.caption_ids"][0, -3])], tensors, metadata, 2)
    first = Blip2ForConditionalGeneration.from_pretrained(HERE / "blip2-opt/model").eval()
    recorded = load_file(HERE / "blip2-opt/golden.safetensors")
    outputs = {k.removeprefix("output."): v for k, v in recorded.items() if k.startswith("output.")}
    recorded = {k.removeprefix("input."): v for k, v in recorded.items() if k.startswith("input.")}
    # The tokens that greedy decoding likes best: beams meet them early, late and more than once.
    length = recorded["input_ids"].shape[1]
    liked = torch.cat([outputs["generated_ids"][:, length:].flatten(), outputs["caption_ids"][:, -8:].flatten()])
    ends = [token for token, _ in Counter(liked.tolist()).most_common(12)]
    beams("blip2-opt", first, recorded, ends, tensors, metadata, 3)
    (HERE / "blip2-beam").mkdir(exist_ok=True)
    save(tensors, HERE / "blip2-beam/golden.safetensors", {"kind": "blip2-beam", **metadata})


if __name__ == "__main__":
    main()
