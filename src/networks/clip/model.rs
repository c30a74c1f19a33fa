//! Both towers and the joint space (`CLIPModel`).

use burn::module::{Initializer, Module, Param};
use burn::nn::{Linear, LinearConfig};
use burn::tensor::{DType, Int, Tensor, backend::Backend};

use super::config::ClipConfig;
use super::text::{ClipTextModel, ClipTextOutput};
use super::vision::{ClipVisionModel, ClipVisionOutput};

/// CLIP.
#[derive(Module, Debug)]
pub struct Clip<B: Backend> {
    /// Texts.
    pub text_model: ClipTextModel<B>,
    /// Pictures.
    pub vision_model: ClipVisionModel<B>,
    /// Text states into the joint space, without bias.
    pub text_projection: Linear<B>,
    /// Picture states into the joint space, without bias.
    pub visual_projection: Linear<B>,
    /// Natural logarithm of the inverse temperature, `[1]`.
    pub logit_scale: Param<Tensor<B, 1>>,
}

/// Everything CLIP says of a batch of texts and a batch of pictures.
#[derive(Debug, Clone)]
pub struct ClipOutput<B: Backend> {
    /// The text tower's states.
    pub text: ClipTextOutput<B>,
    /// The vision tower's states.
    pub vision: ClipVisionOutput<B>,
    /// Normalised, `[texts, joint width]`.
    pub text_embeds: Tensor<B, 2>,
    /// Normalised, `[pictures, joint width]`.
    pub image_embeds: Tensor<B, 2>,
    /// Scaled cosines, `[texts, pictures]`; its transpose is `logits_per_image`.
    pub logits_per_text: Tensor<B, 2>,
}

impl ClipConfig {
    /// A network with arbitrary weights, to be loaded or initialised.
    pub fn init<B: Backend>(&self, device: &B::Device) -> Clip<B> {
        let projection = |width| {
            LinearConfig::new(width, self.projection_dim)
                .with_bias(false)
                .init(device)
        };
        Clip {
            text_model: self.text_config.init(device),
            vision_model: self.vision_config.init(device),
            text_projection: projection(self.text_config.hidden_size),
            visual_projection: projection(self.vision_config.hidden_size),
            logit_scale: Initializer::Constant {
                value: self.logit_scale_init_value,
            }
            .init([1], device),
        }
    }
}

impl<B: Backend> Clip<B> {
    /// Embeddings of the ids `[batch, tokens]`, not normalised: `[batch, joint width]`.
    pub fn text_embeds(&self, input_ids: Tensor<B, 2, Int>) -> Tensor<B, 2> {
        self.text_projection
            .forward(self.text_model.forward(input_ids).pooler_output)
            .cast(DType::F32)
    }

    /// Embeddings of the preprocessed pictures `[batch, channels, side, side]`, not normalised: `[batch, joint width]`.
    pub fn image_embeds(&self, pixel_values: Tensor<B, 4>) -> Tensor<B, 2> {
        let pixel_values = pixel_values.cast(self.visual_projection.weight.val().dtype());
        self.visual_projection
            .forward(self.vision_model.forward(pixel_values).pooler_output)
            .cast(DType::F32)
    }

    /// Both towers, the normalised embeddings and their scaled cosines.
    pub fn forward(
        &self,
        input_ids: Tensor<B, 2, Int>,
        attention_mask: Option<Tensor<B, 2, Int>>,
        pixel_values: Tensor<B, 4>,
    ) -> ClipOutput<B> {
        let text = self.text_model.forward_masked(input_ids, attention_mask);
        let vision = self.vision_model.forward(pixel_values);
        let text_embeds = normalise(self.text_projection.forward(text.pooler_output.clone()));
        let image_embeds = normalise(self.visual_projection.forward(vision.pooler_output.clone()));
        let cosines = text_embeds.clone().matmul(image_embeds.clone().transpose());
        let logits_per_text = cosines * self.logit_scale.val().exp().unsqueeze::<2>();
        ClipOutput {
            text,
            vision,
            text_embeds,
            image_embeds,
            logits_per_text,
        }
    }
}

/// Each row at length one. A row of zeros stays.
pub fn normalise<B: Backend>(rows: Tensor<B, 2>) -> Tensor<B, 2> {
    let squared = rows.clone().mul(rows.clone()).sum_dim(1);
    rows / squared.clamp_min(1e-24).sqrt()
}
