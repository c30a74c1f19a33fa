//! Half-split rotary position embeddings, the form of Hugging Face's Llama (`rotate_half`).
//!
//! The first and second half of a head's channels are the real and imaginary parts; Burn's own
//! `RotaryEncoding` and GGUF files interleave them instead.

use burn::tensor::{DType, Tensor, TensorData, backend::Backend};

use super::host;

/// How the rotation frequencies of a long-context model differ from plain RoPE.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub enum RotaryScaling {
    /// Plain RoPE.
    #[default]
    None,
    /// Every position divided by `factor`.
    Linear {
        /// The context is this many times longer.
        factor: f64,
    },
    /// Llama 3.1: only the slow rotations are divided, with a smooth passage between.
    Llama3 {
        /// The context is this many times longer.
        factor: f64,
        /// Rotations fewer than this per original context are divided by `factor`.
        low_freq_factor: f64,
        /// Rotations more than this per original context stay as they are.
        high_freq_factor: f64,
        /// The context that the base model was trained on, in tokens.
        original_context: usize,
    },
}

/// The rotation frequencies of one attention layer, in radians per position.
///
/// Rotations are relative: shifting all positions of a row changes nothing, so rows padded on the
/// left may count their padding.
#[derive(Debug, Clone, PartialEq)]
pub struct Rotary {
    frequencies: Vec<f32>,
}

impl Rotary {
    /// Frequencies `theta^(−2i / head_width)` for `i < head_width / 2`, then scaled.
    pub fn new(head_width: usize, theta: f64, scaling: RotaryScaling) -> Self {
        let frequencies = (0..head_width / 2)
            .map(|i| theta.powf(-((2 * i) as f64) / head_width as f64))
            .map(|frequency| scaled(frequency, scaling) as f32)
            .collect();
        Self { frequencies }
    }

    /// Cosines and sines for the positions `start..start + length`.
    pub fn tables<B: Backend>(
        &self,
        start: usize,
        length: usize,
        device: &B::Device,
    ) -> RotaryTables<B> {
        let half = self.frequencies.len();
        let mut cosines = Vec::with_capacity(length * half);
        let mut sines = Vec::with_capacity(length * half);
        for position in start..start + length {
            for frequency in &self.frequencies {
                // The product is rounded to f32 first, as the reference does.
                let angle = f64::from(position as f32 * frequency);
                cosines.push(angle.cos() as f32);
                sines.push(angle.sin() as f32);
            }
        }
        let on_device =
            |values| Tensor::from_data(TensorData::new(values, [1, 1, length, half]), device);
        RotaryTables {
            cosines: on_device(cosines),
            sines: on_device(sines),
            spread: Vec::new(),
        }
    }
}

fn scaled(frequency: f64, scaling: RotaryScaling) -> f64 {
    match scaling {
        RotaryScaling::None => frequency,
        RotaryScaling::Linear { factor } => frequency / factor,
        RotaryScaling::Llama3 {
            factor,
            low_freq_factor,
            high_freq_factor,
            original_context,
        } => {
            let turns = original_context as f64 * frequency / std::f64::consts::TAU;
            if turns > high_freq_factor {
                frequency
            } else if turns < low_freq_factor {
                frequency / factor
            } else {
                let smooth = (turns - low_freq_factor) / (high_freq_factor - low_freq_factor);
                (1.0 - smooth) * frequency / factor + smooth * frequency
            }
        }
    }
}

/// Cosines and sines of a run of positions, each `[1, 1, tokens, head width / 2]`.
#[derive(Debug, Clone)]
pub struct RotaryTables<B: Backend> {
    cosines: Tensor<B, 4>,
    sines: Tensor<B, 4>,
    spread: Vec<Spread<B>>,
}

/// The tables over all numbers of a token with so many heads, `[1, tokens, heads · head width]`.
#[derive(Debug, Clone)]
struct Spread<B: Backend> {
    heads: usize,
    cosines: Tensor<B, 3>,
    sines: Tensor<B, 3>,
    /// What changes places and sign of a head's halves, `[head width, head width]`.
    turn: Tensor<B, 2>,
}

impl<B: Backend> RotaryTables<B> {
    /// Prepared for tokens with so many heads, where that is quicker: on the processor with a graph, which keeps these tables once
    /// for all layers.
    pub fn with_heads(mut self, counts: &[usize], dtype: DType) -> Self {
        let device = self.cosines.device();
        if host::is_plain::<B>(&device) || !host::computes::<B>(&device) {
            return self;
        }
        let [_, _, tokens, half] = self.cosines.dims();
        let width = 2 * half;
        let mut turn = vec![0.0f32; width * width];
        for place in 0..half {
            turn[(half + place) * width + place] = -1.0;
            turn[place * width + half + place] = 1.0;
        }
        let turn = Tensor::<B, 2>::from_data(TensorData::new(turn, [width, width]), &device);
        for &heads in counts {
            if self.spread.iter().any(|spread| spread.heads == heads) {
                continue;
            }
            let table = |table: &Tensor<B, 4>| {
                let table = table.clone().reshape([1, tokens, half]).cast(dtype);
                Tensor::cat(vec![table; 2 * heads], 2)
            };
            self.spread.push(Spread {
                heads,
                cosines: table(&self.cosines),
                sines: table(&self.sines),
                turn: turn.clone().cast(dtype),
            });
        }
        self
    }

    /// Rotates queries or keys.
    ///
    /// # Shapes
    /// `[batch, tokens, heads, head width]` in and out.
    pub fn rotate(&self, states: Tensor<B, 4>) -> Tensor<B, 4> {
        if host::takes(&states) {
            return self.rotate_on_host(states);
        }
        let heads = states.dims()[2];
        if let Some(spread) = self.spread.iter().find(|spread| spread.heads == heads) {
            return spread.rotate(states);
        }
        let half = states.dims()[3] / 2;
        let dtype = states.dtype();
        let table = |table: &Tensor<B, 4>| table.clone().swap_dims(1, 2).cast(dtype);
        let (cosines, sines) = (table(&self.cosines), table(&self.sines));
        let first = states.clone().narrow(3, 0, half);
        let second = states.narrow(3, half, half);
        Tensor::cat(
            vec![
                first.clone() * cosines.clone() - second.clone() * sines.clone(),
                second * cosines + first * sines,
            ],
            3,
        )
    }

    /// One pass where operation by operation takes seven, four of them over a broadcast table.
    fn rotate_on_host(&self, states: Tensor<B, 4>) -> Tensor<B, 4> {
        let (device, shape) = (states.device(), states.dims());
        let cosines = host::numbers(self.cosines.clone());
        let sines = host::numbers(self.sines.clone());
        let mut values = host::numbers(states);
        host_kernels::rotate(&mut values, shape[2], shape[3], &cosines, &sines);
        host::tensor(values, shape, &device)
    }
}

impl<B: Backend> Spread<B> {
    /// By a product with ones, because Burn walks sliced views number by number, forwards and backwards. The same numbers to the
    /// bit.
    fn rotate(&self, states: Tensor<B, 4>) -> Tensor<B, 4> {
        let [batch, tokens, heads, width] = states.dims();
        let turned = states
            .clone()
            .reshape([batch * tokens * heads, width])
            .matmul(self.turn.clone())
            .reshape([batch, tokens, heads * width]);
        let states = states.reshape([batch, tokens, heads * width]);
        let rotated = states * self.cosines.clone() + turned * self.sines.clone();
        rotated.reshape([batch, tokens, heads, width])
    }
}
