//! The unified predictor–corrector (Zhao et al., 2023): every output first corrects the step that led to it, then
//! predicts the next. Source: diffusers `UniPCMultistepScheduler`.

use burn::tensor::{Tensor, backend::Backend};

use super::config::{SchedulerConfig, SchedulerError};
use super::prediction::{PredictionType, combine};
use super::sampler::{Sampler, StepNoise};
use super::sigmas::{Levels, NO_DISTANCE};

/// A sampler with its steps laid out and the outputs it remembers.
#[derive(Debug, Clone)]
pub struct UniPc<B: Backend> {
    layout: Levels,
    prediction_type: PredictionType,
    order: usize,
    /// `B(h) = h` in place of `e^h − 1`.
    first_variant: bool,
    lower_order_final: bool,
    uncorrected: Vec<usize>,
    /// The last predictions of the clean sample, the newest first.
    clean: Vec<Tensor<B, 4>>,
    /// The corrected sample before the last prediction, and the order of that.
    before: Option<(Tensor<B, 4>, usize)>,
}

/// What predictor and corrector share of a step from one level to the next.
struct Step {
    /// Weight of the sample.
    keep: f64,
    /// Weight of the clean sample.
    clean: f64,
    /// Weight of what the differences add.
    change: f64,
    /// Places of the earlier levels, in units of the step; then 1 for its end.
    places: Vec<f64>,
    /// Right-hand side of the order conditions.
    conditions: Vec<f64>,
}

impl<B: Backend> UniPc<B> {
    /// `num_steps` sampling steps over the schedule of `config`.
    ///
    /// # Errors
    /// When the configuration is not supported, or the schedule does not have so many steps.
    pub fn new(config: &SchedulerConfig, num_steps: usize) -> Result<Self, SchedulerError> {
        Ok(Self {
            layout: Levels::unipc(config, num_steps)?,
            prediction_type: config.prediction_type,
            order: config.solver_order,
            first_variant: config.solver_type == "bh1",
            lower_order_final: config.lower_order_final,
            uncorrected: config.disable_corrector.clone(),
            clean: Vec::new(),
            before: None,
        })
    }

    /// The step from level `index` to the next, of that order.
    fn toward_next(&self, index: usize, order: usize) -> Step {
        let levels = &self.layout.levels;
        let (here, next) = (levels[index], levels[index + 1]);
        let h = next.lambda - here.lambda;
        let decay = (-h).exp_m1();
        let scale = if self.first_variant { -h } else { decay };
        let mut places: Vec<f64> = (1..order)
            .map(|back| (levels[index - back].lambda - here.lambda) / h)
            .collect();
        places.push(1.0);
        let mut conditions = Vec::with_capacity(order);
        let mut remainder = decay / -h - 1.0;
        let mut factorial = 1.0;
        for power in 1..=order {
            conditions.push(remainder * factorial / scale);
            factorial *= power as f64 + 1.0;
            remainder = remainder / -h - 1.0 / factorial;
        }
        Step {
            keep: next.spread / here.spread,
            clean: -next.signal * decay,
            change: -next.signal * scale,
            places,
            conditions,
        }
    }

    /// `keep · sample + clean · m₀ + change · Σ weightᵢ (mᵢ − m₀) / placeᵢ`, the mᵢ being `clean`, the newest first.
    fn advance(
        step: &Step,
        sample: Tensor<B, 4>,
        clean: &[Tensor<B, 4>],
        weights: &[f64],
    ) -> Tensor<B, 4> {
        let start = &clean[0];
        let mut result = combine([step.keep, step.clean], &sample, start);
        for ((weight, place), earlier) in weights.iter().zip(&step.places).zip(&clean[1..]) {
            let difference = earlier.clone() - start.clone();
            result = result + difference.mul_scalar(step.change * weight / place);
        }
        result
    }

    /// The sample at level `index`, given that the network's output there says `clean`.
    fn correct(&self, index: usize, sample: Tensor<B, 4>, clean: &Tensor<B, 4>) -> Tensor<B, 4> {
        let Some((before, order)) = &self.before else {
            return sample;
        };
        if index == 0 || self.uncorrected.contains(&(index - 1)) {
            return sample;
        }
        let step = self.toward_next(index - 1, *order);
        let weights = match order {
            1 => vec![0.5],
            _ => solve(&step.places, &step.conditions),
        };
        let corrected = Self::advance(&step, before.clone(), &self.clean, &weights[..order - 1]);
        let difference = clean.clone() - self.clean[0].clone();
        corrected + difference.mul_scalar(step.change * weights[order - 1])
    }
}

impl<B: Backend> Sampler<B> for UniPc<B> {
    fn timesteps(&self) -> &[f64] {
        &self.layout.timesteps
    }

    fn mixture(&self, index: usize) -> Option<[f64; 2]> {
        let level = self.layout.levels[index];
        Some([level.signal, level.spread])
    }

    fn step(
        &mut self,
        output: Tensor<B, 4>,
        index: usize,
        sample: Tensor<B, 4>,
        _noise: StepNoise<'_, B>,
    ) -> Tensor<B, 4> {
        let (here, next) = (self.layout.levels[index], self.layout.levels[index + 1]);
        let weights = self.prediction_type.clean(here.signal, here.spread);
        let clean = combine(weights, &sample, &output);
        let sample = self.correct(index, sample, &clean);
        self.clean.insert(0, clean);
        self.clean.truncate(self.order);

        let left = self.layout.timesteps.len() - index;
        let mut order = self.order.min(self.clean.len());
        if self.lower_order_final {
            order = order.min(left);
        }
        if next.sigma == 0.0 {
            // The way to no noise at all is infinitely long on the scale of λ.
            order = 1;
        }
        if (next.lambda - here.lambda).abs() < NO_DISTANCE {
            return sample;
        }
        self.before = Some((sample.clone(), order));
        let step = self.toward_next(index, order);
        let weights = match order {
            1 => Vec::new(),
            2 => vec![0.5],
            _ => solve(&step.places[..order - 1], &step.conditions[..order - 1]),
        };
        Self::advance(&step, sample, &self.clean, &weights)
    }
}

/// Solves `Σⱼ placeⱼ^i xⱼ = conditionᵢ` by elimination with the largest pivot; the places differ, so there is one
/// solution.
fn solve(places: &[f64], conditions: &[f64]) -> Vec<f64> {
    let count = places.len();
    let mut rows: Vec<Vec<f64>> = (0..count)
        .map(|power| {
            let powers = places.iter().map(|place| place.powi(power as i32));
            powers.chain([conditions[power]]).collect()
        })
        .collect();
    for column in 0..count {
        let largest = (column..count)
            .max_by(|&a, &b| rows[a][column].abs().total_cmp(&rows[b][column].abs()))
            .unwrap_or(column);
        rows.swap(column, largest);
        let pivot = rows[column].clone();
        for (place, row) in rows.iter_mut().enumerate() {
            if place != column {
                let factor = row[column] / pivot[column];
                row.iter_mut()
                    .zip(&pivot)
                    .for_each(|(value, above)| *value -= factor * above);
            }
        }
    }
    (0..count).map(|i| rows[i][count] / rows[i][i]).collect()
}
