//! What golden files record, one file per family.

mod blip2;
mod clip;
mod diffusion;
mod llama;
mod lpips;
mod mapper;
mod recommender;
mod scheduler;

use super::case::{Case, Outputs};

/// Computes the outputs of a golden file of `kind`.
///
/// # Errors
/// When the kind is not known, the checkpoint does not load, or inputs do not fit it.
pub fn compute(kind: &str, case: &Case<'_>) -> anyhow::Result<Outputs> {
    match kind {
        "clip" => clip::whole(case),
        "clip-text" => clip::text(case),
        "clip-vision" => clip::vision(case),
        "blip2" => blip2::compute(case),
        "llama" => llama::compute(case),
        "lpips" => lpips::compute(case),
        "unet" => diffusion::unet(case),
        "vae" => diffusion::vae(case),
        "pipeline" => diffusion::pipeline(case),
        "scheduler" => scheduler::compute(case),
        "gill-mapper" => mapper::compute(case),
        "micro" => recommender::micro(case),
        "lattice" => recommender::lattice(case),
        "light-gcn" => recommender::light_gcn(case),
        other => anyhow::bail!(
            "{}: kind `{other}` is not known: use one of {}",
            case.golden.path().display(),
            KINDS.join(", ")
        ),
    }
}

/// Every kind.
const KINDS: [&str; 14] = [
    "clip",
    "clip-text",
    "clip-vision",
    "blip2",
    "llama",
    "lpips",
    "unet",
    "vae",
    "pipeline",
    "scheduler",
    "gill-mapper",
    "micro",
    "lattice",
    "light-gcn",
];

/// Does the output come out of many steps, each of which magnifies what was off before?
pub fn is_amplified(kind: &str, output: &str) -> bool {
    kind == "pipeline" && output.starts_with("latents")
}
