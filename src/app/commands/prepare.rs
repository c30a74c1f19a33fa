//! `ragar prepare`: captions, embeddings and keywords of every item, into the feature store.

use serde::Serialize;

use crate::app::assembly::{DataSet, Eyes, Language, features};
use crate::app::session::Session;

#[derive(Serialize)]
struct Prepared<'a> {
    items: usize,
    seconds: f64,
    first: Vec<Example<'a>>,
}

#[derive(Serialize)]
struct Example<'a> {
    item: &'a str,
    caption: &'a str,
    keywords: &'a str,
}

/// Computes what is missing and shows the first few.
pub fn run(session: &Session) -> anyhow::Result<()> {
    let started = std::time::Instant::now();
    let config = &session.config;
    let devices = session.devices()?;
    let data = DataSet::open(&config.data, session.output)?;
    let eyes = Eyes::open(&config.models, &devices.frozen)?;
    let language = Language::open(&config.models, &devices.frozen)?;
    let watcher = session.output.watcher();
    let all = (0..data.folder().catalogue.len()).collect();
    let device = &devices.frozen;
    let items = features::prepare(config, &data, &eyes, &language, &all, device, &watcher)?;
    let catalogue = &data.folder().catalogue;
    let first = catalogue.iter().enumerate().take(5);
    let prepared = Prepared {
        items: items.len(),
        seconds: started.elapsed().as_secs_f64(),
        first: first
            .map(|(place, item)| Example {
                item: &item.id,
                caption: &items.captions[place],
                keywords: &items.keywords[place],
            })
            .collect(),
    };
    let mut text = format!(
        "{} items are prepared ({:.1} s). For example:\n",
        prepared.items, prepared.seconds
    );
    for example in &prepared.first {
        text += &format!(
            "  {}: {} | {}\n",
            example.item, example.caption, example.keywords
        );
    }
    session.output.result(text, &prepared)
}
