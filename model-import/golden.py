"""Records what the reference library computes with a checkpoint, so that `ragar model check` can prove its import.

    python model-import/golden.py CHECKPOINT OUT.safetensors [options]

CHECKPOINT is a folder in the hub's layout, or the name of a repository. What it holds is seen from its configuration:
CLIP (whole or one tower), BLIP-2, Llama, a UNet, an autoencoder, a scheduler, or a whole Stable Diffusion pipeline.
Inputs are drawn from a seed, texts are tokenised by the checkpoint's own tokeniser where it has one. All arithmetic is
float32 on the CPU, whatever type the weights are stored in: a model of N billion parameters needs 4 N GB of memory.

    ragar model check CHECKPOINT --golden OUT.safetensors

The form of the file is described in docs/golden.md.
Needs: pip install torch transformers diffusers safetensors (peft for --adapter).
"""

import argparse
import json
import os
import sys
from pathlib import Path

import torch

TEXTS = ["a photo of a cat", "the red sea at night, oil on canvas", "a"]
PROMPTS = ["The capital of France is", "Once upon a time there was a small"]
QUESTIONS = ["Question: what is in the picture? Answer:", "a photo of"]


class Recorder:
    """Inputs, outputs and options of one golden file."""

    def __init__(self, kind, seed):
        self.tensors, self.metadata = {}, {"kind": kind, "compute_dtype": "float32", "seed": str(seed)}
        self.random = torch.Generator().manual_seed(seed)

    def normal(self, *shape):
        return torch.randn(shape, generator=self.random)

    def _add(self, prefix, values):
        for name, value in values.items():
            if value is None:
                continue
            dtype = torch.float32 if value.is_floating_point() else torch.int64
            self.tensors[f"{prefix}.{name}"] = value.detach().to(dtype).contiguous().clone()

    def inputs(self, **values):
        self._add("input", values)

    def outputs(self, **values):
        self._add("output", values)

    def write(self, path):
        from safetensors.torch import save_file

        aside = path.with_name(f".{path.name}.partial")
        save_file(self.tensors, aside, metadata=self.metadata)
        os.replace(aside, path)


def zeroed(values, mask):
    return values if mask is None else values * (mask != 0).unsqueeze(-1).to(values.dtype)


def tokenizer_of(source):
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(source)
    except (OSError, ValueError, KeyError, TypeError):
        return None


# --- CLIP ------------------------------------------------------------------------------------------------------------


def clip_texts(recorder, source, config):
    """Ids and mask of a few texts, filled up on the right."""
    tokenizer = tokenizer_of(source)
    if tokenizer is not None:
        length = min(config.max_position_embeddings, tokenizer.model_max_length)
        batch = tokenizer(TEXTS, padding="max_length", max_length=length, truncation=True, return_tensors="pt")
        return batch["input_ids"], batch["attention_mask"]
    length = min(config.max_position_embeddings, 12)
    # The legacy rule takes the largest id for the end.
    end = config.vocab_size - 1 if config.eos_token_id == 2 else config.eos_token_id
    ids = torch.randint(3, max(4, min(end, config.vocab_size)), (3, length), generator=recorder.random)
    mask = torch.ones_like(ids)
    for row in range(3):
        ids[row, length - 1 - row :] = end
        mask[row, length - row :] = 0
    return ids, mask


def clip_pictures(recorder, config):
    return recorder.normal(2, config.num_channels, config.image_size, config.image_size)


def clip(source, options):
    from transformers import CLIPModel

    model = CLIPModel.from_pretrained(source, dtype=torch.float32).eval()
    recorder = Recorder("clip", options.seed)
    ids, mask = clip_texts(recorder, source, model.config.text_config)
    pixels = clip_pictures(recorder, model.config.vision_config)
    output = model(input_ids=ids, attention_mask=mask, pixel_values=pixels)
    # The towers by themselves: within the whole model newer versions report the projected state as the pooled one.
    text = model.text_model(input_ids=ids, attention_mask=mask)
    vision = model.vision_model(pixel_values=pixels)
    recorder.inputs(input_ids=ids, attention_mask=mask, pixel_values=pixels)
    recorder.outputs(
        text_last_hidden_state=text.last_hidden_state,
        text_pooler_output=text.pooler_output,
        vision_last_hidden_state=vision.last_hidden_state,
        vision_pooler_output=vision.pooler_output,
        text_embeds=output.text_embeds,
        image_embeds=output.image_embeds,
        logits_per_text=output.logits_per_text,
        logits_per_image=output.logits_per_image,
    )
    return recorder


def clip_text(source, options):
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    config = CLIPTextConfig.from_pretrained(source)
    projected = "CLIPTextModelWithProjection" in (config.architectures or [])
    model = (CLIPTextModelWithProjection if projected else CLIPTextModel).from_pretrained(
        source, dtype=torch.float32).eval()
    recorder = Recorder("clip-text", options.seed)
    ids, mask = clip_texts(recorder, source, config)
    tower = CLIPTextModel.from_pretrained(source, dtype=torch.float32).eval() if projected else model
    output = tower(input_ids=ids, attention_mask=mask)
    recorder.inputs(input_ids=ids, attention_mask=mask)
    recorder.outputs(last_hidden_state=output.last_hidden_state, pooler_output=output.pooler_output)
    if projected:
        recorder.outputs(text_embeds=model(input_ids=ids, attention_mask=mask).text_embeds)
    return recorder


def clip_vision(source, options):
    from transformers import CLIPVisionConfig, CLIPVisionModel, CLIPVisionModelWithProjection

    config = CLIPVisionConfig.from_pretrained(source)
    model = CLIPVisionModel.from_pretrained(source, dtype=torch.float32).eval()
    recorder = Recorder("clip-vision", options.seed)
    pixels = clip_pictures(recorder, config)
    output = model(pixel_values=pixels)
    recorder.inputs(pixel_values=pixels)
    recorder.outputs(last_hidden_state=output.last_hidden_state, pooler_output=output.pooler_output)
    if "CLIPVisionModelWithProjection" in (config.architectures or []):
        model = CLIPVisionModelWithProjection.from_pretrained(source, dtype=torch.float32).eval()
        recorder.outputs(image_embeds=model(pixel_values=pixels).image_embeds)
    return recorder


# --- BLIP-2 ----------------------------------------------------------------------------------------------------------


def blip2(source, options):
    from transformers import Blip2ForConditionalGeneration

    model = Blip2ForConditionalGeneration.from_pretrained(source, dtype=torch.float32).eval()
    config, text = model.config, model.config.text_config
    recorder = Recorder("blip2", options.seed)
    side = config.vision_config.image_size
    pixels = recorder.normal(2, 3, side, side)
    placeholders = [config.image_token_index] * config.num_query_tokens
    is_t5 = text.model_type == "t5"
    tokenizer = tokenizer_of(source)
    if tokenizer is not None:
        prompts = [tokenizer(question, add_special_tokens=True)["input_ids"] for question in QUESTIONS]
    else:
        low, high = 5, min(text.vocab_size, config.image_token_index) - 1
        prompts = [torch.randint(low, high, (length,), generator=recorder.random).tolist() for length in (6, 4)]
        start = [] if is_t5 else [text.bos_token_id]
        prompts = [start + prompt for prompt in prompts]
    longest, padding = max(map(len, prompts)), text.pad_token_id
    rows = [placeholders + [padding] * (longest - len(prompt)) + prompt for prompt in prompts]
    ids = torch.tensor(rows)
    filled = [[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts]
    mask = torch.tensor([[1] * len(placeholders) + row for row in filled])
    recorder.inputs(pixel_values=pixels, input_ids=ids, attention_mask=mask)
    inputs = {"pixel_values": pixels, "input_ids": ids, "attention_mask": mask}
    if is_t5:
        decoder = torch.randint(5, text.vocab_size - 1, (2, 5), generator=recorder.random)
        decoder[:, 0] = text.decoder_start_token_id if text.decoder_start_token_id is not None else padding
        inputs["decoder_input_ids"] = decoder
        recorder.inputs(decoder_input_ids=decoder)
    output = model(**inputs)
    vision = model.vision_model(pixel_values=pixels).last_hidden_state
    queries = model.query_tokens.expand(2, -1, -1)
    asked = model.qformer(query_embeds=queries, encoder_hidden_states=vision).last_hidden_state
    recorder.outputs(
        vision_last_hidden_state=vision,
        qformer_output=asked,
        language_projection=model.language_projection(asked),
        logits=output.logits if is_t5 else zeroed(output.logits, mask),
    )
    if is_t5:
        states = output.language_model_outputs.encoder_last_hidden_state
        recorder.outputs(encoder_last_hidden_state=zeroed(states, mask))
    greedy = {"do_sample": False, "num_beams": 1, "max_new_tokens": options.max_new_tokens}
    recorder.metadata["max_new_tokens"] = str(options.max_new_tokens)
    recorder.metadata["language_model"] = text.model_type
    recorder.outputs(generated_ids=model.generate(pixel_values=pixels, input_ids=ids, attention_mask=mask, **greedy))
    recorder.outputs(caption_ids=model.generate(pixel_values=pixels, **greedy))
    return recorder


# --- Llama -----------------------------------------------------------------------------------------------------------


def llama(source, options):
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32).eval()
    recorder = Recorder("llama", options.seed)
    tokenizer = tokenizer_of(source)
    if tokenizer is not None:
        prompts = [tokenizer(prompt)["input_ids"] for prompt in (options.prompt or PROMPTS)]
    else:
        prompts = [torch.randint(3, model.config.vocab_size, (length,), generator=recorder.random).tolist()
                   for length in (9, 6)]
    longest = max(map(len, prompts))
    padding = model.generation_config.pad_token_id or 0
    ids = torch.tensor([[padding] * (longest - len(prompt)) + prompt for prompt in prompts])
    mask = torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    recorder.inputs(input_ids=ids, attention_mask=mask)
    recorder.metadata["max_new_tokens"] = str(options.max_new_tokens)
    if options.adapter:
        from peft import PeftModel

        recorder.outputs(base_logits=zeroed(model(input_ids=ids, attention_mask=mask).logits, mask))
        model = PeftModel.from_pretrained(model, options.adapter).eval()
        recorder.metadata["adapter"] = os.path.relpath(options.adapter, options.out.parent)
    output = model(input_ids=ids, attention_mask=mask, output_hidden_states=True)
    greedy = {"do_sample": False, "num_beams": 1, "max_new_tokens": options.max_new_tokens}
    recorder.outputs(
        last_hidden_state=zeroed(output.hidden_states[-1], mask),
        logits=zeroed(output.logits, mask),
        generated_ids=model.generate(input_ids=ids, attention_mask=mask, pad_token_id=padding, **greedy),
    )
    return recorder


# --- diffusion -------------------------------------------------------------------------------------------------------


def unet(source, options):
    from diffusers import UNet2DConditionModel

    model = UNet2DConditionModel.from_pretrained(source, dtype=torch.float32).eval()
    recorder = Recorder("unet", options.seed)
    side = min(model.config.sample_size or 16, options.latent_side)
    sample = recorder.normal(2, model.config.in_channels, side, side)
    steps = torch.tensor([7, 812])
    states = recorder.normal(2, 11, model.config.cross_attention_dim)
    recorder.inputs(sample=sample, timestep=steps, encoder_hidden_states=states)
    recorder.outputs(sample=model(sample, steps, states).sample)
    return recorder


def vae(source, options):
    from diffusers import AutoencoderKL

    model = AutoencoderKL.from_pretrained(source, dtype=torch.float32).eval()
    recorder = Recorder("vae", options.seed)
    side = options.latent_side
    factor = 2 ** (len(model.config.block_out_channels) - 1)
    image = recorder.normal(1, model.config.in_channels, side * factor, side * factor).clamp(-1, 1)
    latent = recorder.normal(1, model.config.latent_channels, side, side)
    posterior = model.encode(image).latent_dist
    recorder.inputs(image=image, latent=latent)
    recorder.outputs(latent_mean=posterior.mean, latent_logvar=posterior.logvar, image=model.decode(latent).sample)
    return recorder


def scheduler(source, options):
    import diffusers
    from diffusers import SchedulerMixin  # noqa: F401  (a clear error where diffusers is too old)

    config = json.loads((Path(source) / "scheduler_config.json").read_text())
    sampler = getattr(diffusers, config["_class_name"]).from_pretrained(source)
    recorder = Recorder("scheduler", options.seed)
    sampler.set_timesteps(options.steps)
    steps = sampler.timesteps
    sample = recorder.normal(1, 4, 8, 8) * sampler.init_noise_sigma
    answers = recorder.normal(len(steps), 1, 4, 8, 8)
    noises = recorder.normal(len(steps), 1, 4, 8, 8)
    recorder.inputs(sample=sample, model_outputs=answers)
    recorder.metadata.update(num_inference_steps=str(options.steps), scheduler=config["_class_name"],
                             init_noise_sigma=str(float(sampler.init_noise_sigma)))
    inputs, samples = [], []
    used = []
    original = diffusers.utils.torch_utils.randn_tensor
    module = sys.modules[type(sampler).__module__]

    def recorded_noise(shape, *arguments, **keywords):
        used.append(len(samples))
        return noises[len(samples)].reshape(shape)

    if hasattr(module, "randn_tensor"):
        module.randn_tensor = recorded_noise
    for index, step in enumerate(steps):
        inputs.append(sampler.scale_model_input(sample, step))
        sample = sampler.step(answers[index], step, sample, return_dict=False)[0]
        samples.append(sample)
    if hasattr(module, "randn_tensor"):
        module.randn_tensor = original
    if used:
        recorder.inputs(noise=noises)
    recorder.outputs(timesteps=steps, scaled_inputs=torch.stack(inputs), samples=torch.stack(samples))
    return recorder


def pipeline(source, options):
    from diffusers import StableDiffusionPipeline

    drawer = StableDiffusionPipeline.from_pretrained(source, dtype=torch.float32, safety_checker=None)
    drawer.set_progress_bar_config(disable=True)
    recorder = Recorder("pipeline", options.seed)
    prompt, negative = (options.prompt or ["a painting of the red cat on the beach"])[0], ""
    tokens = lambda texts: drawer.tokenizer(  # noqa: E731
        texts, padding="max_length", max_length=drawer.tokenizer.model_max_length, truncation=True,
        return_tensors="pt").input_ids
    encoder = lambda ids: drawer.text_encoder(ids)[0]  # noqa: E731
    prompt_ids, negative_ids = tokens([prompt]), tokens([negative])
    positive, without = encoder(prompt_ids), encoder(negative_ids)
    side = min(drawer.unet.config.sample_size or 64, options.latent_side)
    latents = recorder.normal(1, drawer.unet.config.in_channels, side, side)
    calls = []

    def observe(_, __, ___, state):
        calls.append(state["latents"].clone())
        return state

    common = dict(prompt_embeds=positive, negative_prompt_embeds=without, guidance_scale=options.guidance,
                  num_inference_steps=options.steps, eta=0.0)
    final = drawer(latents=latents.clone(), output_type="latent", callback_on_step_end=observe, **common).images
    image = drawer.vae.decode(final / drawer.vae.config.scaling_factor).sample
    recorder.metadata.update(
        prompt=prompt, negative_prompt=negative, guidance_scale=str(options.guidance), eta="0.0",
        num_inference_steps=str(options.steps), tokenizer_texts=json.dumps(["", prompt, *TEXTS]))
    recorder.inputs(prompt_ids=prompt_ids, negative_ids=negative_ids, latents=latents)
    recorder.outputs(
        prompt_embeds=torch.cat([without, positive]), latents_steps=torch.cat(calls), latents=final,
        image=(image / 2 + 0.5).clamp(0, 1), tokenizer_ids=tokens(["", prompt, *TEXTS]))
    return recorder


# --- the command line ------------------------------------------------------------------------------------------------

BY_MODEL_TYPE = {"clip": clip, "clip_text_model": clip_text, "clip_vision_model": clip_vision, "blip-2": blip2,
                 "llama": llama}
BY_CLASS = {"UNet2DConditionModel": unet, "AutoencoderKL": vae}


def fetched(source):
    """The folder of a repository's name."""
    if Path(source).exists():
        return source
    from huggingface_hub import snapshot_download

    return snapshot_download(source)


def recorder_of(source):
    folder = Path(source)
    if (folder / "model_index.json").exists():
        return pipeline
    if (folder / "scheduler_config.json").exists():
        return scheduler
    path = folder / "config.json"
    if not path.exists():
        sys.exit(f"{source}: no config.json, model_index.json or scheduler_config.json here")
    config = json.loads(path.read_text())
    found = BY_CLASS.get(config.get("_class_name")) or BY_MODEL_TYPE.get(config.get("model_type"))
    if found is None:
        known = [*BY_CLASS, *BY_MODEL_TYPE]
        sys.exit(f"{path}: neither _class_name nor model_type is one of {', '.join(known)}")
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", help="a folder in the hub's layout, or a repository's name")
    parser.add_argument("out", type=Path, help="the .safetensors file to write")
    parser.add_argument("--adapter", help="a PEFT folder to apply to a language model")
    parser.add_argument("--prompt", action="append", help="a prompt in place of the usual ones; may be repeated")
    parser.add_argument("--max-new-tokens", type=int, default=16)
    parser.add_argument("--steps", type=int, default=10, help="denoising steps of pipelines and schedulers")
    parser.add_argument("--guidance", type=float, default=7.5)
    parser.add_argument("--latent-side", type=int, default=64, help="largest side of the latents")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    source = fetched(options.checkpoint)
    with torch.no_grad():
        recorder = recorder_of(source)(source, options)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    recorder.write(options.out)
    names = [name for name in recorder.tensors if name.startswith("output.")]
    print(f"{options.out}: kind {recorder.metadata['kind']}, {len(names)} outputs")


if __name__ == "__main__":
    main()
