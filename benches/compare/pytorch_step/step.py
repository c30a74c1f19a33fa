"""One training step, the equations in order."""

import math

import torch
import torch.nn.functional as F

from .drawing import Eyes, Generator
from .judge import Judge
from .preference import Preference, as_theirs


class Training:
    """A training in progress over one batch, which every step takes."""

    def __init__(self, told, tensors, adapter, root, images_per_batch):
        """`told` and `tensors` are what the exchange says, `adapter` is PEFT's folder, paths of networks start at `root`."""
        from peft import PeftModel
        from transformers import LlamaForCausalLM

        config = told["config"]
        self.settings, models = config["reflection"], config["models"]
        self.samples, self.images_per_batch = told["samples"], images_per_batch
        self.generator = Generator(root / models["generator"], self.settings)
        self.eyes = Eyes(root / models["clip"])

        def part(start):
            return {name.removeprefix(start): value for name, value in tensors.items() if name.startswith(start)}

        self.judge = Judge(part("micro."), config["ranking"]["model"])
        llama = LlamaForCausalLM.from_pretrained(root / models["language_model"], dtype=torch.float32)
        llama = PeftModel.from_pretrained(llama, adapter, is_trainable=True)
        self.model = Preference(llama, config["preference"], self.generator.tokens, self.generator.width)
        initial = dict(as_theirs(*item) for item in part("trained.").items())
        missing, unexpected = self.model.load_state_dict(initial, strict=False)
        missing = [name for name in missing if not name.startswith("llama.")]
        if missing or unexpected:
            raise SystemExit(f"weights that do not fit: {missing} {unexpected}")
        self.trained = {name: value for name, value in self.model.named_parameters() if value.requires_grad}
        moments = config["training"]["optimizer"]
        self.largest_norm = moments["max_gradient_norm"] or math.inf
        self.optimizer = torch.optim.AdamW(
            self.trained.values(), lr=config["training"]["schedule"]["learning_rate"], eps=moments["epsilon"],
            betas=(moments["beta_1"], moments["beta_2"]), weight_decay=moments["weight_decay"])

        # What of a batch stays the same.
        def rows(key):
            return torch.tensor([sample[key] for sample in self.samples])

        self.users, self.references = rows("user_index"), torch.tensor(told["reference_rows"])
        self.retrieved, self.captions, self.own = (
            rows(key) for key in ("retrieved_preference", "reference_semantic", "reference_visual"))
        prompts = [sample["preference_ids"] for sample in self.samples]
        longest = max(map(len, prompts))
        self.ids = torch.tensor([[0] * (longest - len(prompt)) + prompt for prompt in prompts])
        self.mask = torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts])
        self.shared = tensors["latents.shared"]
        # Scores of reference and keyword image by sample, and the advantages so far: these outlive a step.
        self.known = {}
        self.count, self.squares = 0, 0.0

    def noise(self):
        """Fresh noise: shares of the ways that retrieval shows, and latents."""
        batch, noises = len(self.samples), self.settings["num_noises"]
        shares = torch.randn(batch, noises, 1 + len(self.samples[0]["retrieved_captions"]))
        if self.settings["common_noise"]:
            return shares, self.shared.repeat_interleave(noises, 0)
        return shares, torch.randn(batch * noises, *self.generator.latent_shape)

    def step(self, shares, latents):
        """Losses, gradient norm and rewards of a step with this noise."""
        settings, noises = self.settings, self.settings["num_noises"]
        # (9) Global.
        keyword, real = self.generator.states([sample["global_prompt"] for sample in self.samples])
        own = self.generator.states([sample["reference_caption"] for sample in self.samples])[0]
        found = torch.stack([self.generator.states(sample["retrieved_captions"])[0] for sample in self.samples])

        # (7)–(9)
        multimodal, present, general = self.model(self.ids, self.mask, keyword, found.mean(1) - own)

        # (11)
        here = general.detach()
        ways = torch.cat([(own - here)[:, None], found - own[:, None]], 1)
        ways = ways / ways.square().mean((2, 3), keepdim=True).sqrt().clamp_min(1e-6)
        explored = torch.einsum("bnw,bwqd->bnqd", shares, ways) / math.sqrt(ways.shape[1])
        explored = here[:, None] + settings["sigma"] * explored

        # (12)–(14)
        rewards = self.rewards(keyword, explored, latents)

        # (15)
        advantages = rewards["value"]
        advantages = advantages - (advantages.sum(1, keepdim=True) - advantages) / (noises - 1)
        if settings["normalise_advantages"]:
            self.count += advantages.numel()
            self.squares += advantages.double().square().sum().item()
            advantages = advantages / max(math.sqrt(self.squares / self.count), 1e-6)
        squares = (explored - general[:, None]).square().mean((2, 3))
        density = -0.5 * squares / settings["sigma"] ** 2 - math.log(settings["sigma"]) - 0.5 * math.log(2 * math.pi)
        rank = -(advantages * density).mean()

        # (10), (16), (17)
        calibration = F.mse_loss(pooled(general, real), self.retrieved)
        semantic = F.mse_loss(pooled(multimodal, present), self.captions)
        loss = (settings["rank_weight"] * rank + settings["calibration_weight"] * calibration
                + settings["semantic_weight"] * semantic)
        self.optimizer.zero_grad()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.trained.values(), self.largest_norm)
        self.optimizer.step()
        return {"losses": torch.stack([loss, rank, calibration, semantic]).detach(), "gradient_norm": norm, **rewards}

    @torch.no_grad()
    def rewards(self, keyword, explored, latents):
        """Draws what is not known yet, keyword images first; judges all of it."""
        batch, noises = explored.shape[:2]
        new = [] if self.known else list(range(batch))
        conditionings = torch.cat([keyword[new], explored.flatten(0, 1)])
        latents = torch.cat([self.shared[new], latents])
        size = self.images_per_batch or len(latents)
        features = torch.cat([
            self.eyes.features(self.generator.draw(*chunk))
            for chunk in zip(conditionings.split(size), latents.split(size))])
        drawn, features = features[:len(new)], features[len(new):]
        if new:
            scores, ranks = self.judge.judge(
                self.users.repeat(2), self.references.repeat(2), torch.cat([self.own, drawn]))
            self.known = {"reference": scores[:batch], "keyword": scores[batch:],
                          "reference_rank": ranks[:batch], "keyword_rank": ranks[batch:]}
        users, references = (rows.repeat_interleave(noises) for rows in (self.users, self.references))
        scores, ranks = (found.view(batch, noises) for found in self.judge.judge(users, references, features))
        better = torch.maximum(self.known["reference"], self.known["keyword"])
        likeness = (features.view(batch, noises, -1) * self.captions[:, None]).sum(2)
        value = scores - better[:, None] - self.settings["margin"] + self.settings["semantic_reward"] * likeness
        return {"value": value, "score": scores, "rank": ranks, "likeness": likeness, **self.known}


def pooled(states, real):
    """Mean over the real tokens."""
    real = real[..., None].float()
    return (states * real).sum(1) / real.sum(1).clamp_min(1.0)
