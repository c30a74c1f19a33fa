"""Writes the names and shapes of every parameter of full-size checkpoints, as the reference builds them on its
meta device: no weights are needed, none are allocated.

    python tests/golden/shapes.py

One folder per architecture: `config.json` (what the hub's file says, as far as it matters for shapes) and
`shapes.tsv` (name, tab, sizes joined by `x`; nothing for a number without dimensions).
"""

import json
from pathlib import Path

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import (
    Blip2Config,
    Blip2ForConditionalGeneration,
    CLIPConfig,
    CLIPModel,
    CLIPTextConfig,
    CLIPTextModel,
    LlamaConfig,
    LlamaForCausalLM,
)

HERE = Path(__file__).parent / "shapes"

CLIP_TEXT_L = dict(
    vocab_size=49408, hidden_size=768, intermediate_size=3072, projection_dim=768, num_hidden_layers=12,
    num_attention_heads=12, max_position_embeddings=77, hidden_act="quick_gelu", layer_norm_eps=1e-5,
    bos_token_id=0, eos_token_id=2, pad_token_id=1,
)
CLIP_L = dict(
    projection_dim=768,
    logit_scale_init_value=2.6592,
    text_config=CLIP_TEXT_L,
    vision_config=dict(
        hidden_size=1024, intermediate_size=4096, projection_dim=768, num_hidden_layers=24, num_attention_heads=16,
        num_channels=3, image_size=224, patch_size=14, hidden_act="quick_gelu", layer_norm_eps=1e-5,
    ),
)
# As `laion/CLIP-ViT-H-14-laion2B-s32B-b79K` has it: what is absent means transformers' default.
CLIP_H = dict(
    projection_dim=1024,
    text_config=dict(
        hidden_size=1024, intermediate_size=4096, num_attention_heads=16, num_hidden_layers=24, hidden_act="gelu",
        projection_dim=512,
    ),
    vision_config=dict(
        hidden_size=1280, intermediate_size=5120, num_attention_heads=16, num_hidden_layers=32, patch_size=14,
        hidden_act="gelu", projection_dim=512,
    ),
)
BLIP2_OPT = dict(
    num_query_tokens=32,
    vision_config=dict(
        hidden_size=1408, intermediate_size=6144, num_hidden_layers=39, num_attention_heads=16, image_size=224,
        patch_size=14, hidden_act="gelu", layer_norm_eps=1e-6, qkv_bias=True,
    ),
    qformer_config=dict(
        vocab_size=30522, hidden_size=768, num_hidden_layers=12, num_attention_heads=12, intermediate_size=3072,
        hidden_act="gelu", layer_norm_eps=1e-12, cross_attention_frequency=2, encoder_hidden_size=1408,
        max_position_embeddings=512,
    ),
    text_config=dict(
        model_type="opt", vocab_size=50272, hidden_size=2560, ffn_dim=10240, num_hidden_layers=32,
        num_attention_heads=32, max_position_embeddings=2048, word_embed_proj_dim=2560,
        activation_function="relu", do_layer_norm_before=True, pad_token_id=1, bos_token_id=2, eos_token_id=50118,
    ),
)
BLIP2_T5 = dict(
    num_query_tokens=32,
    vision_config=BLIP2_OPT["vision_config"],
    qformer_config=BLIP2_OPT["qformer_config"],
    text_config=dict(
        model_type="t5", vocab_size=32128, d_model=2048, d_kv=64, d_ff=5120, num_layers=24, num_decoder_layers=24,
        num_heads=32, relative_attention_num_buckets=32, relative_attention_max_distance=128, layer_norm_epsilon=1e-6,
        feed_forward_proj="gated-gelu", dense_act_fn="gelu", tie_word_embeddings=False, decoder_start_token_id=0,
        pad_token_id=0, bos_token_id=1, eos_token_id=1,
    ),
)
LLAMA_2 = dict(
    vocab_size=32000, hidden_size=4096, intermediate_size=11008, num_hidden_layers=32, num_attention_heads=32,
    num_key_value_heads=32, hidden_act="silu", max_position_embeddings=4096, rms_norm_eps=1e-5, rope_theta=10000.0,
    tie_word_embeddings=False, bos_token_id=1, eos_token_id=2,
)
SMOLLM2 = dict(
    vocab_size=49152, hidden_size=576, intermediate_size=1536, num_hidden_layers=30, num_attention_heads=9,
    num_key_value_heads=3, hidden_act="silu", max_position_embeddings=8192, rms_norm_eps=1e-5, rope_theta=100000.0,
    tie_word_embeddings=True, bos_token_id=0, eos_token_id=0,
)
SD15_UNET = dict(
    sample_size=64, in_channels=4, out_channels=4, center_input_sample=False, flip_sin_to_cos=True, freq_shift=0,
    down_block_types=["CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"],
    up_block_types=["UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"],
    block_out_channels=[320, 640, 1280, 1280], layers_per_block=2, downsample_padding=1, mid_block_scale_factor=1,
    act_fn="silu", norm_num_groups=32, norm_eps=1e-5, cross_attention_dim=768, attention_head_dim=8,
)
SD15_VAE = dict(
    in_channels=3, out_channels=3, down_block_types=["DownEncoderBlock2D"] * 4,
    up_block_types=["UpDecoderBlock2D"] * 4, block_out_channels=[128, 256, 512, 512], layers_per_block=2,
    act_fn="silu", latent_channels=4, norm_num_groups=32, sample_size=512, scaling_factor=0.18215,
)


def transformers_model(config, model):
    return lambda values: model(config(**values))


def untied_t5(values):
    """The published files hold a head of its own; transformers 5 ties every T5 until it has read one."""
    model = Blip2ForConditionalGeneration(Blip2Config(**values))
    head = model.language_model.lm_head
    head.weight = torch.nn.Parameter(torch.empty_like(head.weight))
    return model


# Folder, the configuration's file, the model.
CASES = [
    ("clip-vit-large-patch14", "CLIPModel", CLIP_L, transformers_model(CLIPConfig, CLIPModel)),
    ("laion-clip-vit-h-14", "CLIPModel", CLIP_H, transformers_model(CLIPConfig, CLIPModel)),
    ("blip2-opt-2.7b", "Blip2ForConditionalGeneration", BLIP2_OPT,
     transformers_model(Blip2Config, Blip2ForConditionalGeneration)),
    ("blip2-flan-t5-xl", "Blip2ForConditionalGeneration", BLIP2_T5, untied_t5),
    ("llama-2-7b", "LlamaForCausalLM", LLAMA_2, transformers_model(LlamaConfig, LlamaForCausalLM)),
    ("smollm2-135m", "LlamaForCausalLM", SMOLLM2, transformers_model(LlamaConfig, LlamaForCausalLM)),
    ("stable-diffusion-v1-5/text_encoder", "CLIPTextModel", CLIP_TEXT_L,
     transformers_model(CLIPTextConfig, CLIPTextModel)),
    ("stable-diffusion-v1-5/unet", "UNet2DConditionModel", SD15_UNET,
     lambda values: UNet2DConditionModel(**values)),
    ("stable-diffusion-v1-5/vae", "AutoencoderKL", SD15_VAE, lambda values: AutoencoderKL(**values)),
]


def file_name(model, key):
    """The name in a file: newer releases of transformers drop a prefix in memory that files keep."""
    missing = model == "CLIPTextModel" and not key.startswith("text_model.")
    return f"text_model.{key}" if missing else key


def main():
    for folder, name, values, build in CASES:
        with torch.device("meta"):
            model = build(json.loads(json.dumps(values)))
        key = "_class_name" if name in ("UNet2DConditionModel", "AutoencoderKL") else "architectures"
        config = {key: name if key == "_class_name" else [name], **values}
        place = HERE / folder
        place.mkdir(parents=True, exist_ok=True)
        (place / "config.json").write_text(json.dumps(config, indent=1) + "\n")
        # Tied parameters are stored once, under the first of their names.
        named = {file_name(name, key): p.shape for key, p in model.named_parameters()}
        rows = [f"{key}\t{'x'.join(map(str, shape))}\n" for key, shape in sorted(named.items())]
        (place / "shapes.tsv").write_text("".join(rows))
        total = sum(p.numel() for p in model.parameters())
        print(f"{folder}: {len(rows)} tensors, {total:,} parameters")


if __name__ == "__main__":
    main()
