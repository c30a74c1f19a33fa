//! Captions, embeddings and keywords of items, through the feature store.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use burn::tensor::Device;

use super::networks::{dtype_on, opening};
use super::{DataSet, Eyes, Language};
use crate::app::backend::Backend;
use crate::app::config::RunConfig;
use crate::features::caption::Captioner;
use crate::features::{FeatureStore, Key, Picture};
use crate::generation::keywords::{ChatPrompts, LlamaWriter, item_answers};
use crate::optimisation::Progress;
use crate::preparation::ItemFeatures;
use crate::pretrained::blip2;

/// The store that `[features]` names, else the user's cache folder.
pub fn store(config: &RunConfig) -> FeatureStore {
    let root = match config.features.store.as_os_str().is_empty() {
        false => config.features.store.clone(),
        true => dirs::cache_dir()
            .unwrap_or_else(|| PathBuf::from(".cache"))
            .join("ragar/features"),
    };
    FeatureStore::new(&root)
}

/// Opens the picture file of every item.
///
/// # Errors
/// The first file that cannot be read.
pub fn pictures(data: &DataSet, config: &RunConfig) -> anyhow::Result<Vec<Picture>> {
    let items = data.folder().catalogue.items();
    let open =
        |item: &crate::data::item::Item| Picture::open(&item.image, &config.data.image_limits);
    Ok(items.iter().map(open).collect::<Result<_, _>>()?)
}

/// What the frozen networks say of items: pictures of all, captions and keywords of those in `words`.
///
/// # Errors
/// A network that cannot be loaded, a picture that cannot be used, a full disk.
pub fn prepare(
    config: &RunConfig,
    data: &DataSet,
    eyes: &Eyes,
    language: &Language,
    words: &BTreeSet<usize>,
    device: &Device<Backend>,
    progress: &dyn Progress,
) -> anyhow::Result<ItemFeatures> {
    let store = store(config);
    let batch_size = config.features.batch_size;
    let pictures = pictures(data, config)?;
    let visual = eyes
        .visual()
        .embeddings(&pictures, batch_size, &store, progress)?;

    let places: Vec<usize> = words.iter().copied().collect();
    let (captions, semantic) = captioned(config, data, eyes, &places, device, progress)?;
    let keywords = keywords(config, data, language, &places, &captions, &store, progress)?;

    let count = pictures.len();
    let width = visual.first().map_or(0, Vec::len);
    let mut items = ItemFeatures {
        captions: vec![String::new(); count],
        semantic: vec![vec![0.0; width]; count],
        visual,
        keywords: vec![String::new(); count],
    };
    let rows = captions.into_iter().zip(semantic).zip(keywords);
    for (place, ((caption, embedding), answer)) in places.into_iter().zip(rows) {
        items.captions[place] = caption;
        items.semantic[place] = embedding;
        items.keywords[place] = answer;
    }
    Ok(items)
}

/// Captions of the items at `places`, and what CLIP says of each.
///
/// # Errors
/// As [`prepare`].
pub fn captioned(
    config: &RunConfig,
    data: &DataSet,
    eyes: &Eyes,
    places: &[usize],
    device: &Device<Backend>,
    progress: &dyn Progress,
) -> anyhow::Result<(Vec<String>, Vec<Vec<f32>>)> {
    let store = store(config);
    let batch_size = config.features.batch_size;
    let pictures = pictures(data, config)?;
    let dtype = dtype_on(&config.models, device)?;
    let open = |folder: &Path| blip2::open_in::<Backend>(folder, dtype, device);
    let mut captioner = opening("captioner", &config.models.captioner, "captioner", open)?;
    captioner.fingerprint = config.models.dtype.mark(captioner.fingerprint);
    let captioner = Captioner {
        network: &captioner.network,
        tokenizer: &captioner.tokenizer,
        preprocessing: &captioner.preprocessing,
        fingerprint: &captioner.fingerprint,
        device: device.clone(),
    };
    let chosen: Vec<Picture> = places
        .iter()
        .map(|place| pictures[*place].clone())
        .collect();
    let captions = captioner.captions(&chosen, &config.features.caption, &store, progress)?;
    let texts: Vec<&str> = captions.iter().map(String::as_str).collect();
    let semantic = eyes
        .semantic()
        .embeddings(&texts, batch_size, &store, progress)?;
    Ok((captions, semantic))
}

/// The language model's keyword answer to each of `places`.
fn keywords(
    config: &RunConfig,
    data: &DataSet,
    language: &Language,
    places: &[usize],
    captions: &[String],
    store: &FeatureStore,
    progress: &dyn Progress,
) -> anyhow::Result<Vec<String>> {
    let catalogue = &data.folder().catalogue;
    let asked: Vec<(&str, &str)> = places
        .iter()
        .zip(captions)
        .map(|(place, caption)| (caption.as_str(), catalogue[*place].text.as_str()))
        .collect();
    // Both change the answers; plain prompts keep the name that older stores know.
    let mut settings = config.keywords.max_new_tokens.to_string();
    if config.keywords.chat == ChatPrompts::Auto && language.tokenizer.chat_template().is_some() {
        settings += " chat";
    }
    let fingerprint = config.models.dtype.mark(language.fingerprint.clone());
    let keys: Vec<Key> = asked
        .iter()
        .map(|(caption, text)| {
            let prompt = config.prompts.keyword_prompt(caption, text);
            let parts: [&[u8]; 3] = [
                prompt.as_bytes(),
                fingerprint.as_bytes(),
                settings.as_bytes(),
            ];
            Key::new("keywords", &parts)
        })
        .collect();
    let writer = LlamaWriter::new(&language.model, &language.tokenizer, &config.keywords)?;
    let batch_size = config.keywords.batch_size;
    store.complete("keywords", &keys, batch_size, progress, |batch| {
        let items: Vec<(&str, &str)> = batch.iter().map(|place| asked[*place]).collect();
        Ok(item_answers(&writer, &config.prompts, &items))
    })
}
