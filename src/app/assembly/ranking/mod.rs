//! The ranking model over a data folder: trained, saved, loaded.

mod ground;
mod kinds;

use std::collections::HashMap;
use std::path::Path;

use anyhow::Context as _;
use burn::tensor::Device;
use sha2::{Digest as _, Sha256};

use super::{DataSet, Eyes};
use crate::app::backend::{Backend, Devices};
use crate::app::config::RunConfig;
use crate::optimisation::{Interrupt, Progress};
use crate::recommender::{InteractionSplit, ItemSelection, Micro, RankingModel, RecommenderKind};
use crate::reflection::discriminator::MicroDiscriminator;
use crate::training::recommender::RecommenderReport;

pub use ground::Ground;
pub use kinds::AnyRanking;
use kinds::{Description, open_in, train_in};

/// A trained MICRO over the items that are not held out: the judge of pictures.
#[derive(Debug)]
pub struct Ranking {
    /// Judges pictures in a reference's place.
    pub discriminator: MicroDiscriminator<Backend>,
    /// Which items of the catalogue are its rows.
    pub items: ItemSelection,
    /// Training, validation and test interactions.
    pub split: InteractionSplit,
    /// How training went.
    pub report: RecommenderReport,
    users: HashMap<String, usize>,
}

impl Ranking {
    /// Trains a ranking model in `folder`, or goes on with one, and saves it there.
    ///
    /// # Errors
    /// A kind that does not look at pictures, data that cannot be trained on, a diverging loss, a full disk,
    /// an interruption.
    pub fn train(
        config: &RunConfig,
        data: &DataSet,
        eyes: &Eyes,
        folder: &Path,
        devices: &Devices,
        progress: &dyn Progress,
        interrupt: &Interrupt,
    ) -> anyhow::Result<Self> {
        judges_pictures(config.ranking.model.kind, "ranking.model.kind")?;
        judges_embeddings(config)?;
        let ground = Ground::new(config, data, Some(eyes), progress)?;
        let trained =
            train_in::<Micro<Backend>>(config, &ground, folder, devices, progress, interrupt)?;
        Ok(Self::over(ground, trained.model, trained.report))
    }

    /// Opens the ranking model in `folder`.
    ///
    /// # Errors
    /// When there is none, it does not look at pictures, or it was trained on other data.
    pub fn open(
        config: &RunConfig,
        data: &DataSet,
        eyes: &Eyes,
        folder: &Path,
        device: &Device<Backend>,
        progress: &dyn Progress,
    ) -> anyhow::Result<Self> {
        let description = Description::read(folder)?;
        let place = folder.display().to_string();
        judges_pictures(description.config.kind, &place)?;
        judges_embeddings(config)?;
        let ground = Ground::new(config, data, Some(eyes), progress)?;
        let (model, report) = open_in(description, &ground, folder, device)?;
        Ok(Self::over(ground, model, report))
    }

    fn over(ground: Ground, model: RankingModel<Backend>, report: RecommenderReport) -> Self {
        Self {
            users: ground.rows_of_users(),
            discriminator: MicroDiscriminator::new(model, ground.items.clone()),
            items: ground.items,
            split: ground.split,
            report,
        }
    }

    /// A digest of the weights in `folder`.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn fingerprint(folder: &Path) -> anyhow::Result<String> {
        let path = folder.join(kinds::WEIGHTS);
        let bytes =
            std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        Ok(format!("{:x}", Sha256::digest(&bytes)))
    }

    /// That nothing asks for a ranking model where there is none.
    ///
    /// # Errors
    /// When several drawings are to be made, which it would choose from.
    pub fn needed_to_choose(config: &RunConfig) -> anyhow::Result<()> {
        let candidates = config.inference.candidates;
        anyhow::ensure!(
            candidates <= 1,
            "inference.candidates = {candidates}: the ranking model chooses among drawings, and models.ranking = \"{}\" is not there; \
             train one with `ragar rank train --out {0}`, or set inference.candidates to 1",
            config.models.ranking.display()
        );
        Ok(())
    }

    /// The row of a user, if the interactions know it.
    pub fn user(&self, user: &str) -> Option<usize> {
        self.users.get(user).copied()
    }
}

/// Pictures can be judged by the paper's ranking model alone.
fn judges_pictures(kind: RecommenderKind, place: &str) -> anyhow::Result<()> {
    anyhow::ensure!(
        kind == RecommenderKind::Micro,
        "{place}: a {kind} model cannot judge a picture in an item's place; train one with `--set ranking.model.kind=micro`"
    );
    Ok(())
}

/// Pictures can be judged only among features that the networks made.
fn judges_embeddings(config: &RunConfig) -> anyhow::Result<()> {
    anyhow::ensure!(
        !config.ranking.has_feature_file(),
        "ranking.features = \"{}\": no new picture can be embedded as this file was; leave the key empty to use models.clip",
        config.ranking.features.display()
    );
    Ok(())
}
