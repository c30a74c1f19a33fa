//! `ragar pretrain`: trains the tiny family on the stickers' training pairs, each network in its own file.
//!
//! A run's folder holds checkpoints, `metrics.jsonl`, `config.toml`, `report.json` and, once the last step is taken,
//! `model/`: a Hugging Face folder in f16 with a model card. The same command again goes on where the last one stopped.

mod captioner;
mod card;
mod clip;
mod decoded;
mod language;
mod recogniser;
mod unet;
mod vae;

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::Context as _;
use image::RgbImage;
use serde::Serialize;

use crate::app::backend::Devices;
use crate::app::cli::PretrainNetwork;
use crate::app::config::RunConfig;
use crate::app::failure::{Interrupted, Usage};
use crate::app::files;
use crate::app::output::Watcher;
use crate::app::session::Session;
use crate::data::stickers::{Sticker, Stickers};
use crate::networks::recogniser::Aspect;
use crate::optimisation::Interrupt;
use crate::pretraining::extra::ExtraPictures;
use crate::pretraining::pixels::ImageSet;

/// What a training needs beside its own settings.
struct Ground<'a> {
    session: &'a Session,
    config: &'a RunConfig,
    devices: Devices,
    stickers: Stickers,
    /// Their pictures, in the same order.
    images: Vec<RgbImage>,
    out: PathBuf,
    /// Further stickers and their pictures, for networks that learn from more glyphs than the experiments have.
    extra: Option<(Stickers, Vec<RgbImage>)>,
    /// A folder of weights to start from.
    initial: Option<PathBuf>,
    watcher: Watcher,
    interrupt: Interrupt,
    started: Instant,
    /// The command that does this again.
    command: String,
}

/// What a training leaves behind.
struct Trained<R: Serialize> {
    /// Measured quality.
    report: R,
    /// The model card.
    card: String,
}

/// Trains `network` into `out`, or into `runs/pretrain/NAME`.
pub fn run(
    session: &Session,
    network: PretrainNetwork,
    out: Option<&Path>,
    extra: Option<&Path>,
    initial: Option<&Path>,
) -> anyhow::Result<()> {
    use PretrainNetwork::{Captioner, Clip, StyleRecogniser, Unet};
    if extra.is_some() && ![Clip, Captioner, Unet, StyleRecogniser].contains(&network) {
        let sentence =
            "only `ragar pretrain clip`, `captioner`, `unet` and `style-recogniser` take --extra";
        return Err(Usage(sentence.into()).into());
    }
    if initial.is_some() && ![Clip, Unet].contains(&network) {
        let sentence = "only `ragar pretrain clip` and `unet` take --init";
        return Err(Usage(sentence.into()).into());
    }
    let name = network.word();
    let out = out.map_or_else(|| Path::new("runs/pretrain").join(name), Path::to_path_buf);
    let config = &session.config;
    let devices = session.devices()?;
    let stickers = Stickers::open(&config.data.folder)?;
    let images = stickers.load_images(&config.data.image_limits)?;
    let more = extra
        .map(|folder| -> anyhow::Result<_> {
            let stickers = Stickers::open(folder)?;
            let images = stickers.load_images(&config.data.image_limits)?;
            Ok((stickers, images))
        })
        .transpose()?;
    let mut command = session.command_line(&format!("pretrain {name}"));
    if let Some(extra) = extra {
        command += &format!(" --extra {}", extra.display());
    }
    if let Some(initial) = initial {
        command += &format!(" --init {}", initial.display());
    }
    config.save(
        &out,
        &format!("pretrain {name}"),
        &[
            "data",
            "models",
            "prompts",
            &format!("pretrain.{}", name.replace('-', "_")),
        ],
    )?;
    let ground = Ground {
        session,
        config,
        devices,
        stickers,
        images,
        out,
        extra: more,
        initial: initial.map(Path::to_path_buf),
        watcher: session.output.watcher(),
        interrupt: Interrupt::install(),
        started: Instant::now(),
        command,
    };
    match network {
        PretrainNetwork::Clip => ground.finish(clip::train(&ground)?),
        PretrainNetwork::Captioner => ground.finish(captioner::train(&ground)?),
        PretrainNetwork::Llm => ground.finish(language::train(&ground)?),
        PretrainNetwork::Vae => ground.finish(vae::train(&ground)?),
        PretrainNetwork::Unet => ground.finish(unet::train(&ground)?),
        PretrainNetwork::GlyphRecogniser => {
            ground.finish(recogniser::train(&ground, Aspect::Glyph)?)
        }
        PretrainNetwork::StyleRecogniser => {
            ground.finish(recogniser::train(&ground, Aspect::Style)?)
        }
    }
}

/// Square pictures of one size.
fn image_set(pictures: Vec<&RgbImage>) -> anyhow::Result<ImageSet> {
    let size = pictures
        .first()
        .map(|picture| picture.width() as usize)
        .context("the sticker folder has no pair on one side of its split")?;
    let bytes = pictures.into_iter().map(|picture| picture.as_raw().clone());
    Ok(ImageSet::new(size, bytes.collect())?)
}

#[derive(Serialize)]
struct Summary<'a, R: Serialize> {
    folder: PathBuf,
    command: &'a str,
    hardware: String,
    #[serde(flatten)]
    report: &'a R,
}

impl Ground<'_> {
    /// The hub folder that the run ends in.
    fn model(&self) -> PathBuf {
        self.out.join("model")
    }

    /// The further stickers, as trainings take them.
    fn extra(&self) -> Option<ExtraPictures<'_>> {
        let extra = self.extra.as_ref();
        extra.map(|(stickers, images)| ExtraPictures {
            stickers: &stickers.stickers,
            images,
        })
    }

    /// Device, cores and time, for the model card.
    fn hardware(&self) -> String {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let minutes = self.started.elapsed().as_secs_f64() / 60.0;
        format!(
            "device `{}`, {cores} CPU cores; {minutes:.1} minutes since the last start",
            self.devices.name
        )
    }

    /// The stickers of one side of the split, with their places.
    fn side(&self, held_out: bool) -> impl Iterator<Item = (usize, &Sticker)> {
        let stickers = self.stickers.stickers.iter().enumerate();
        stickers.filter(move |(_, sticker)| sticker.held_out == held_out)
    }

    /// The pictures of one side of the split.
    fn pictures(&self, held_out: bool) -> Vec<&RgbImage> {
        let places = self.side(held_out).map(|(place, _)| place);
        places.map(|place| &self.images[place]).collect()
    }

    /// The pictures of one side of the split, as trainings of pixels take them.
    fn image_set(&self, held_out: bool) -> anyhow::Result<ImageSet> {
        image_set(self.pictures(held_out))
    }

    /// Fails with "interrupted" after a run that stopped before its last step; its state is saved.
    fn check_finished(&self, interrupted: bool, step: usize) -> anyhow::Result<()> {
        if interrupted {
            return Err(Interrupted::after(step).into());
        }
        Ok(())
    }

    /// Writes report and card and says what came out.
    fn finish<R: Serialize>(&self, trained: Trained<R>) -> anyhow::Result<()> {
        let folder = self.model();
        files::write(&folder.join("README.md"), trained.card.as_bytes())?;
        let summary = Summary {
            folder: folder.clone(),
            command: &self.command,
            hardware: self.hardware(),
            report: &trained.report,
        };
        files::write_json(&self.out.join("report.json"), &summary)?;
        let text = format!(
            "{} is trained. Measured:\n{}",
            folder.display(),
            card::table(&trained.report)
        );
        self.session.output.result(text, &summary)
    }
}
