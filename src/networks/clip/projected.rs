//! One tower with its way into the joint space (`CLIPTextModelWithProjection`, `CLIPVisionModelWithProjection`).

use burn::module::Module;
use burn::nn::{Linear, LinearConfig};
use burn::tensor::{Int, Tensor, backend::Backend};

use super::config::{ClipTextConfig, ClipVisionConfig};
use super::text::{ClipTextModel, ClipTextOutput};
use super::vision::{ClipVisionModel, ClipVisionOutput};

/// A text tower, and a projection where the file has one.
#[derive(Module, Debug)]
pub struct ClipTextProjected<B: Backend> {
    pub text_model: ClipTextModel<B>,
    /// Without bias.
    pub text_projection: Option<Linear<B>>,
}

/// A vision tower, and a projection where the file has one.
#[derive(Module, Debug)]
pub struct ClipVisionProjected<B: Backend> {
    pub vision_model: ClipVisionModel<B>,
    /// Without bias.
    pub visual_projection: Option<Linear<B>>,
}

impl ClipTextConfig {
    /// The tower with arbitrary weights; projected into `projection_dim` where that is wanted.
    pub fn init_projected<B: Backend>(
        &self,
        projected: bool,
        device: &B::Device,
    ) -> ClipTextProjected<B> {
        ClipTextProjected {
            text_model: self.init(device),
            text_projection: projected
                .then(|| projection(self.hidden_size, self.projection_dim, device)),
        }
    }
}

impl ClipVisionConfig {
    /// The tower with arbitrary weights; projected into `projection_dim` where that is wanted.
    pub fn init_projected<B: Backend>(
        &self,
        projected: bool,
        device: &B::Device,
    ) -> ClipVisionProjected<B> {
        ClipVisionProjected {
            vision_model: self.init(device),
            visual_projection: projected
                .then(|| projection(self.hidden_size, self.projection_dim, device)),
        }
    }
}

fn projection<B: Backend>(from: usize, to: usize, device: &B::Device) -> Linear<B> {
    LinearConfig::new(from, to).with_bias(false).init(device)
}

impl<B: Backend> ClipTextProjected<B> {
    /// The tower's states and the embeddings, not normalised, `[batch, joint width]`; ids and mask `[batch, tokens]`.
    pub fn forward(
        &self,
        input_ids: Tensor<B, 2, Int>,
        attention_mask: Option<Tensor<B, 2, Int>>,
    ) -> (ClipTextOutput<B>, Option<Tensor<B, 2>>) {
        let text = self.text_model.forward_masked(input_ids, attention_mask);
        let project = |layer: &Linear<B>| layer.forward(text.pooler_output.clone());
        let embeds = self.text_projection.as_ref().map(project);
        (text, embeds)
    }
}

impl<B: Backend> ClipVisionProjected<B> {
    /// The tower's states and the embeddings, not normalised, `[batch, joint width]`, of preprocessed pictures
    /// `[batch, channels, side, side]`.
    pub fn forward(
        &self,
        pixel_values: Tensor<B, 4>,
    ) -> (ClipVisionOutput<B>, Option<Tensor<B, 2>>) {
        let vision = self.vision_model.forward(pixel_values);
        let project = |layer: &Linear<B>| layer.forward(vision.pooler_output.clone());
        let embeds = self.visual_projection.as_ref().map(project);
        (vision, embeds)
    }
}
