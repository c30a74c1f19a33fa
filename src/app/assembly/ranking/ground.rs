//! What a ranking model stands on: a catalogue's features, and who took what.

use std::collections::HashMap;
use std::path::Path;

use anyhow::Context as _;
use model_import::Checkpoint;

use crate::app::assembly::{DataSet, Eyes, features};
use crate::app::config::{RankingConfig, RunConfig};
use crate::optimisation::Progress;
use crate::recommender::{FeatureTable, InteractionSplit, ItemFeatures, ItemSelection};

/// Users, items, features and the split of interactions, all without the items that are held out.
#[derive(Debug)]
pub struct Ground {
    /// Names of the users, a row each.
    pub users: Vec<String>,
    /// Ids of the items, a row each.
    pub item_ids: Vec<String>,
    /// Which items of the catalogue these are.
    pub items: ItemSelection,
    /// Their features.
    pub features: ItemFeatures,
    /// Training, validation and test interactions.
    pub split: InteractionSplit,
}

impl Ground {
    /// Reads interactions and embeds every item, or takes features from the file that `ranking.features`
    /// names; `eyes` are needed in the first case only.
    ///
    /// # Errors
    /// A picture that cannot be used, a feature file that does not fit the catalogue.
    pub fn new(
        config: &RunConfig,
        data: &DataSet,
        eyes: Option<&Eyes>,
        progress: &dyn Progress,
    ) -> anyhow::Result<Self> {
        let catalogue = &data.folder().catalogue;
        let keep: Vec<bool> = (0..catalogue.len())
            .map(|item| !data.is_held_out(item))
            .collect();
        let items = ItemSelection::new(&keep);
        let [image, text] = match eyes {
            Some(eyes) if !config.ranking.has_feature_file() => {
                embedded(config, data, eyes, progress)?
            }
            _ => from_file(&config.ranking, catalogue.len())?,
        };
        let kept = |rows: &[Vec<f32>]| -> Vec<Vec<f32>> {
            let places = items.places().iter();
            places.map(|&place| rows[place].clone()).collect()
        };
        let features = ItemFeatures::new(
            FeatureTable::from_rows("image", &kept(&image))?,
            FeatureTable::from_rows("text", &kept(&text))?,
        )?;
        let (users, by_user) = data.interactions();
        let split = config
            .ranking
            .training
            .split(&items.interactions(&by_user)?);
        let places = items.places().iter();
        Ok(Self {
            users,
            item_ids: places.map(|place| catalogue[*place].id.clone()).collect(),
            items,
            features,
            split,
        })
    }

    /// The row of each user by name.
    pub fn rows_of_users(&self) -> HashMap<String, usize> {
        let users = self.users.iter().enumerate();
        users.map(|(row, user)| (user.clone(), row)).collect()
    }
}

/// Image and text embeddings of the whole catalogue.
fn embedded(
    config: &RunConfig,
    data: &DataSet,
    eyes: &Eyes,
    progress: &dyn Progress,
) -> anyhow::Result<[Vec<Vec<f32>>; 2]> {
    let store = features::store(config);
    let pictures = features::pictures(data, config)?;
    let batch_size = config.features.batch_size;
    let image = eyes
        .visual()
        .embeddings(&pictures, batch_size, &store, progress)?;
    let catalogue = &data.folder().catalogue;
    let texts: Vec<&str> = catalogue.iter().map(|item| item.text.as_str()).collect();
    let text = eyes
        .semantic()
        .embeddings(&texts, batch_size, &store, progress)?;
    Ok([image, text])
}

/// The tables `image` and `text` of the feature file, a row per line of items.csv.
fn from_file(config: &RankingConfig, num_items: usize) -> anyhow::Result<[Vec<Vec<f32>>; 2]> {
    let path: &Path = &config.features;
    let file = Checkpoint::open(path)
        .with_context(|| format!("ranking.features = \"{}\"", path.display()))?;
    let table = |name: &str| -> anyhow::Result<Vec<Vec<f32>>> {
        let data = file.tensor(name).with_context(|| {
            format!(
                "{}: it must hold `image` and `text`, a row of features per item each",
                path.display()
            )
        })?;
        let shape = data.shape.to_vec();
        anyhow::ensure!(
            shape.len() == 2 && shape[0] == num_items && shape[1] > 0,
            "{}: `{name}` has shape {shape:?}, items.csv has {num_items} items: a row per item is needed, in the same order",
            path.display()
        );
        let values: Vec<f32> = data.iter::<f32>().collect();
        Ok(values.chunks(shape[1]).map(<[f32]>::to_vec).collect())
    };
    Ok([table("image")?, table("text")?])
}
