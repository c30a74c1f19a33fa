"""Golden samples of CLIP beyond `clip`, written by transformers.

`clip-gelu`: as OpenCLIP's conversions are (exact GELU, a joint space of another width), the newer end-token rule.
`clip-text`, `clip-text-bare`: the text tower with its projection; under `text_model.` with position buffers and the
newer rule, and under bare names with the legacy rule.
`clip-vision`: the vision tower with its projection.

    python tests/golden/clip_towers.py [case …] [--verify]        (torch 2.9, transformers 5.23)
"""

import json

import torch
from generate import Case, generator, hub_shapes, main, normal, random_tensor, read_back, save

START, END = 58, 59
TEXT = {
    "model_type": "clip_text_model", "vocab_size": 60, "hidden_size": 24, "intermediate_size": 36,
    "num_hidden_layers": 2, "num_attention_heads": 3, "projection_dim": 20, "max_position_embeddings": 16,
}
VISION = {
    "model_type": "clip_vision_model", "hidden_size": 20, "intermediate_size": 36, "num_hidden_layers": 2,
    "num_attention_heads": 2, "projection_dim": 20, "image_size": 28, "patch_size": 7,
}


class Tower(Case):
    weights_dtype = "float16"

    def __init__(self, name, kind, cls, config, prefix=True, positions=False):
        self.name, self.kind, self.cls, self.config = name, kind, cls, config
        self.prefix, self.positions = prefix, positions

    def read(self):
        import transformers

        return read_back(getattr(transformers, self.cls), self.model)

    def write(self, seed):
        import transformers

        self.model.mkdir(parents=True, exist_ok=True)
        config = {"architectures": [self.cls], **self.config}
        (self.model / "config.json").write_text(json.dumps(config, indent=2) + "\n")
        cls = getattr(transformers, self.cls)
        shapes = hub_shapes(cls(cls.config_class.from_pretrained(self.model)))
        tensors = {}
        for name, shape in sorted(shapes.items()):
            value = random_tensor(name, shape, generator(seed, name), {}).half()
            tensors[name if self.prefix else name.removeprefix("text_model.")] = value.contiguous()
        if self.positions:
            tensors["text_model.embeddings.position_ids"] = torch.arange(TEXT["max_position_embeddings"])[None]
        save(tensors, self.model / "model.safetensors", {"format": "pt"})

    def inputs(self, random):
        inputs = {}
        if self.kind != "clip-vision":
            lengths, width = (5, 9, 7), 10
            ids = torch.randint(3, START, (len(lengths), width), generator=random)
            mask = torch.zeros(len(lengths), width, dtype=torch.int64)
            for row, length in enumerate(lengths):
                ids[row, 0] = START
                # Padding that is no end token, as tokenizers with a padding token of their own write it.
                ids[row, length - 1], ids[row, length:] = END, 1
                mask[row, :length] = 1
            inputs |= {"input_ids": ids, "attention_mask": mask}
        if self.kind != "clip-text":
            inputs["pixel_values"] = normal(random, 2, 3, 28, 28)
        return inputs

    def outputs(self, inputs):
        model = self.read()
        if self.kind == "clip":
            out = model(**inputs)
            text = model.text_model(inputs["input_ids"], attention_mask=inputs["attention_mask"])
            vision = model.vision_model(inputs["pixel_values"])
            return {
                "text_last_hidden_state": text.last_hidden_state,
                "text_pooler_output": text.pooler_output,
                "text_embeds": out.text_embeds,
                "vision_last_hidden_state": vision.last_hidden_state,
                "vision_pooler_output": vision.pooler_output,
                "image_embeds": out.image_embeds,
                "logits_per_text": out.logits_per_text,
                "logits_per_image": out.logits_per_image,
            }, {}
        tower = model.text_model if self.kind == "clip-text" else model.vision_model
        out = tower(**inputs)
        embeds = "text_embeds" if self.kind == "clip-text" else "image_embeds"
        return {
            "last_hidden_state": out.last_hidden_state,
            "pooler_output": out.pooler_output,
            embeds: getattr(model(**inputs), embeds),
        }, {}


CASES = [
    Tower("clip-gelu", "clip", "CLIPModel", {
        "model_type": "clip", "projection_dim": 28,
        "text_config": TEXT | {"hidden_act": "gelu", "eos_token_id": END, "projection_dim": 512},
        "vision_config": VISION | {"hidden_act": "gelu", "projection_dim": 512}}),
    Tower("clip-text", "clip-text", "CLIPTextModelWithProjection",
          TEXT | {"hidden_act": "gelu", "eos_token_id": END}, positions=True),
    Tower("clip-text-bare", "clip-text", "CLIPTextModelWithProjection", TEXT | {"eos_token_id": 2}, prefix=False),
    Tower("clip-vision", "clip-vision", "CLIPVisionModelWithProjection", VISION),
]


if __name__ == "__main__":
    main(CASES, __doc__)
