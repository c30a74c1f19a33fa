//! The ranking model over a data folder: trained, saved, loaded.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use anyhow::Context as _;
use burn::tensor::Device;
use model_import::{Checkpoint, KeyMap, SaveDtype, load_into, save_from};
use serde::{Deserialize, Serialize};

use super::{DataSet, Eyes, features};
use crate::app::backend::{Backend, Devices};
use crate::app::config::RunConfig;
use crate::app::failure::Interrupted;
use crate::app::files;
use crate::optimisation::{CheckpointStore, Interrupt, MetricsLog, Progress};
use crate::recommender::{
    FeatureTable, InteractionSplit, ItemFeatures, ItemSelection, Micro, MicroConfig, RankingModel,
};
use crate::reflection::discriminator::MicroDiscriminator;
use crate::training::recommender::{
    RecommenderReport, RecommenderTrainingError, TrainingSurroundings, train,
};

const WEIGHTS: &str = "model.safetensors";
const DESCRIPTION: &str = "ranking.json";

/// A trained ranking model over the items that are not held out.
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

/// What stands beside the weights.
#[derive(Debug, Serialize, Deserialize)]
struct Description {
    config: MicroConfig,
    users: Vec<String>,
    items: Vec<String>,
    report: RecommenderReport,
}

/// What a ranking model is built over.
struct Ground {
    users: Vec<String>,
    item_ids: Vec<String>,
    items: ItemSelection,
    features: ItemFeatures,
    split: InteractionSplit,
}

impl Ground {
    fn new(
        config: &RunConfig,
        data: &DataSet,
        eyes: &Eyes,
        progress: &dyn Progress,
    ) -> anyhow::Result<Self> {
        let catalogue = &data.folder().catalogue;
        let store = features::store(config);
        let pictures = features::pictures(data, config)?;
        let batch_size = config.features.batch_size;
        let image = eyes
            .visual()
            .embeddings(&pictures, batch_size, &store, progress)?;
        let texts: Vec<&str> = catalogue.iter().map(|item| item.text.as_str()).collect();
        let text = eyes
            .semantic()
            .embeddings(&texts, batch_size, &store, progress)?;

        let keep: Vec<bool> = (0..catalogue.len())
            .map(|item| !data.is_held_out(item))
            .collect();
        let items = ItemSelection::new(&keep);
        let table = |name: &'static str, rows: &[Vec<f32>]| {
            let width = rows.first().map_or(0, Vec::len);
            let values = items.select(&rows.concat(), width);
            FeatureTable::new(name, items.len(), width, values)
        };
        let features = ItemFeatures::new(table("image", &image)?, table("text", &text)?)?;
        let (users, by_user) = data.interactions();
        let training = &config.ranking.training;
        let split = items
            .interactions(&by_user)?
            .leave_last(training.validation_items, training.test_items);
        let item_ids = items.places().iter();
        Ok(Self {
            users,
            item_ids: item_ids.map(|place| catalogue[*place].id.clone()).collect(),
            items,
            features,
            split,
        })
    }
}

impl Ranking {
    /// Trains a ranking model in `folder`, or goes on with one, and saves it there.
    ///
    /// # Errors
    /// Data that cannot be trained on, a diverging loss, a full disk, an interruption.
    pub fn train(
        config: &RunConfig,
        data: &DataSet,
        eyes: &Eyes,
        folder: &Path,
        devices: &Devices,
        progress: &dyn Progress,
        interrupt: &Interrupt,
    ) -> anyhow::Result<Self> {
        let ground = Ground::new(config, data, eyes, progress)?;
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
        let trained = train::<Backend, Micro<Backend>>(
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
        Ok(Self::over(ground, trained.model, trained.report))
    }

    /// Opens the ranking model in `folder`.
    ///
    /// # Errors
    /// When there is none, or it was trained on other data.
    pub fn open(
        config: &RunConfig,
        data: &DataSet,
        eyes: &Eyes,
        folder: &Path,
        device: &Device<Backend>,
        progress: &dyn Progress,
    ) -> anyhow::Result<Self> {
        let path = folder.join(DESCRIPTION);
        let bytes = std::fs::read(&path).with_context(|| {
            format!(
                "models.ranking = \"{}\": no ranking model there; train one with `ragar rank train --out {0}`",
                folder.display()
            )
        })?;
        let description: Description = serde_json::from_slice(&bytes)
            .with_context(|| format!("{}: not a ranking model", path.display()))?;
        let ground = Ground::new(config, data, eyes, progress)?;
        anyhow::ensure!(
            description.items == ground.item_ids && description.users == ground.users,
            "{}: trained on other data ({} users and {} items, {} has {} and {}): train it again with `ragar rank train`",
            path.display(),
            description.users.len(),
            description.items.len(),
            config.data.folder.display(),
            ground.users.len(),
            ground.item_ids.len()
        );
        let mut micro = Micro::<Backend>::new(
            &description.config,
            ground.users.len(),
            &ground.features,
            device,
        );
        let weights = Checkpoint::open(&folder.join(WEIGHTS))?;
        load_into(&mut micro, &weights, &KeyMap::identity())?;
        let model = RankingModel::new(
            description.config,
            micro,
            ground.features.clone(),
            ground.split.train.clone(),
            device,
        )?;
        Ok(Self::over(ground, model, description.report))
    }

    fn over(ground: Ground, model: RankingModel<Backend>, report: RecommenderReport) -> Self {
        let users = ground.users.into_iter().enumerate();
        Self {
            discriminator: MicroDiscriminator::new(model, ground.items.clone()),
            items: ground.items,
            split: ground.split,
            report,
            users: users.map(|(row, user)| (user, row)).collect(),
        }
    }

    /// The row of a user, if the interactions know it.
    pub fn user(&self, user: &str) -> Option<usize> {
        self.users.get(user).copied()
    }
}
