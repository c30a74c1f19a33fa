//! The reward: how far the ranking model prefers an image to the reference and to the keyword image.

use serde::{Deserialize, Serialize};

/// One image as the ranking model sees it in the reference's place.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Judgement {
    /// Score; larger is better.
    pub score: f32,
    /// 1 + the number of items outside the user's training history that score higher.
    pub rank: usize,
}

/// The form of the reward (the paper's formula is lost; all forms are our reading).
#[derive(Debug, Clone, Copy, Serialize, Deserialize, PartialEq, Eq, Default)]
#[serde(rename_all = "kebab-case")]
pub enum RewardForm {
    /// `s_i − max(s_ref, s_K) − δ`.
    #[default]
    Margin,
    /// `−Σ_{x ∈ {ref, K}} max(0, δ − (s_i − s_x))`.
    Hinge,
    /// `(rank_ref − rank_i) / rank_ref − δ`.
    Rank,
}

/// What is subtracted from the reward before it weights a gradient.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, PartialEq, Eq, Default)]
#[serde(rename_all = "kebab-case")]
pub enum Baseline {
    /// Nothing.
    None,
    /// The mean over the batch's rewards. Slightly biased: it contains the reward itself.
    BatchMean,
    /// The mean over the sample's other images; with one image a sample, over the batch's others.
    #[default]
    LeaveOneOut,
}

/// The reward of one image, with the scores it was made of.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Reward {
    /// The value that training raises.
    pub value: f32,
    /// Of the personalised image.
    pub personalised: Judgement,
    /// Of the reference.
    pub reference: Judgement,
    /// Of the keyword image.
    pub keyword: Judgement,
    /// δ.
    pub margin: f32,
    /// Likeness of the image to the reference's caption, where it counts; else 0.
    pub semantic: f32,
}

impl Reward {
    /// The reward with the image's likeness to the reference's caption in it, weighted.
    #[must_use]
    pub fn with_semantic(self, likeness: f32, weight: f32) -> Self {
        Self {
            value: self.value + weight * likeness,
            semantic: likeness,
            ..self
        }
    }
}

/// The reward of an image beside its reference and its keyword image.
pub fn reward(
    form: RewardForm,
    personalised: Judgement,
    reference: Judgement,
    keyword: Judgement,
    margin: f32,
) -> Reward {
    let score = personalised.score;
    let value = match form {
        RewardForm::Margin => score - reference.score.max(keyword.score) - margin,
        RewardForm::Hinge => -[reference, keyword]
            .iter()
            .map(|other| (margin - (score - other.score)).max(0.0))
            .sum::<f32>(),
        RewardForm::Rank => {
            (reference.rank as f32 - personalised.rank as f32) / reference.rank as f32 - margin
        }
    };
    Reward {
        value,
        personalised,
        reference,
        keyword,
        margin,
        semantic: 0.0,
    }
}

/// How the reward of an image changes with its score. A rank has no slope: the score's own stands in for it.
pub fn slope(form: RewardForm, reward: &Reward) -> f32 {
    match form {
        RewardForm::Margin | RewardForm::Rank => 1.0,
        RewardForm::Hinge => [reward.reference, reward.keyword]
            .iter()
            .filter(|other| reward.personalised.score - other.score < reward.margin)
            .count() as f32,
    }
}

/// `A_i`: rewards of a batch (a row per sample, a value per noise) less their baseline.
pub fn advantages(rewards: &[Vec<f32>], baseline: Baseline) -> Vec<Vec<f32>> {
    let count: usize = rewards.iter().map(Vec::len).sum();
    let total: f32 = rewards.iter().flatten().sum();
    let batch_mean = total / count.max(1) as f32;
    rewards
        .iter()
        .map(|row| {
            let sum: f32 = row.iter().sum();
            row.iter()
                .map(|value| match baseline {
                    Baseline::None => *value,
                    Baseline::BatchMean => value - batch_mean,
                    Baseline::LeaveOneOut if row.len() > 1 => {
                        value - (sum - value) / (row.len() - 1) as f32
                    }
                    // One image a sample: the others are those of the batch.
                    Baseline::LeaveOneOut if count > 1 => {
                        value - (total - value) / (count - 1) as f32
                    }
                    Baseline::LeaveOneOut => *value,
                })
                .collect()
        })
        .collect()
}

/// The running deviation of advantages, by which they may be divided.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct RunningDeviation {
    count: u64,
    /// As bits: a checkpoint in JSON must bring back the very same number.
    #[serde(with = "bits")]
    squares: f64,
}

/// A float as the integer of its bits.
mod bits {
    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(value: &f64, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(value.to_bits())
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
        u64::deserialize(deserializer).map(f64::from_bits)
    }
}

impl RunningDeviation {
    /// Takes in values; the deviation of all so far about zero.
    pub fn take(&mut self, values: impl Iterator<Item = f32>) -> f32 {
        for value in values {
            self.count += 1;
            self.squares += f64::from(value).powi(2);
        }
        (self.squares / self.count.max(1) as f64).sqrt().max(1e-6) as f32
    }

    /// Takes in a batch and returns it divided by the deviation so far (about zero, not the mean).
    pub fn normalise(&mut self, advantages: Vec<Vec<f32>>) -> Vec<Vec<f32>> {
        let deviation = self.take(advantages.iter().flatten().copied());
        let scale = |row: Vec<f32>| row.into_iter().map(|value| value / deviation).collect();
        advantages.into_iter().map(scale).collect()
    }
}
