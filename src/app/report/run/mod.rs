//! The folder of a training as a report: whatever of it is there, also while the training still runs.

mod curves;
mod pictures;

use std::path::Path;

use anyhow::Context as _;
use serde_json::Value;

use super::{Event, Fact, ReportData};
use crate::app::assembly::preference;

/// What the folder of a `ragar train` has to show. Parts that are missing or broken are left out.
///
/// # Errors
/// When there is no such folder.
pub fn of_run(folder: &Path) -> anyhow::Result<ReportData> {
    let there = std::fs::metadata(folder).is_ok_and(|data| data.is_dir());
    anyhow::ensure!(
        there,
        "{} is not there: name the folder of a `ragar train`",
        folder.display()
    );
    let metrics = lines(&folder.join("metrics.jsonl"));
    let validation = lines(&folder.join("validation.jsonl"));
    let events = events(&lines(&folder.join("events.jsonl")));
    let configuration = text(&folder.join("config.toml"));
    let name = folder.canonicalize().with_context(|| {
        let place = folder.display();
        format!("{place} cannot be read")
    })?;
    let name = name.file_name().map(|name| name.to_string_lossy());
    let done = metrics.last().and_then(step).map_or(0, |last| last + 1);
    let introduction = match (metrics.is_empty(), preference::finished(folder).is_ok()) {
        (_, true) => "This training has finished.",
        (true, false) => "Nothing has been written yet.",
        (false, false) => "This training has not finished.",
    };
    let mut charts = curves::of_training(&metrics);
    charts.extend(curves::of_validation(&validation));
    let marks: Vec<(f64, String)> = events
        .iter()
        .filter(|event| event.kind != "best")
        .map(|event| (event.step as f64, format!("{}: {}", event.kind, event.text)))
        .collect();
    for chart in &mut charts {
        chart.marks.clone_from(&marks);
    }
    Ok(ReportData {
        title: format!("Training {}", name.unwrap_or_default()),
        introduction: introduction.into(),
        facts: facts(done, &configuration, &validation, &events),
        charts,
        rows: pictures::rows(&folder.join("validation")),
        events,
        configuration,
        ..Default::default()
    })
}

/// The run in a few words.
fn facts(done: usize, configuration: &str, validation: &[Value], events: &[Event]) -> Vec<Fact> {
    let configuration: toml::Table = toml::from_str(configuration).unwrap_or_default();
    let number = |key: &str| configuration.get("training")?.get(key)?.as_integer();
    let mut facts = vec![Fact::new(
        "Steps",
        match number("steps") {
            Some(planned) => format!("{done} of {planned}"),
            None => done.to_string(),
        },
    )];
    if let Some(batch) = number("batch_size") {
        facts.push(Fact::new("Users a step", batch));
    }
    if let Some(seed) = number("seed") {
        facts.push(Fact::new("Seed", seed));
    }
    let folder = |section: &str, key: &str| {
        let value = configuration.get(section)?.get(key)?.as_str()?;
        Some(value.to_string())
    };
    for (label, section, key) in [
        ("Data", "data", "folder"),
        ("Language model", "models", "language_model"),
        ("Generator", "models", "generator"),
    ] {
        facts.extend(folder(section, key).map(|value| Fact::new(label, value)));
    }
    if !validation.is_empty() {
        facts.push(Fact::new("Validations", validation.len()));
    }
    if let Some(last) = events.last() {
        let text = format!("{} at step {}", last.kind, last.step);
        facts.push(Fact::new("Last event", text));
    }
    facts
}

fn events(lines: &[Value]) -> Vec<Event> {
    let word = |line: &Value, key: &str| {
        let value = line.get(key).and_then(Value::as_str);
        value.unwrap_or_default().to_string()
    };
    let event = |line: &Value| {
        Some(Event {
            step: step(line)?,
            kind: word(line, "kind"),
            text: word(line, "text"),
        })
    };
    lines.iter().filter_map(event).collect()
}

/// The step that a line speaks of.
fn step(line: &Value) -> Option<usize> {
    line.get("step")?.as_u64().map(|step| step as usize)
}

/// The whole lines of a log; none where there is no log.
fn lines(path: &Path) -> Vec<Value> {
    let text = text(path);
    let lines = text.lines();
    lines
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect()
}

fn text(path: &Path) -> String {
    let bytes = std::fs::read(path).unwrap_or_default();
    String::from_utf8_lossy(&bytes).into_owned()
}
