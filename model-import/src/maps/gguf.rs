//! GGUF's names of the llama architecture, as the hub has them.

use crate::key_map::KeyMap;

/// From llama.cpp's names to those of `transformers`. Applied when such a file is opened, so that every
/// other key map meets the hub's names. The table of rotary factors is left out: it follows from the
/// configuration's `rope_scaling`.
pub fn llama() -> KeyMap {
    KeyMap::new()
        .rename("token_embd", "model.embed_tokens")
        .rename("output_norm", "model.norm")
        .rename("output", "lm_head")
        .rename("blk", "model.layers")
        .rename_inside("attn_norm", "input_layernorm")
        .rename_inside("attn_q", "self_attn.q_proj")
        .rename_inside("attn_k", "self_attn.k_proj")
        .rename_inside("attn_v", "self_attn.v_proj")
        .rename_inside("attn_output", "self_attn.o_proj")
        .rename_inside("ffn_norm", "post_attention_layernorm")
        .rename_inside("ffn_gate", "mlp.gate_proj")
        .rename_inside("ffn_up", "mlp.up_proj")
        .rename_inside("ffn_down", "mlp.down_proj")
        .ignore("rope_freqs.weight")
}
