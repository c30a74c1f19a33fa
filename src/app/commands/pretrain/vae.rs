//! `ragar pretrain vae`.

use model_import::SaveDtype;

use super::card::Card;
use super::{Ground, Trained};
use crate::app::backend::Backend;
use crate::pretrained;
use crate::pretraining::vae::{self, VaeReport};

/// Trains the autoencoder.
pub fn train(ground: &Ground<'_>) -> anyhow::Result<Trained<VaeReport>> {
    let config = &ground.config.pretrain.vae;
    let trained = vae::run::<Backend>(
        config,
        &ground.image_set(false)?,
        &ground.image_set(true)?,
        &ground.out,
        &ground.devices.train,
        &ground.devices.frozen,
        &ground.watcher,
        &ground.interrupt,
    )?;
    ground.check_finished(trained.report.interrupted, trained.report.steps)?;
    pretrained::diffusion::save_vae(
        &ground.model(),
        &trained.config,
        &trained.network,
        SaveDtype::F16,
    )?;
    let card = Card {
        title: "Tiny autoencoder for stickers",
        what: format!(
            "A member of Stable Diffusion's autoencoders in the layout of diffusers' `AutoencoderKL`: widths {:?}, {} layer a level, 64×64 \
             pixels to 16×16×4 latents. Stored in f16.",
            config.network.block_out_channels, config.network.layers_per_block
        ),
        training: format!(
            "Absolute and squared error of pixels, absolute error of their differences, a small divergence. {} steps of {} images, seed {}.",
            trained.report.steps, config.batch_size, config.seed
        ),
    };
    Ok(Trained {
        card: card.write(ground, &trained.report),
        report: trained.report,
    })
}
