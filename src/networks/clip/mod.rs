//! CLIP: two transformers that meet in one space (transformers' `CLIPModel`, `CLIPTextModel`, `CLIPVisionModel`).
//!
//! The paper embeds captions with the text tower (Eq. of the Correlation Unit), pictures with the vision tower
//! (Fusion Unit), and draws from the text tower's hidden states (Stable Diffusion's conditioning).
//! Reading files is not done here.

pub mod config;
mod encoder;
mod learned_tokens;
mod model;
pub mod preprocessing;
mod projected;
pub mod text;
pub mod vision;

pub use config::{ClipConfig, ClipConfigError, ClipTextConfig, ClipVisionConfig};
pub use encoder::{ClipAttention, ClipEncoder, ClipEncoderLayer, ClipMlp};
pub use model::{Clip, ClipOutput, normalise};
pub use preprocessing::{ClipPreprocessing, PreprocessingError};
pub use projected::{ClipTextProjected, ClipVisionProjected};
pub use text::{ClipTextModel, ClipTextOutput};
pub use vision::{ClipVisionModel, ClipVisionOutput};
