//! Where the captioner's weights start: seeded embeddings, and a vision tower taken over from CLIP.

use burn::module::{Module, ModuleMapper, Param};
use burn::nn::Linear;
use burn::tensor::backend::Backend;
use burn::tensor::{Device, Tensor, TensorData};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal};

use crate::networks::blip2::vision::Blip2VisionModel;
use crate::networks::clip::ClipVisionModel;

/// Standard deviation of fresh embeddings, BERT's and OPT's.
const EMBEDDING_DEVIATION: f32 = 0.02;

/// Draws every embedding and bare parameter (queries, class token, positions) from a normal distribution, on the host,
/// so that a seed means the same on every backend. Layers and norms stay as they are.
pub fn seeded_embeddings<B: Backend, M: Module<B>>(module: M, seed: u64) -> M {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    random.set_stream(u64::MAX);
    module.map(&mut EmbeddingSeeder {
        random,
        containers: Vec::new(),
    })
}

struct EmbeddingSeeder {
    random: ChaCha8Rng,
    containers: Vec<String>,
}

impl<B: Backend> ModuleMapper<B> for EmbeddingSeeder {
    fn enter_module(&mut self, _name: &str, container: &str) {
        self.containers.push(container.to_string());
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.containers.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<B, D>>) -> Param<Tensor<B, D>> {
        let layers = ["Struct:Linear", "Struct:Conv2d", "Struct:LayerNorm"];
        if self
            .containers
            .last()
            .is_some_and(|container| layers.contains(&container.as_str()))
        {
            return param;
        }
        let (id, tensor, mapper) = param.consume();
        let (shape, tracked) = (tensor.dims(), tensor.is_require_grad());
        let mut draw = || -> f32 { StandardNormal.sample(&mut self.random) };
        let values: Vec<f32> = (0..shape.iter().product())
            .map(|_| EMBEDDING_DEVIATION * draw())
            .collect();
        let drawn = Tensor::from_data(TensorData::new(values, shape), &tensor.device());
        Param::from_mapped_value(id, drawn.set_require_grad(tracked), mapper)
    }
}

/// Copies a CLIP vision tower of the same sizes into `tower`.
///
/// Query, key and value become one matrix. CLIP normalises its embeddings before the first layer and BLIP-2 does not:
/// that norm's centring and gain are folded into the patch kernel and the positions, its division by each token's own
/// deviation becomes one by the mean deviation over the patches of `pixels` (`[batch, 3, side, side]`). So the tower
/// starts near CLIP's, not equal to it.
pub fn start_from_clip<B: Backend, C: Backend>(
    tower: &mut Blip2VisionModel<B>,
    clip: &ClipVisionModel<C>,
    pixels: Tensor<C, 4>,
    device: &Device<B>,
) {
    let embeddings = clip.embeddings.forward(pixels);
    let (_, tokens, width) = {
        let [batch, tokens, width] = embeddings.dims();
        (batch, tokens, width)
    };
    let deviations = host(&deviation(embeddings));
    let patch_deviation = {
        let patches: Vec<f32> = deviations
            .chunks(tokens)
            .flat_map(|row| row[1..].to_vec())
            .collect();
        patches.iter().sum::<f32>() / patches.len() as f32
    };
    let class_deviation = deviations[0];
    let gain = host(&clip.pre_layrnorm.gamma.val());
    let shift = clip
        .pre_layrnorm
        .beta
        .as_ref()
        .map_or(vec![0.0; width], |beta| host(&beta.val()));
    let fold = |vector: &[f32], deviation: f32| -> Vec<f32> {
        let mean = vector.iter().sum::<f32>() / width as f32;
        vector
            .iter()
            .zip(&gain)
            .map(|(value, gain)| (value - mean) * gain / deviation)
            .collect()
    };

    let kernel = clip.embeddings.patch_embedding.weight.val();
    let shape = kernel.dims();
    let taps = shape[1] * shape[2] * shape[3];
    let kernel = host(&kernel);
    let mut folded = vec![0f32; kernel.len()];
    for tap in 0..taps {
        let column: Vec<f32> = (0..width).map(|row| kernel[row * taps + tap]).collect();
        for (row, value) in fold(&column, patch_deviation).into_iter().enumerate() {
            folded[row * taps + tap] = value;
        }
    }
    tower.embeddings.patch_embedding.weight =
        Param::from_data(TensorData::new(folded, shape), device);
    tower.embeddings.patch_embedding.bias = Some(Param::from_data(
        TensorData::new(vec![0f32; width], [width]),
        device,
    ));

    let positions = host(&clip.embeddings.position_embedding.weight.val());
    let class: Vec<f32> = host(&clip.embeddings.class_embedding.val())
        .iter()
        .zip(&positions)
        .map(|(a, b)| a + b)
        .collect();
    let shifted =
        |values: Vec<f32>| -> Vec<f32> { values.iter().zip(&shift).map(|(a, b)| a + b).collect() };
    let mut places = vec![0f32; width];
    for position in positions.chunks(width).skip(1) {
        places.extend(shifted(fold(position, patch_deviation)));
    }
    tower.embeddings.class_embedding = Param::from_data(
        TensorData::new(shifted(fold(&class, class_deviation)), [1, 1, width]),
        device,
    );
    tower.embeddings.position_embedding =
        Param::from_data(TensorData::new(places, [1, tokens, width]), device);

    for (ours, theirs) in tower.encoder.layers.iter_mut().zip(&clip.encoder.layers) {
        let attention = &theirs.self_attn;
        let parts = [&attention.q_proj, &attention.k_proj, &attention.v_proj];
        let weight = Tensor::cat(parts.map(|part| part.weight.val()).to_vec(), 1);
        let biases = parts.map(|part| match &part.bias {
            Some(bias) => bias.val(),
            None => Tensor::zeros([width], &weight.device()),
        });
        ours.self_attn.qkv.weight = moved(&weight, device);
        ours.self_attn.qkv.bias = Some(moved(&Tensor::cat(biases.to_vec(), 0), device));
        copy_linear(&mut ours.self_attn.projection, &attention.out_proj, device);
        copy_linear(&mut ours.mlp.fc1, &theirs.mlp.fc1, device);
        copy_linear(&mut ours.mlp.fc2, &theirs.mlp.fc2, device);
        for (ours, theirs) in [
            (&mut ours.layer_norm1, &theirs.layer_norm1),
            (&mut ours.layer_norm2, &theirs.layer_norm2),
        ] {
            ours.gamma = moved(&theirs.gamma.val(), device);
            ours.beta = theirs.beta.as_ref().map(|beta| moved(&beta.val(), device));
        }
    }
    tower.post_layernorm.gamma = moved(&clip.post_layernorm.gamma.val(), device);
    tower.post_layernorm.beta = clip
        .post_layernorm
        .beta
        .as_ref()
        .map(|beta| moved(&beta.val(), device));
}

/// Deviation over the width of every token, `[batch, tokens, 1]`.
fn deviation<B: Backend>(states: Tensor<B, 3>) -> Tensor<B, 3> {
    let centred = states.clone() - states.mean_dim(2);
    centred.powi_scalar(2).mean_dim(2).sqrt()
}

fn copy_linear<B: Backend, C: Backend>(
    ours: &mut Linear<B>,
    theirs: &Linear<C>,
    device: &Device<B>,
) {
    ours.weight = moved(&theirs.weight.val(), device);
    ours.bias = theirs.bias.as_ref().map(|bias| moved(&bias.val(), device));
}

fn moved<B: Backend, C: Backend, const D: usize>(
    tensor: &Tensor<C, D>,
    device: &Device<B>,
) -> Param<Tensor<B, D>> {
    Param::from_data(TensorData::new(host(tensor), tensor.dims()), device)
}

fn host<B: Backend, const D: usize>(tensor: &Tensor<B, D>) -> Vec<f32> {
    tensor.to_data().iter::<f32>().collect()
}
