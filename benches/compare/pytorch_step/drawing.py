"""The frozen generator and its text encoder, and CLIP's eyes: conditionings and noise to features (equation 12)."""

import json

import torch
import torch.nn.functional as F


class Generator:
    """A pipeline's networks under its own denoising loop."""

    def __init__(self, folder, settings):
        from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
        from transformers import CLIPTextModel, CLIPTokenizer

        self.unet = UNet2DConditionModel.from_pretrained(folder / "unet", torch_dtype=torch.float32).eval()
        self.vae = AutoencoderKL.from_pretrained(folder / "vae", torch_dtype=torch.float32).eval()
        self.scheduler = DDIMScheduler.from_pretrained(folder / "scheduler")
        self.tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer")
        self.encoder = CLIPTextModel.from_pretrained(folder / "text_encoder", dtype=torch.float32).eval()
        self.tokens, self.width = self.encoder.config.max_position_embeddings, self.encoder.config.hidden_size
        side = self.unet.config.sample_size
        self.latent_shape = (self.unet.config.in_channels, side, side)
        self.num_steps, self.guidance = settings["num_steps"], settings["guidance_scale"]
        self.known = {}

    @torch.no_grad()
    def states(self, prompts):
        """Text states and what of them is real; each prompt is read once and kept."""
        new = [prompt for prompt in dict.fromkeys(prompts) if prompt not in self.known]
        if new:
            read = self.tokenizer(new, padding="max_length", truncation=True, max_length=self.tokens, return_tensors="pt")
            states = self.encoder(read.input_ids).last_hidden_state
            self.known.update(zip(new, zip(states, read.attention_mask.bool())))
        states, real = zip(*(self.known[prompt] for prompt in prompts))
        return torch.stack(states), torch.stack(real)

    @torch.no_grad()
    def draw(self, conditionings, latents):
        """Images in [−1, 1] of all conditionings."""
        empty = self.states([""])[0].expand_as(conditionings)
        context = torch.cat([empty, conditionings])
        self.scheduler.set_timesteps(self.num_steps)
        latents = latents * self.scheduler.init_noise_sigma
        for moment in self.scheduler.timesteps:
            twice = self.scheduler.scale_model_input(torch.cat([latents] * 2), moment)
            without, prompted = self.unet(twice, moment, encoder_hidden_states=context).sample.chunk(2)
            guided = without + self.guidance * (prompted - without)
            latents = self.scheduler.step(guided, moment, latents).prev_sample
        return self.vae.decode(latents / self.vae.config.scaling_factor).sample.clamp(-1, 1)


class Eyes:
    """CLIP's vision tower behind its own preprocessing."""

    def __init__(self, folder):
        from transformers import CLIPModel

        self.clip = CLIPModel.from_pretrained(folder, dtype=torch.float32).eval()
        wanted = json.loads((folder / "preprocessor_config.json").read_text())
        self.side = self.clip.config.vision_config.image_size
        self.mean = torch.tensor(wanted["image_mean"]).view(1, 3, 1, 1)
        self.deviation = torch.tensor(wanted["image_std"]).view(1, 3, 1, 1)

    @torch.no_grad()
    def features(self, images):
        if images.shape[-1] != self.side:
            raise SystemExit("a generator of another size than CLIP's pictures is not compared")
        found = self.clip.get_image_features(pixel_values=((images + 1) / 2 - self.mean) / self.deviation)
        return F.normalize(found if torch.is_tensor(found) else found.pooler_output, dim=-1)
