//! Any kind of ranking model in a folder: trained, saved, opened.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Context as _;
use burn::tensor::Device;
use model_import::{Checkpoint, KeyMap, SaveDtype, load_into, save_from};
use serde::{Deserialize, Serialize};

use super::Ground;
use crate::app::backend::{Backend, Devices};
use crate::app::config::RunConfig;
use crate::app::failure::Interrupted;
use crate::app::files;
use crate::optimisation::{CheckpointStore, Interrupt, MetricsLog, Progress};
use crate::recommender::{
    Embeddings, Lattice, LightGcnRecommender, MatrixFactorisation, Micro, MicroConfig, Popularity,
    RankingModel, Recommender, RecommenderKind, TrainableRecommender,
};
use crate::training::recommender::{
    RecommenderReport, RecommenderTrainingError, TrainedRecommender, TrainingSurroundings, train,
};

pub(super) const WEIGHTS: &str = "model.safetensors";
const DESCRIPTION: &str = "ranking.json";

/// What stands beside the weights.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Description {
    pub config: MicroConfig,
    pub users: Vec<String>,
    pub items: Vec<String>,
    pub report: RecommenderReport,
}

impl Description {
    /// Reads what `folder` holds.
    pub fn read(folder: &Path) -> anyhow::Result<Self> {
        let path = folder.join(DESCRIPTION);
        let bytes = std::fs::read(&path).with_context(|| {
            format!(
                "models.ranking = \"{}\": no ranking model there; train one with `ragar rank train --out {0}`",
                folder.display()
            )
        })?;
        serde_json::from_slice(&bytes)
            .with_context(|| format!("{}: not a ranking model", path.display()))
    }

    fn check(&self, folder: &Path, ground: &Ground) -> anyhow::Result<()> {
        anyhow::ensure!(
            self.items == ground.item_ids && self.users == ground.users,
            "{}: trained on other data ({} users and {} items, data.folder has {} and {}): train it again with `ragar rank train`",
            folder.join(DESCRIPTION).display(),
            self.users.len(),
            self.items.len(),
            ground.users.len(),
            ground.item_ids.len()
        );
        Ok(())
    }
}

/// A ranking model of any kind, as far as ranking goes.
#[derive(Debug)]
pub struct AnyRanking {
    /// Which one.
    pub kind: RecommenderKind,
    /// Its final vectors.
    pub embeddings: Embeddings<Backend>,
    /// How training went.
    pub report: RecommenderReport,
}

impl AnyRanking {
    /// Trains the configured kind in `folder`, or goes on with it, and saves it there.
    ///
    /// # Errors
    /// Data that cannot be trained on, a diverging loss, a full disk, an interruption.
    pub fn train(
        config: &RunConfig,
        ground: &Ground,
        folder: &Path,
        devices: &Devices,
        progress: &dyn Progress,
        interrupt: &Interrupt,
    ) -> anyhow::Result<Self> {
        fn reduced<R: TrainableRecommender<Backend>>(
            trained: anyhow::Result<TrainedRecommender<Backend, R>>,
        ) -> anyhow::Result<AnyRanking> {
            let trained = trained?;
            Ok(AnyRanking {
                kind: R::KIND,
                embeddings: trained.model.embeddings().clone(),
                report: trained.report,
            })
        }
        macro_rules! train_as {
            ($network:ty) => {
                reduced(train_in::<$network>(
                    config, ground, folder, devices, progress, interrupt,
                ))
            };
        }
        match config.ranking.model.kind {
            RecommenderKind::Micro => train_as!(Micro<Backend>),
            RecommenderKind::Lattice => train_as!(Lattice<Backend>),
            RecommenderKind::LightGcn => train_as!(LightGcnRecommender<Backend>),
            RecommenderKind::MatrixFactorisation => train_as!(MatrixFactorisation<Backend>),
            RecommenderKind::Popularity => train_as!(Popularity<Backend>),
        }
    }

    /// Opens whatever kind of ranking model `folder` holds.
    ///
    /// # Errors
    /// When there is none, or it was trained on other data.
    pub fn open(ground: &Ground, folder: &Path, device: &Device<Backend>) -> anyhow::Result<Self> {
        fn reduced<R: Recommender<Backend>>(
            opened: anyhow::Result<(RankingModel<Backend, R>, RecommenderReport)>,
        ) -> anyhow::Result<AnyRanking> {
            let (model, report) = opened?;
            Ok(AnyRanking {
                kind: R::KIND,
                embeddings: model.embeddings().clone(),
                report,
            })
        }
        let description = Description::read(folder)?;
        macro_rules! open_as {
            ($network:ty) => {
                reduced(open_in::<$network>(description, ground, folder, device))
            };
        }
        match description.config.kind {
            RecommenderKind::Micro => open_as!(Micro<Backend>),
            RecommenderKind::Lattice => open_as!(Lattice<Backend>),
            RecommenderKind::LightGcn => open_as!(LightGcnRecommender<Backend>),
            RecommenderKind::MatrixFactorisation => open_as!(MatrixFactorisation<Backend>),
            RecommenderKind::Popularity => open_as!(Popularity<Backend>),
        }
    }
}

/// Trains `R` in `folder`, or goes on with it, and saves it there.
pub(super) fn train_in<R: TrainableRecommender<Backend>>(
    config: &RunConfig,
    ground: &Ground,
    folder: &Path,
    devices: &Devices,
    progress: &dyn Progress,
    interrupt: &Interrupt,
) -> anyhow::Result<TrainedRecommender<Backend, R>> {
    let identity = (&config.ranking, &ground.users, &ground.item_ids);
    let store = CheckpointStore::new(&folder.join("checkpoints"), &identity, 2);
    let metrics = folder.join("metrics.jsonl");
    std::fs::create_dir_all(folder)
        .with_context(|| format!("cannot write {}", folder.display()))?;
    let from = store
        .latest(&mut Vec::new())?
        .map_or(0, |checkpoint| checkpoint.step + 1);
    let mut log = MetricsLog::open(&metrics, from)
        .with_context(|| format!("cannot write {}", metrics.display()))?;
    let trained = train::<Backend, R>(
        &config.ranking.model,
        &config.ranking.training,
        &ground.features,
        &ground.split,
        &devices.train,
        &devices.frozen,
        TrainingSurroundings {
            checkpoints: Some(&store),
            log: Some(&mut log),
            interrupt,
            progress,
        },
    )
    .map_err(|error| match error {
        RecommenderTrainingError::Interrupted { epoch } => Interrupted(format!(
            "interrupted after epoch {epoch}, all saved: run the same command again to go on"
        ))
        .into(),
        other => anyhow::Error::from(other),
    })?;
    save_from::<Backend, _>(
        trained.model.network(),
        &folder.join(WEIGHTS),
        &KeyMap::identity(),
        SaveDtype::F32,
        &BTreeMap::new(),
    )?;
    let description = Description {
        config: config.ranking.model.clone(),
        users: ground.users.clone(),
        items: ground.item_ids.clone(),
        report: trained.report.clone(),
    };
    files::write_json(&folder.join(DESCRIPTION), &description)?;
    Ok(trained)
}

/// The model of kind `R` in `folder`, and how its training went.
pub(super) fn open_in<R: Recommender<Backend>>(
    description: Description,
    ground: &Ground,
    folder: &Path,
    device: &Device<Backend>,
) -> anyhow::Result<(RankingModel<Backend, R>, RecommenderReport)> {
    description.check(folder, ground)?;
    let config = description.config;
    let history = ground.split.train.clone();
    let mut network = R::initial(&config, &history, &ground.features, device);
    let weights = Checkpoint::open(&folder.join(WEIGHTS))?;
    load_into(&mut network, &weights, &KeyMap::identity())?;
    let features = ground.features.clone();
    let model = RankingModel::new(config, network, features, history, device)?;
    Ok((model, description.report))
}
