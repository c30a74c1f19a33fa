"""Golden samples of BLIP-2 with T5, written by transformers' Blip2ForConditionalGeneration.

`blip2-t5`: as the published Flan-T5 conversions are: a head of its own, unscaled outputs, `dense_act_fn` that overrides
`feed_forward_proj`, word embeddings repeated under encoder and decoder, heads not as wide as width / heads suggests.
`blip2-t5-tied`: the head is the word embedding and outputs are scaled; gated with the approximate GELU; other numbers
of layers in encoder and decoder.
`blip2-t5-relu`: the first T5's feed-forward part, not gated; a file that says tied and holds a head of its own.
`blip2-t5-beam`: beam searches over the first two.

    python tests/golden/blip2_t5.py [case …] [--verify]        (torch 2.9, transformers 5.23)
"""

import json
from collections import Counter

import torch
from blip2 import beams
from generate import HERE, Case, generator, greedy, hub_shapes, main, normal, random_tensor, read_back, save, \
    write_weights, zero_masked
from safetensors.torch import load_file

START, END, PAD, IMAGE = 0, 1, 0, 90


class T5(Case):
    kind = "blip2"
    weights_dtype = "float16"
    smallest_gap = 0.02
    num_new = 8

    def __init__(self, name, head, text, queries=4, image_size=14):
        self.name, self.head, self.text, self.queries, self.image_size = name, head, text, queries, image_size

    def config(self):
        return {
            "architectures": ["Blip2ForConditionalGeneration"],
            "model_type": "blip-2",
            "num_query_tokens": self.queries,
            "image_token_index": IMAGE,
            "use_decoder_only_language_model": False,
            "vision_config": {
                "model_type": "blip_2_vision_model", "hidden_size": 16, "intermediate_size": 24,
                "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": self.image_size, "patch_size": 7,
            },
            "qformer_config": {
                "model_type": "blip_2_qformer", "vocab_size": 32, "hidden_size": 16, "num_hidden_layers": 2,
                "num_attention_heads": 2, "intermediate_size": 24, "encoder_hidden_size": 16,
            },
            "text_config": {
                "model_type": "t5", "vocab_size": 96, "d_model": 20, "bos_token_id": END,
                "decoder_start_token_id": START, "relative_attention_num_buckets": 8,
                "relative_attention_max_distance": 14, **self.text,
            },
        }

    def network(self):
        from transformers import Blip2ForConditionalGeneration

        model = read_back(Blip2ForConditionalGeneration, self.model)
        language = model.language_model
        own = language.lm_head.weight.data_ptr() != language.shared.weight.data_ptr()
        assert own == self.head, "the head is not what the file holds"
        return model

    def write(self, seed):
        from transformers import Blip2Config, Blip2ForConditionalGeneration

        self.model.mkdir(parents=True, exist_ok=True)
        (self.model / "config.json").write_text(json.dumps(self.config(), indent=2) + "\n")
        config = Blip2Config.from_pretrained(self.model)
        shapes = hub_shapes(Blip2ForConditionalGeneration(config))
        shared = "language_model.shared.weight"
        words = random_tensor(shared, shapes[shared], generator(seed, shared), {})
        extra = {shared: words}
        if self.head:
            name = "language_model.lm_head.weight"
            # Wide enough to prefer some words to others.
            extra[name] = random_tensor("head", shapes[shared], generator(seed, name), {"head": 4.0})
        else:
            words *= 3
        # The placeholder's row is never read, but it can be the head's: a small one keeps the word out of texts.
        for table in extra.values():
            table[IMAGE] *= 0.1
        if self.name == "blip2-t5":
            for side in ("encoder", "decoder"):
                extra[f"language_model.{side}.embed_tokens.weight"] = words.clone()
        # Layers that outweigh the word last written, which a tied head would otherwise repeat.
        wide = 2.0 if self.head else 16.0
        scale = {"relative_attention_bias": 2.0, "wo.weight": wide, ".o.weight": wide}
        extra = {name: table.half() for name, table in extra.items()}
        write_weights(self.model / "model.safetensors", shapes, seed, torch.float16, scale, extra)

    def inputs(self, random):
        prompts = [[17, 33, 40, 8, 22, 61, 5, END], [11, 70, 5, END]]
        width = max(map(len, prompts))
        rows = [[IMAGE] * self.queries + [PAD] * (width - len(prompt)) + prompt for prompt in prompts]
        ids = torch.tensor(rows)
        mask = torch.ones_like(ids)
        mask[1, self.queries : self.queries + width - len(prompts[1])] = 0
        return {
            "input_ids": ids,
            "attention_mask": mask,
            "decoder_input_ids": torch.tensor([[START, 44, 9, 71, 30, 7], [START, 12, 12, 80, 3, 56]]),
            "pixel_values": normal(random, len(prompts), 3, self.image_size, self.image_size),
        }

    def outputs(self, inputs):
        model = self.network()
        out = model(**inputs)
        prompt = {name: value for name, value in inputs.items() if name != "decoder_input_ids"}
        prompted, gap = greedy(model, self.num_new, **prompt)
        captions, caption_gap = greedy(model, self.num_new, pixel_values=inputs["pixel_values"])
        qformer = out.qformer_outputs.last_hidden_state
        encoded = out.language_model_outputs.encoder_last_hidden_state
        return {
            "vision_last_hidden_state": out.vision_outputs.last_hidden_state,
            "qformer_output": qformer,
            "language_projection": model.language_projection(qformer),
            "encoder_last_hidden_state": zero_masked(encoded, inputs["attention_mask"]),
            "logits": out.logits,
            "generated_ids": prompted,
            "caption_ids": captions,
        }, {
            "language_model": "t5",
            "num_query_tokens": str(self.queries),
            "image_token_index": str(IMAGE),
            "max_new_tokens": str(self.num_new),
            "min_top2_gap": f"{min(gap, caption_gap):.6f}",
            "zeroed": "output.encoder_last_hidden_state where attention_mask == 0",
        }

    def varied(self, inputs, outputs):
        """Texts that differ from each other and within; one ends early in a case that has an end token to meet."""
        rows = [*outputs["generated_ids"], *outputs["caption_ids"]]
        if any(len(set(row.tolist())) < 4 for row in rows) or any(IMAGE in row for row in rows):
            return False
        return all((outputs[name][0] != outputs[name][1]).any() for name in ("generated_ids", "caption_ids"))


CASES = [
    T5("blip2-t5", True, dict(
        d_kv=6, num_heads=3, d_ff=28, num_layers=2, num_decoder_layers=2, feed_forward_proj="gated-gelu",
        dense_act_fn="gelu", is_gated_act=True, tie_word_embeddings=False)),
    T5("blip2-t5-tied", False, dict(
        d_kv=4, num_heads=5, d_ff=24, num_layers=2, num_decoder_layers=1, feed_forward_proj="gated-gelu",
        eos_token_id=END)),
    T5("blip2-t5-relu", True, dict(d_kv=8, num_heads=2, d_ff=40, num_layers=2, feed_forward_proj="relu")),
]


@torch.no_grad()
def record_beams():
    tensors, metadata = {}, {}
    for case in CASES[:2]:
        recorded = load_file(case.folder / "golden.safetensors")
        inputs = {k.removeprefix("input."): v for k, v in recorded.items() if k.startswith("input.")}
        liked = torch.cat([recorded["output.generated_ids"].flatten(), recorded["output.caption_ids"].flatten()])
        ends = [token for token, _ in Counter(liked.tolist()).most_common(12) if token not in (START, END)]
        beams(case.name, case.network(), inputs, ends, tensors, metadata, 2)
    folder = HERE / "blip2-t5-beam"
    folder.mkdir(exist_ok=True)
    save(tensors, folder / "golden.safetensors", {"kind": "blip2-beam", **metadata})


if __name__ == "__main__":
    if main(CASES, __doc__):
        record_beams()
