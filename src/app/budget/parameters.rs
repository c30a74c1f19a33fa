//! Numbers in the networks, counted in modules whose parameters are never filled.

use burn::module::Module;
use burn::tensor::Device;
use model_import::{KeyMap, hub_shapes, maps};
use rand::SeedableRng as _;
use rand_chacha::ChaCha8Rng;

use super::Shapes;
use crate::app::backend::Backend;
use crate::app::config::RunConfig;
use crate::generation::mapper::MapperEnds;

/// Parameters of the frozen networks.
pub struct Frozen {
    pub language: u64,
    pub clip: u64,
    pub captioner: u64,
    pub unet: u64,
    pub vae: u64,
    pub text: u64,
}

/// Counts the frozen networks; parameters that are tied count once.
pub fn frozen(shapes: &Shapes, device: &Device<Backend>) -> anyhow::Result<Frozen> {
    let language = shapes.language.init::<Backend>(device)?;
    let tied = shapes.language.tie_word_embeddings;
    Ok(Frozen {
        language: count(&language, &maps::llama::llama(tied)),
        clip: count(&shapes.clip.init::<Backend>(device), &maps::clip::clip()),
        captioner: count(
            &shapes.captioner.init::<Backend>(device)?,
            &maps::blip2::blip2(),
        ),
        unet: count(
            &shapes.unet.init::<Backend>(device)?,
            &maps::diffusion::unet(),
        ),
        vae: count(
            &shapes.vae.init::<Backend>(device)?,
            &maps::diffusion::vae_now(),
        ),
        text: count(
            &shapes.text.init::<Backend>(device),
            &maps::clip::text_encoder(),
        ),
    })
}

/// Without filling a single one: lazy parameters stay lazy.
fn count(module: &impl Module<Backend>, key_map: &KeyMap) -> u64 {
    let shapes = hub_shapes(module, key_map);
    shapes
        .values()
        .map(|shape| shape.iter().product::<usize>() as u64)
        .sum()
}

/// What trains, by its part.
pub fn trained(
    config: &RunConfig,
    shapes: &Shapes,
    device: &Device<Backend>,
) -> anyhow::Result<Vec<(&'static str, u64)>> {
    let preference = &config.preference;
    let language = &shapes.language;
    let hidden = language.hidden_size as u64;
    let width = shapes.text.hidden_size;
    let ends = MapperEnds {
        in_dim: language.hidden_size,
        out_dim: width,
        num_queries: shapes.text.max_position_embeddings,
    };
    // Small enough to be filled.
    let mapper = preference.mapper.init::<Backend>(ends, 0, device)?;
    anyhow::ensure!(
        width.is_multiple_of(preference.calibrator.num_heads),
        "preference.calibrator.num_heads = {} does not divide the generator's text width {width}",
        preference.calibrator.num_heads
    );
    let mut random = ChaCha8Rng::seed_from_u64(0);
    let calibrator = preference
        .calibrator
        .init::<Backend>(width, &mut random, device);
    let sizes = projections(shapes);
    let adapted = sizes
        .iter()
        .filter(|(name, _, _)| preference.lora.targets(name));
    let each: u64 = adapted.map(|(_, inputs, outputs)| inputs + outputs).sum();
    let width = width as u64;
    Ok(vec![
        (
            "adapter",
            each * preference.lora.r as u64 * language.num_hidden_layers as u64,
        ),
        ("[IMG] rows", preference.image_tokens as u64 * hidden),
        ("mapper", mapper.num_params() as u64),
        ("text projection", hidden * width + width),
        ("fusion", calibrator.num_params() as u64),
    ])
}

/// Inputs and outputs of a layer's projections.
fn projections(shapes: &Shapes) -> [(&'static str, u64, u64); 7] {
    let language = &shapes.language;
    let hidden = language.hidden_size as u64;
    let inner = language.intermediate_size as u64;
    let head = language.head_dim() as u64;
    let queries = language.num_attention_heads as u64 * head;
    let keys = language.num_key_value_heads() as u64 * head;
    [
        ("q_proj", hidden, queries),
        ("k_proj", hidden, keys),
        ("v_proj", hidden, keys),
        ("o_proj", queries, hidden),
        ("gate_proj", hidden, inner),
        ("up_proj", hidden, inner),
        ("down_proj", inner, hidden),
    ]
}
