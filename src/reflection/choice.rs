//! The reward at inference (ours): of several drawings of a sample, each from its own latent, the best rewarded is kept.
//!
//! What training asks of images (equations 13 and 14) is asked of the finished ones. Reference and keyword image are the same for
//! all candidates of a sample, and every form of the reward rises with the score: score and likeness decide alone.

use burn::tensor::Tensor;
use burn::tensor::backend::Backend;

use super::discriminator::{Case, Discriminator, VisualEncoder};
use crate::generation::choice::{Chooser, best};
use crate::generation::sample::{Sample, rows};
use crate::recommender::neighbours::host;

/// Keeps the candidate with the largest reward, the first in a tie.
pub struct RewardChooser<'a, B: Backend> {
    /// Images to features.
    pub visual: &'a dyn VisualEncoder<B>,
    /// Features to scores.
    pub discriminator: &'a dyn Discriminator<B>,
    /// What a cosine of one with the reference's caption counts beside the score, as `reflection.semantic_reward`.
    pub likeness: f32,
}

impl<B: Backend> Chooser<B> for RewardChooser<'_, B> {
    fn choose(&self, samples: &[&Sample], candidates: usize, images: Tensor<B, 4>) -> Vec<usize> {
        let repeated: Vec<&Sample> = samples
            .iter()
            .flat_map(|sample| std::iter::repeat_n(*sample, candidates))
            .collect();
        let features = self.visual.encode(images);
        let captions = rows(&repeated, |s| &s.reference_semantic, &features.device());
        let likeness = host((features.clone() * captions).sum_dim(1));
        let cases: Vec<Case> = repeated
            .iter()
            .map(|sample| Case {
                user: sample.user_index,
                reference: sample.reference,
            })
            .collect();
        let judged = self.discriminator.judge_all(&cases, features);
        let rewards: Vec<f64> = judged
            .iter()
            .zip(likeness)
            .map(|(judgement, likeness)| f64::from(judgement.score + self.likeness * likeness))
            .collect();
        let of_samples = rewards.chunks(candidates);
        of_samples.map(|own| best(own.iter().copied())).collect()
    }
}
