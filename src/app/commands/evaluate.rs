//! `ragar eval`: scores of a trained preference model on the test users.

use std::path::Path;

use crate::app::assembly::{
    DataSet, Eyes, Generation, Language, Ranking, features, preference, samples,
};
use crate::app::exhibition::{Exhibition, Visitor};
use crate::app::report::ReportData;
use crate::app::session::Session;
use crate::data::history::Split;

/// Draws for the test users with the model in `run` and writes the report to `out`.
pub fn run(session: &Session, run: &Path, out: Option<&Path>) -> anyhow::Result<()> {
    let started = std::time::Instant::now();
    let config = &session.config_of(run)?;
    let out = out.map_or_else(|| run.join("eval"), Path::to_path_buf);
    let devices = session.devices()?;
    let data = DataSet::open(&config.data, session.output)?;
    let watcher = session.output.watcher();
    let frozen = &devices.frozen;
    let eyes = Eyes::open(&config.models, frozen)?;
    let generation = Generation::open(&config.models, frozen)?;
    let language = Language::open(&config.models, frozen)?;
    let ranking = &config.models.ranking;
    let ranking = Ranking::open(config, &data, &eyes, ranking, frozen, &watcher)?;
    let model = preference::open(
        config,
        run,
        &language.tracked(),
        &generation,
        &devices.train,
    )?;
    let histories = data.users(Split::Test, config.evaluation.users);
    anyhow::ensure!(
        !histories.is_empty(),
        "histories.jsonl of {} has no user of split \"test\" to evaluate on",
        config.data.folder.display()
    );
    let words = samples::items_of(&histories);
    let items = features::prepare(config, &data, &eyes, &language, &words, frozen, &watcher)?;
    let samples = samples::samples(
        config,
        &data,
        &language,
        &items,
        |user| ranking.user(user),
        &histories,
        session.output,
    )?;
    let visitors: Vec<Visitor<'_>> = samples
        .into_iter()
        .filter(|(_, sample)| ranking.discriminator.covers(sample.reference))
        .map(|(history, sample)| Visitor { history, sample })
        .collect();
    let exhibition = Exhibition {
        config,
        data: &data,
        eyes: &eyes,
        generation: &generation,
        ranking: &ranking,
        items: &items,
        devices: &devices,
    };
    let works = exhibition.draw(&visitors, &model, &watcher)?;
    let mut report = exhibition.report(&visitors, &works, Some(run))?;
    report
        .seconds
        .push(("Evaluation".into(), started.elapsed().as_secs_f64()));
    show(session, &report, &out)
}

/// Writes the report and prints its tables.
pub fn show(session: &Session, report: &ReportData, out: &Path) -> anyhow::Result<()> {
    let page = report.write(out)?;
    let text = format!("{}\nReport: {}", report.tables_as_text(), page.display());
    session.output.result(text, report)
}
