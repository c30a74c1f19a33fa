"""Draws the stickers from their captions with diffusers and asks the tiny CLIP, zero-shot, what it sees; and the recognisers, which glyph in which style.

    pip install torch transformers diffusers pillow
    python assets/models/tiny/diffusion/measure.py            # 122 held-out pairs
    python assets/models/tiny/diffusion/measure.py training   # as many training pairs
    python assets/models/tiny/diffusion/measure.py --guidance 7.5 --stronger 0.5
    python assets/models/tiny/diffusion/measure.py --exchange rest    # where the style is read: from its own words, or from what follows
    python assets/models/tiny/diffusion/measure.py training --guidance 1.5 --last 4   # only the last steps, from the real picture
"""

import argparse
import csv
import json
import random
import sys
from pathlib import Path

import numpy as np
import torch
from diffusers import DDIMScheduler, StableDiffusionImg2ImgPipeline, StableDiffusionPipeline
from PIL import Image
from safetensors.torch import load_file
from torch.nn.functional import normalize
from transformers import AutoTokenizer, CLIPModel

HERE = Path(__file__).parent
CLIP, STICKERS = HERE.parent / "clip", HERE.parents[2] / "stickers"
RECOGNISERS = HERE.parent / "recogniser"
STYLES = {"flat": "smooth flat", "3d": "glossy 3d", "cartoon": "simple cartoon", "shaded": "soft shaded", "retro": "bold retro"}
torch.set_grad_enabled(False)


def caption(row, style):
    label = row["label"]
    plural = label.endswith("s") and not label.endswith(("ss", "us", "is"))
    vowel = label[0] in "aeiou" and not label.startswith("uni") or label.startswith("hour")
    article = "" if plural else "an " if vowel else "a "
    return f"a {STYLES[style]} sticker of {article}{label}, {row['group']}"


def batches(values, size=128):
    return (values[start : start + size] for start in range(0, len(values), size))


def features(output):
    return normalize(getattr(output, "pooler_output", output), dim=-1)


def recogniser(aspect):
    """Pixels to glyphs (by code points) or styles: a judge of the results, as the golden file's script writes it."""
    sys.path.insert(0, str(HERE.parents[3] / "tests" / "golden"))
    from recogniser import Recogniser

    folder = RECOGNISERS / aspect
    config = json.loads((folder / "config.json").read_text())
    network = Recogniser(config["shape"], len(config["names"])).eval()
    network.load_state_dict({name: value.float() for name, value in load_file(folder / "model.safetensors").items()})
    return lambda pixels: [config["names"][place] for part in batches(pixels) for place in network(part)[1].argmax(-1)]


def main():
    options = argparse.ArgumentParser()
    options.add_argument("side", nargs="?", choices=["held-out", "training"], default="held-out")
    options.add_argument("--pipeline", type=Path, default=HERE, help="another folder in diffusers' layout")
    options.add_argument("--clip", type=Path, default=CLIP, help="another judge")
    options.add_argument("--seeds", type=int, default=1, help="drawings of each picture, from other latents")
    options.add_argument("--guidance", type=float, default=3.0)
    options.add_argument("--rescale", type=float, default=0.0, help="how much of the guided prediction gets the conditional one's deviation back; not with --last")
    options.add_argument("--stronger", type=float, default=0.0, help="so much further from the mean of the five styles' captions")
    options.add_argument("--exchange", choices=["end", "rest"], help="read the states behind the caption's words (end), or behind its style's words (rest), in the next style's caption")
    options.add_argument("--last", type=int, default=20, help="how many of the 20 steps are drawn; before them stands the real picture under noise")
    options = options.parse_args()
    side = options.side
    rows = list(csv.DictReader((STICKERS / "stickers.csv").open()))
    chosen = [row for row in rows if (row["held_out"] == "true") == (side == "held-out")]
    if len(chosen) > 122:
        chosen = sorted(random.Random(1).sample(chosen, 122), key=rows.index)
    clip, words = CLIPModel.from_pretrained(options.clip).float().eval(), AutoTokenizer.from_pretrained(options.clip)

    def texts(prompts):
        ids = (words(part, padding="max_length", max_length=32, truncation=True, return_tensors="pt").input_ids for part in batches(prompts))
        return torch.cat([features(clip.get_text_features(input_ids=part)) for part in ids])

    def pixels_of(images):
        return torch.tensor(np.stack([np.asarray(image, dtype=np.float32) for image in images])).permute(0, 3, 1, 2) / 127.5 - 1

    def pictures(pixels):
        return torch.cat([features(clip.get_image_features(pixel_values=part)) for part in batches(pixels)])

    first = {}
    for row in rows:
        first.setdefault(row["glyph"], row)
    glyphs, styles = list(first), list(STYLES)
    named = torch.stack([texts([caption(first[glyph], style) for style in styles]) for glyph in glyphs])
    by_glyph = normalize(named.mean(1), dim=-1)
    by_style = named.mean(0)
    by_style = normalize(by_style - by_style.mean(0), dim=-1)

    def report(name, images):
        pixels = pixels_of(images)
        seen = pictures(pixels)
        nearest = (seen @ by_glyph.T).topk(5).indices
        glyph = torch.tensor([glyphs.index(row["glyph"]) for row in chosen])
        style = torch.tensor([styles.index(row["style"]) for row in chosen])
        right = [(seen @ by_style.T).argmax(-1) == style, nearest[:, 0] == glyph, (nearest == glyph[:, None]).any(-1)]
        right.append(right[0] & right[1])
        known = [torch.tensor([found == row[aspect] for found, row in zip(ask(pixels), chosen)]) for aspect, ask in recognisers.items()]
        known.append(known[0] & known[1])
        print(f"{name}, {side}: style %.1f %%, glyph@1 %.1f %%, glyph@5 %.1f %%, both %.1f %%" % tuple(100 * hit.float().mean() for hit in right), end="; ")
        print("by the recognisers: style %.1f %%, glyph@1 %.1f %%, both %.1f %%" % tuple(100 * hit.float().mean() for hit in known))
        shares = ((name, known[0][style == place].float().mean()) for place, name in enumerate(styles))
        print("  of each style: " + ", ".join(f"{name} {100 * share:.1f} %" for name, share in shares))

    recognisers = {aspect: recogniser(aspect) for aspect in ("style", "glyph")}
    report("real", [Image.open(STICKERS / "images" / f"{row['item_id']}.png").convert("RGB") for row in chosen])
    pipe = StableDiffusionPipeline.from_pretrained(options.pipeline, torch_dtype=torch.float32, safety_checker=None)
    pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config)
    pipe.set_progress_bar_config(disable=True)
    again = []
    for part in batches([np.asarray(Image.open(STICKERS / "images" / f"{row['item_id']}.png").convert("RGB"), dtype=np.float32) for row in chosen], 64):
        latents = pipe.vae.encode(torch.tensor(np.stack(part)).permute(0, 3, 1, 2) / 127.5 - 1).latent_dist.mode()
        decoded = (pipe.vae.decode(latents).sample.clamp(-1, 1) + 1) * 127.5
        again += [Image.fromarray(image.permute(1, 2, 0).round().byte().numpy()) for image in decoded]
    report("real, encoded and decoded", again)
    drawn = []

    def states(prompts):
        ids = words(prompts, padding="max_length", max_length=32, truncation=True, return_tensors="pt").input_ids
        return pipe.text_encoder(ids)[0]

    def next_style(row):
        return styles[(styles.index(row["style"]) + 1) % len(styles)]

    def exchanged(row):
        """The states of a caption to the end of some of its words, then those that follow the same words in another style's."""
        beginnings, both = [], [caption(row, style) for style in (row["style"], next_style(row))]
        for text, style in zip(both, (row["style"], next_style(row))):
            known = text if options.exchange == "end" else f"a {STYLES[style]}"
            beginnings.append(len(words(known).input_ids) - 1)
        own, other = states(both)
        kept = torch.cat([own[: beginnings[0]], other[beginnings[1] :]])[:32]
        return torch.cat([kept, kept[-1:].expand(32 - len(kept), -1)])

    chosen = options.seeds * chosen
    for part in batches(chosen, 32):
        own = states([caption(row, row["style"]) for row in part])
        if options.exchange:
            own = torch.stack([exchanged(row) for row in part])
        if options.stronger:
            mean = torch.stack([states([caption(row, style) for row in part]) for style in styles]).mean(0)
            own = own + options.stronger * (own - mean)
        seeds = [torch.Generator().manual_seed(len(drawn) + place) for place in range(len(part))]
        nothing = states([""] * len(part))
        conditions = {"prompt_embeds": own, "negative_prompt_embeds": nothing, "guidance_scale": options.guidance}
        if options.last < 20:
            partly = StableDiffusionImg2ImgPipeline(**pipe.components, requires_safety_checker=False)
            partly.set_progress_bar_config(disable=True)
            real = [Image.open(STICKERS / "images" / f"{row['item_id']}.png").convert("RGB") for row in part]
            # A hair more than the share, which is cut to a whole number of steps.
            drawn += partly(**conditions, image=real, strength=(options.last + 0.01) / 20, num_inference_steps=20, generator=seeds).images
        else:
            drawn += pipe(**conditions, guidance_rescale=options.rescale, num_inference_steps=20, height=64, width=64, generator=seeds).images
    report("drawn", drawn)
    if options.exchange:
        other = [found == next_style(row) for found, row in zip(recognisers["style"](pixels_of(drawn)), chosen)]
        print(f"  named in the next style: {100 * sum(other) / len(other):.1f} %")


if __name__ == "__main__":
    main()
