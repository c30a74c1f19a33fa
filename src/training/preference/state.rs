//! What a run is beside its weights, and how all of it is saved and taken up again.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use burn::module::AutodiffModule as _;
use burn::tensor::Device;
use burn::tensor::backend::AutodiffBackend;
use serde::{Deserialize, Serialize};

use super::error::TrainingError;
use super::guards::Guards;
use super::validation::Best;
use crate::generation::preference::PreferenceModel;
use crate::optimisation::parameters::{self, NamedTensors, Selection};
use crate::optimisation::{AdamW, Checkpoint, ParameterAverage};
use crate::reflection::memory::Memory;

/// Everything of a run that is not a tensor. The sampler and all noise depend on the step's number alone.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct State {
    pub memory: Memory,
    pub guards: Guards,
    pub best: Option<Best>,
    /// Validations since the best.
    pub stale: usize,
    /// Early stopping has ended the run.
    pub stopped: bool,
    /// What the probe found, where it was asked.
    pub micro_batch: Option<usize>,
}

/// A run between two steps.
pub(super) struct Run<B: AutodiffBackend> {
    pub model: PreferenceModel<B>,
    pub optimizer: AdamW<B>,
    pub average: Option<ParameterAverage<B::InnerBackend>>,
    pub state: State,
    /// Steps taken.
    pub step: usize,
}

impl<B: AutodiffBackend> Run<B> {
    /// The model without a graph, as it is judged and saved: its average where one is kept.
    pub fn shown(&self) -> PreferenceModel<B::InnerBackend> {
        let model = self.model.valid();
        match &self.average {
            Some(average) if self.step > 0 => average.apply(model),
            _ => model,
        }
    }

    pub fn checkpoint(&self) -> Checkpoint {
        let parameters = parameters::collect::<B, _>(&self.model, Selection::Trainable);
        let mut tensors = vec![
            ("parameters".to_string(), parameters),
            ("optimizer".to_string(), self.optimizer.state(&self.model)),
        ];
        if let Some(average) = &self.average {
            tensors.push(("average".into(), average.state(&self.model.valid())));
        }
        Checkpoint {
            step: self.step,
            tensors: tensors.into_iter().collect(),
            values: serde_json::to_value(&self.state).unwrap_or_default(),
        }
    }

    /// What trains, as [`Run::shown`] has it.
    pub fn shown_parameters(&self) -> NamedTensors {
        let trainable = parameters::trainable::<B, _>(&self.model);
        parameters::collect_of::<B::InnerBackend, _>(&self.shown(), &trainable)
    }

    /// Takes up `checkpoint`, read from `folder`.
    pub fn restore(
        mut self,
        checkpoint: &Checkpoint,
        folder: &Path,
        device: &Device<B::InnerBackend>,
    ) -> Result<Self, TrainingError> {
        let selection = Selection::Trainable;
        self.model =
            parameters::restore::<B, _>(self.model, &checkpoint.group("parameters"), selection)?;
        let moments = checkpoint.group("optimizer");
        self.optimizer
            .restore(&self.model, &moments, checkpoint.step, device)?;
        if let Some(average) = &mut self.average
            && checkpoint.step > 0
        {
            let values = checkpoint.group("average");
            average.restore(&self.model.valid(), &values, checkpoint.step, device)?;
        }
        self.state = serde_json::from_value(checkpoint.values.clone()).map_err(|source| {
            TrainingError::State {
                path: folder.join(format!("step-{}", checkpoint.step)),
                source,
            }
        })?;
        self.step = checkpoint.step;
        Ok(self)
    }
}

/// Steps that are left out since a rollback blamed them. They outlive the checkpoint gone back to.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Rollbacks {
    /// Steps whose batch ruined the run.
    pub skipped: BTreeSet<usize>,
}

impl Rollbacks {
    /// Those of the run in `folder`; none where nothing was rolled back.
    pub fn open(folder: &Path) -> Result<Self, TrainingError> {
        let path = Self::path(folder);
        match fs::read(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Self::default()),
            Err(source) => Err(TrainingError::File { path, source }),
            Ok(bytes) => serde_json::from_slice(&bytes)
                .map_err(|source| TrainingError::State { path, source }),
        }
    }

    pub fn save(&self, folder: &Path) -> Result<(), TrainingError> {
        write_json(&Self::path(folder), self)
    }

    fn path(folder: &Path) -> PathBuf {
        folder.join("rollbacks.json")
    }
}

/// Writes aside, then renames.
pub(super) fn write_json(path: &Path, value: &impl Serialize) -> Result<(), TrainingError> {
    let at = |source| TrainingError::File {
        path: path.to_path_buf(),
        source,
    };
    let aside = path.with_extension("json.tmp");
    let text = serde_json::to_vec_pretty(value).map_err(|error| at(error.into()))?;
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(at)?;
    }
    fs::write(&aside, text).map_err(at)?;
    fs::rename(&aside, path).map_err(at)
}
