//! What a run writes for those who watch: JSON lines, and the same as TensorBoard event files.

use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::Value;

use super::error::TrainingError;
use super::validation::Validation;
use crate::optimisation::tensorboard::EventLog;
use crate::optimisation::{Journal, MetricsLog};

/// `metrics.jsonl`, `validation.jsonl`, `events.jsonl` and `tensorboard/` of a run.
pub(super) struct RunLog {
    folder: PathBuf,
    metrics: MetricsLog,
    validation: MetricsLog,
    journal: Journal,
    events: EventLog,
}

impl RunLog {
    /// Goes on at step `step`: what was written of it and later is forgotten. What comes before it, the validation after
    /// `step` steps included, stays where the run has `begun`.
    pub fn open(folder: &Path, step: usize, begun: bool) -> Result<Self, TrainingError> {
        let at = |name: &str, source| TrainingError::File {
            path: folder.join(name),
            source,
        };
        std::fs::create_dir_all(folder).map_err(|e| at("", e))?;
        let open =
            |name: &str, from| MetricsLog::open(&folder.join(name), from).map_err(|e| at(name, e));
        let events = EventLog::open(&folder.join(TENSORBOARD), step);
        Ok(Self {
            metrics: open(METRICS, step)?,
            validation: open(VALIDATION, step + usize::from(begun))?,
            journal: Journal::new(&folder.join(JOURNAL)),
            events: events.map_err(|e| at(TENSORBOARD, e))?,
            folder: folder.to_path_buf(),
        })
    }

    /// The numbers of a step.
    pub fn step(&mut self, number: usize, record: &impl Serialize) -> Result<(), TrainingError> {
        let written = self.metrics.write(number, record);
        written.map_err(|e| self.at(METRICS, e))?;
        let numbers = numbers(record);
        let tagged = numbers.iter().map(|(tag, value)| (tag.as_str(), *value));
        let written = self.events.scalars(number, tagged);
        written
            .and_then(|()| self.events.flush())
            .map_err(|e| self.at(TENSORBOARD, e))
    }

    /// Scores and pictures after `step` steps.
    pub fn validation(&mut self, step: usize, found: &Validation) -> Result<(), TrainingError> {
        let written = self.validation.write(step, &found.scores);
        written.map_err(|e| self.at(VALIDATION, e))?;
        let tags: Vec<(String, f32)> = found
            .scores
            .iter()
            .map(|(name, score)| (format!("validation/{name}"), *score as f32))
            .collect();
        let tagged = tags.iter().map(|(tag, value)| (tag.as_str(), *value));
        let mut written = self.events.scalars(step, tagged);
        for picture in &found.pictures {
            let tag = format!("validation/{}", picture.name);
            let (width, height) = (picture.width, picture.height);
            written =
                written.and_then(|()| self.events.image(step, &tag, &picture.png, width, height));
        }
        written
            .and_then(|()| self.events.flush())
            .map_err(|e| self.at(TENSORBOARD, e))
    }

    /// Something that happened.
    pub fn event(&self, step: usize, kind: &str, text: &str) -> Result<(), TrainingError> {
        let written = self.journal.write(step, kind, text);
        written.map_err(|e| self.at(JOURNAL, e))
    }

    fn at(&self, name: &str, source: std::io::Error) -> TrainingError {
        TrainingError::File {
            path: self.folder.join(name),
            source,
        }
    }
}

const METRICS: &str = "metrics.jsonl";
const VALIDATION: &str = "validation.jsonl";
const JOURNAL: &str = "events.jsonl";
const TENSORBOARD: &str = "tensorboard";

/// The numbers among the fields of `record`, under the tags that group them.
fn numbers(record: &impl Serialize) -> Vec<(String, f32)> {
    let Ok(Value::Object(fields)) = serde_json::to_value(record) else {
        return Vec::new();
    };
    let tag = |name: &str| match name.strip_prefix("seconds_") {
        Some(part) => format!("seconds/{part}"),
        None => format!("train/{name}"),
    };
    fields
        .iter()
        .filter_map(|(name, value)| Some((tag(name), value.as_f64()? as f32)))
        .collect()
}
