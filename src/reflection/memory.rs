//! What outlives a step: judgements that never change, and the scale of the advantages.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::generation::sample::Sample;

use super::reward::{Judgement, RunningDeviation};

/// What outlives a step.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Memory {
    /// Judgements of reference and keyword image by user, then reference: they never change.
    judged: BTreeMap<String, BTreeMap<usize, [Judgement; 2]>>,
    /// Scale of the advantages.
    pub deviation: RunningDeviation,
}

impl Memory {
    /// The judgements of the sample's reference and keyword image, where they were made before.
    pub fn known(&self, sample: &Sample) -> Option<[Judgement; 2]> {
        let references = self.judged.get(&sample.user)?;
        references.get(&sample.reference).copied()
    }

    pub(super) fn learn(&mut self, sample: &Sample, judged: [Judgement; 2]) {
        let references = self.judged.entry(sample.user.clone()).or_default();
        references.insert(sample.reference, judged);
    }
}
