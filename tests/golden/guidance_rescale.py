#!/usr/bin/env python3
"""Guided predictions brought back to the conditional ones' deviation, image by image, as diffusers' `guidance_rescale` does it.

    python tests/golden/guidance_rescale.py      # writes tests/golden/pipeline-rescaled/golden.safetensors

Draws two prompts with the pipeline of tests/golden/pipeline. Needs diffusers, transformers, torch, safetensors.
"""

import json
from pathlib import Path

import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from safetensors.torch import save_file
from transformers import CLIPTextModel, CLIPTokenizer

HERE = Path(__file__).parent
MODEL = HERE / "pipeline" / "model"
PROMPTS = ["a painting of the red cat on the beach", "the dog"]
STEPS, GUIDANCE, RESCALE = 6, 5.0, 0.7


def part(network, name):
    return network.from_pretrained(MODEL / name, torch_dtype=torch.float32).eval()


pipeline = StableDiffusionPipeline(
    vae=part(AutoencoderKL, "vae"),
    text_encoder=part(CLIPTextModel, "text_encoder"),
    tokenizer=CLIPTokenizer.from_pretrained(MODEL / "tokenizer"),
    unet=part(UNet2DConditionModel, "unet"),
    scheduler=DDIMScheduler.from_pretrained(MODEL / "scheduler"),
    safety_checker=None, feature_extractor=None, requires_safety_checker=False,
)
pipeline.set_progress_bar_config(disable=True)
noise = torch.randn(len(PROMPTS), 4, 8, 8, generator=torch.Generator().manual_seed(11))
steps = []


def keep(_pipeline, _step, _timestep, values):
    steps.append(values["latents"].clone())
    return values


def draw(rescale):
    steps.clear()
    pipeline(
        PROMPTS, latents=noise.clone(), num_inference_steps=STEPS, guidance_scale=GUIDANCE, guidance_rescale=rescale,
        output_type="latent", callback_on_step_end=keep, height=64, width=64,
    )
    return torch.stack(steps)


rescaled = draw(RESCALE)
print("moved by", (rescaled - draw(0.0)).abs().amax((1, 2, 3, 4)).tolist())
out = HERE / "pipeline-rescaled"
out.mkdir(exist_ok=True)
facts = {"prompts": json.dumps(PROMPTS), "num_inference_steps": STEPS, "guidance_scale": GUIDANCE, "guidance_rescale": RESCALE}
metadata = {key: str(value) for key, value in facts.items()}
save_file({"input.latents": noise, "output.latents_steps": rescaled}, out / "golden.safetensors", metadata=metadata)
