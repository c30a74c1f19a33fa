//! `ragar generate`: one item re-drawn for one user.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use burn::tensor::Tensor;
use serde::Serialize;

use crate::app::assembly::choice::{choice, chooser};
use crate::app::assembly::{
    DataSet, Eyes, Generation, Language, Ranking, features, preference, samples,
};
use crate::app::backend::Backend;
use crate::app::config::RunConfig;
use crate::app::files;
use crate::app::pictures::png_with_facts;
use crate::app::session::Session;
use crate::data::history::{History, Split};
use crate::data::pixels::to_pictures;
use crate::generation::drawing::Drawing;

#[derive(Serialize)]
struct Drawn<'a> {
    file: PathBuf,
    user: &'a str,
    reference: &'a str,
    keywords: &'a [String],
    summary: &'a str,
    /// What the generator is told.
    prompt: &'a str,
    /// Items of the history that retrieval kept, the most related first.
    retrieved: Vec<&'a str>,
    seed: u64,
    /// The digest of the trained weights.
    checkpoint: &'a str,
}

/// Draws `reference` (the user's own reference where none is named) for `user` (the first of the test split) with the
/// preference model in `run`.
pub fn run(
    session: &Session,
    run: &Path,
    user: Option<&str>,
    reference: Option<&str>,
    out: &Path,
) -> anyhow::Result<()> {
    let config = &session.config_of(run)?;
    let devices = session.devices()?;
    let data = DataSet::open(&config.data, session.output)?;
    let folder = data.folder();
    let mut history = match user {
        Some(user) => folder.history_of(user)?.clone(),
        None => {
            let users = data.users(Split::Test, 1);
            let first = users.first().copied().or(folder.histories.first());
            first.context("histories.jsonl has no user")?.clone()
        }
    };
    if let Some(id) = reference {
        history.reference = folder.catalogue.position(id).with_context(|| {
            let near = folder
                .catalogue
                .iter()
                .map(|item| (strsim::jaro_winkler(id, &item.id), &item.id))
                .max_by(|a, b| a.0.total_cmp(&b.0));
            let near = near.map_or_else(String::new, |(_, id)| format!("; did you mean `{id}`?"));
            format!("there is no item `{id}` in {}{near}", folder.root.display())
        })?;
    }
    let frozen = &devices.frozen;
    let watcher = session.output.watcher();
    let eyes = Eyes::open(&config.models, frozen)?;
    let generation = Generation::open(&config.models, frozen)?;
    let reader = Language::open(&config.models, frozen)?;
    let language = reader.tracked();
    let model = preference::open(config, run, &language, &generation, &devices.train)?;
    let checkpoint = preference::fingerprint(run)?;
    let words = samples::items_of(&[&history]);
    let items = features::prepare(config, &data, &eyes, &reader, &words, frozen, &watcher)?;
    let ranking = match config.inference.candidates {
        // Nobody is ranked here, so any row of the ranking model will do.
        1 => None,
        _ => {
            let place = &config.models.ranking;
            if !place.exists() {
                Ranking::needed_to_choose(config)?;
            }
            let opened = Ranking::open(config, &data, &eyes, place, frozen, &watcher)?;
            can_choose(config, &opened, &history, &data)?;
            Some(opened)
        }
    };
    let samples = samples::samples(
        config,
        &data,
        &reader,
        &items,
        |user| match &ranking {
            Some(ranking) => ranking.user(user),
            None => Some(0),
        },
        &[&history],
        session.output,
    )?;
    let (_, sample) = samples.first().context("the user gives no sample")?;

    let text = generation.text(&eyes);
    let options = config.inference.options();
    let references =
        generation.references(&data, std::iter::once(sample), config.inference.strength)?;
    let visual = eyes.encoder();
    let inference = &config.inference;
    let ranking = ranking.as_ref();
    let chooser = ranking.map(|ranking| chooser(inference, &visual, ranking));
    let drawing = Drawing {
        generator: &generation.generator,
        text: &text,
        options: &options,
        references: references.as_ref(),
        latent_shape: generation.latent_shape,
        images_per_batch: inference.images_per_batch,
        choice: chooser.as_ref().and_then(|own| choice(inference, own)),
        seed: config.inference.seed,
        device: frozen,
    };
    let mut pictures = Vec::new();
    drawing
        .personalised(&model, &[sample], |images: Tensor<Backend, 4>| {
            pictures.extend(to_pictures(images));
        })
        .context("inference.num_steps")?;
    let picture = pictures.first().context("nothing was drawn")?;
    let catalogue = &folder.catalogue;
    let facts = [
        (
            "Software",
            concat!("ragar ", env!("CARGO_PKG_VERSION")).into(),
        ),
        ("user", history.user.clone()),
        ("reference", catalogue[history.reference].id.clone()),
        ("keywords", sample.keywords.join(", ")),
        ("prompt", sample.global_prompt.clone()),
        ("seed", config.inference.seed.to_string()),
        ("steps", config.inference.num_steps.to_string()),
        ("guidance", config.inference.guidance_scale.to_string()),
        ("guidance rescale", inference.guidance_rescale.to_string()),
        ("candidates", inference.candidates.to_string()),
        ("strength", config.inference.strength.to_string()),
        ("scheduler", word(&config.inference.scheduler)),
        ("checkpoint", checkpoint.clone()),
        ("generator", generation.fingerprint.clone()),
    ];
    files::write(out, &png_with_facts(picture, &facts)?)?;
    let drawn = Drawn {
        file: out.to_path_buf(),
        user: &history.user,
        reference: &catalogue[history.reference].id,
        keywords: &sample.keywords,
        summary: &sample.summary,
        prompt: &sample.global_prompt,
        retrieved: sample
            .retrieved
            .iter()
            .map(|place| catalogue[history.history[*place]].id.as_str())
            .collect(),
        seed: config.inference.seed,
        checkpoint: &checkpoint,
    };
    let text = format!(
        "{}: {} for user {}\n  keywords: {}\n  retrieved: {}\n  prompt: {}",
        out.display(),
        drawn.reference,
        drawn.user,
        drawn.keywords.join(", "),
        drawn.retrieved.join(", "),
        drawn.prompt
    );
    session.output.result(text, &drawn)
}

/// That the ranking model can judge this item for this user.
fn can_choose(
    config: &RunConfig,
    ranking: &Ranking,
    history: &History,
    data: &DataSet,
) -> anyhow::Result<()> {
    let candidates = config.inference.candidates;
    anyhow::ensure!(
        ranking.user(&history.user).is_some() && ranking.discriminator.covers(history.reference),
        "inference.candidates = {candidates}: the ranking model in {} chooses among drawings, and does not know user {} or item {}; \
         set inference.candidates to 1",
        config.models.ranking.display(),
        history.user,
        data.folder().catalogue[history.reference].id
    );
    Ok(())
}

/// A choice as the configuration spells it.
fn word(choice: &impl Serialize) -> String {
    let value = serde_json::to_value(choice).unwrap_or_default();
    value.as_str().map_or_else(|| value.to_string(), Into::into)
}
