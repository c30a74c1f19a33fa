//! Training pictures as the generator's autoencoder gives them back: what is judged later has been through it.

use anyhow::Context as _;
use image::RgbImage;

use super::Ground;
use crate::app::backend::Backend;
use crate::data::pixels;
use crate::pretrained::{self, hub};

/// Pictures that go through the autoencoder at once.
const BATCH: usize = 32;

impl Ground<'_> {
    /// The stickers' pictures and those of further glyphs as `[models] vae` gives them back. `key` asks for them.
    pub(super) fn through_autoencoder(&self, key: &str) -> anyhow::Result<[Vec<RgbImage>; 2]> {
        let place = &self.config.models.vae;
        let frozen = &self.devices.frozen;
        let opened = pretrained::diffusion::open_vae::<Backend>(&hub::located(place), frozen);
        let (_, vae) = opened.with_context(|| {
            let place = place.display();
            format!("{key} wants models.vae ({place}): `ragar pretrain vae` makes one")
        })?;
        let back = |pictures: &[RgbImage]| -> Vec<RgbImage> {
            let batches = pictures.chunks(BATCH);
            batches
                .flat_map(|pictures| {
                    let pictures: Vec<&RgbImage> = pictures.iter().collect();
                    let batch = pixels::to_batch::<Backend>(&pictures, frozen);
                    pixels::to_pictures(vae.decode(vae.encode(batch).mean))
                })
                .collect()
        };
        let more = self.extra.as_ref();
        let more = more.map_or_else(Vec::new, |(_, images)| back(images));
        Ok([back(&self.images), more])
    }
}
