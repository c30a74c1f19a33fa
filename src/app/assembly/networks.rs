//! The frozen networks, loaded from their folders.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use burn::module::Module;
use burn::tensor::{DType, Device, FloatDType, Tensor};

use crate::app::assembly::DataSet;
use crate::app::backend::Backend;
use crate::app::config::ModelsConfig;
use crate::data::pixels::{fitted, to_batch};
use crate::features::semantic::SemanticEncoder;
use crate::features::visual::VisualExtractor;
use crate::generation::conditioning::ClipTextEncoder;
use crate::generation::generator::{Generator, is_whole};
use crate::generation::preference::ConditioningShape;
use crate::generation::references::ReferenceLatents;
use crate::generation::sample::Sample;
use crate::networks::llama::LlamaForCausalLm;
use crate::nn::precision::cast_parameters;
use crate::pretrained::clip::PretrainedClip;
use crate::pretrained::diffusion::{PretrainedDiffusion, PromptEncoder};
use crate::pretrained::folder::HubFolder;
use crate::pretrained::hub;
use crate::pretrained::{clip, diffusion, llama};
use crate::reflection::discriminator::ClipVisualEncoder;
use crate::text::TextTokenizer;

/// Opens what a key of `[models]` names, a folder or a fetched repository of the hub; an error says which key, and what
/// makes such a folder.
pub(super) fn opening<T, E: std::error::Error + Send + Sync + 'static>(
    key: &str,
    named: &Path,
    made_by: &str,
    open: impl FnOnce(&Path) -> Result<T, E>,
) -> anyhow::Result<T> {
    let folder = hub::located(named);
    open(&folder).with_context(|| {
        let place = named.display();
        let made = format!("`ragar pretrain {made_by}` makes a small one");
        if folder.exists() {
            format!("models.{key} = \"{place}\" cannot be loaded; {made}")
        } else if hub::is_repository_name(named) {
            format!("models.{key} = \"{place}\" is not there: `ragar model fetch {place}` brings a repository of the hub; {made}")
        } else {
            format!("models.{key} = \"{place}\" is not there: set it to a Hugging Face folder; {made}")
        }
    })
}

/// The networks' data type of `[models]`, if `device` has it.
///
/// # Errors
/// When it has not: shaders know no brain floats, for instance.
pub(super) fn dtype_on(
    models: &ModelsConfig,
    device: &Device<Backend>,
) -> anyhow::Result<FloatDType> {
    use burn::tensor::backend::Backend as _;

    let dtype = models.dtype.float();
    anyhow::ensure!(
        Backend::supports_dtype(device, dtype.into()),
        "models.dtype = \"{}\": this device does not compute in it (`ragar devices` says what it has); use \"f32\" or another --device",
        models.dtype.word()
    );
    Ok(dtype)
}

/// A loaded network in the type to compute in.
fn ready<M: Module<Backend>>(network: M, dtype: FloatDType) -> M {
    match dtype {
        FloatDType::F32 => network,
        dtype => cast_parameters(network, dtype),
    }
}

/// CLIP: what the method sees and reads with.
#[derive(Debug)]
pub struct Eyes {
    /// The folder, loaded.
    pub clip: PretrainedClip<Backend>,
    device: Device<Backend>,
}

impl Eyes {
    /// Opens `models.clip`.
    ///
    /// # Errors
    /// A missing or broken folder.
    pub fn open(models: &ModelsConfig, device: &Device<Backend>) -> anyhow::Result<Self> {
        let dtype = dtype_on(models, device)?;
        let open = |folder: &Path| clip::open::<Backend>(folder, device);
        let mut clip = opening("clip", &models.clip, "clip", open)?;
        clip.network = ready(clip.network, dtype);
        clip.fingerprint = models.dtype.mark(clip.fingerprint);
        Ok(Self {
            clip,
            device: device.clone(),
        })
    }

    /// Texts to embeddings.
    pub fn semantic(&self) -> SemanticEncoder<'_, Backend> {
        SemanticEncoder {
            clip: &self.clip.network,
            tokenizer: &self.clip.tokenizer,
            context_length: self.clip.config.text_config.max_position_embeddings,
            fingerprint: &self.clip.fingerprint,
            device: self.device.clone(),
        }
    }

    /// Pictures to embeddings, through the store.
    pub fn visual(&self) -> VisualExtractor<'_, Backend> {
        VisualExtractor {
            clip: &self.clip.network,
            preprocessing: &self.clip.preprocessing,
            fingerprint: &self.clip.fingerprint,
            device: self.device.clone(),
        }
    }

    /// Drawn images to embeddings, without leaving the device.
    pub fn encoder(&self) -> ClipVisualEncoder<'_, Backend> {
        ClipVisualEncoder {
            clip: &self.clip.network,
            preprocessing: &self.clip.preprocessing,
        }
    }
}

/// The language model.
#[derive(Debug)]
pub struct Language {
    /// The network.
    pub model: LlamaForCausalLm<Backend>,
    /// Its tokeniser.
    pub tokenizer: TextTokenizer,
    /// The digest of its weights and configuration.
    pub fingerprint: String,
    /// What the configuration calls it.
    pub named: PathBuf,
}

impl Language {
    /// Opens `models.language_model`; `device` with a graph where the model is to be trained.
    ///
    /// # Errors
    /// A missing or broken folder.
    pub fn open(models: &ModelsConfig, device: &Device<Backend>) -> anyhow::Result<Self> {
        let (key, named) = ("language_model", &models.language_model);
        let dtype = dtype_on(models, device)?;
        let model = |folder: &Path| llama::load_in::<Backend>(folder, dtype, device);
        let fingerprint = |folder: &Path| HubFolder::open(folder)?.fingerprint();
        Ok(Self {
            model: opening(key, named, "llm", model)?.model,
            tokenizer: opening(key, named, "llm", TextTokenizer::open)?,
            fingerprint: opening(key, named, "llm", fingerprint)?,
            named: named.clone(),
        })
    }
}

impl Language {
    /// The same network where a graph is recorded: its weights are shared, not copied.
    pub fn tracked(&self) -> Self {
        use burn::module::AutodiffModule as _;

        Self {
            model: LlamaForCausalLm::from_inner(self.model.clone()),
            tokenizer: self.tokenizer.clone(),
            fingerprint: self.fingerprint.clone(),
            named: self.named.clone(),
        }
    }
}

/// The image generator with its text encoder.
#[derive(Debug)]
pub struct Generation {
    /// Conditionings to images.
    pub generator: Generator<Backend>,
    /// Prompts to conditionings.
    pub prompts: PromptEncoder<Backend>,
    /// Channels, height and width of a latent.
    pub latent_shape: [usize; 3],
    /// The digest of its weights and configuration.
    pub fingerprint: String,
    /// Of its images, in pixels.
    side: usize,
    device: Device<Backend>,
}

impl Generation {
    /// Opens `models.generator`.
    ///
    /// # Errors
    /// A missing or broken folder.
    pub fn open(models: &ModelsConfig, device: &Device<Backend>) -> anyhow::Result<Self> {
        let dtype = dtype_on(models, device)?;
        let open = |folder: &Path| diffusion::open::<Backend>(folder, device);
        let opened = opening("generator", &models.generator, "unet", open)?;
        let side = opened.latent_size();
        let latent_shape = [opened.vae_config.latent_channels, side, side];
        let side = side * opened.vae_config.downsampling();
        let PretrainedDiffusion {
            unet,
            vae,
            scheduler,
            mut text_encoder,
            fingerprint,
            ..
        } = opened;
        text_encoder.network = ready(text_encoder.network, dtype);
        let (unet, vae) = (ready(unet, dtype), ready(vae, dtype));
        Ok(Self {
            generator: Generator::new(unet, vae, scheduler),
            prompts: text_encoder,
            latent_shape,
            fingerprint,
            side,
            device: device.clone(),
        })
    }

    /// The pictures of the samples' references, where a `strength` below 1 asks to begin with them.
    ///
    /// # Errors
    /// A picture that cannot be used, with its path.
    pub fn references<'s>(
        &self,
        data: &DataSet,
        samples: impl Iterator<Item = &'s Sample>,
        strength: f64,
    ) -> anyhow::Result<Option<ReferenceLatents<Backend>>> {
        if is_whole(&strength) {
            return Ok(None);
        }
        let items: BTreeSet<usize> = samples.map(|sample| sample.reference).collect();
        let pictures = items.into_iter().map(|item| {
            let picture = fitted(data.picture(item)?, self.side as u32);
            anyhow::Ok((item, to_batch(&[&picture], &self.device)))
        });
        ReferenceLatents::encode(&self.generator, pictures).map(Some)
    }

    /// What a conditioning must look like.
    pub fn shape(&self) -> ConditioningShape {
        ConditioningShape {
            tokens: self.prompts.context_length(),
            width: self.prompts.config.hidden_size,
        }
    }

    /// The text encoder as the method uses it. Where `eyes` are a CLIP with a text tower of the same width, its projection
    /// leads from an end token's state to the joint space.
    pub fn text<'a>(&'a self, eyes: &Eyes) -> ClipTextEncoder<'a, Backend> {
        let clip = &eyes.clip;
        let same = clip.config.text_config.hidden_size == self.prompts.config.hidden_size;
        let projection: Option<Tensor<Backend, 2>> =
            same.then(|| clip.network.text_projection.weight.val().cast(DType::F32));
        ClipTextEncoder::new(
            &self.prompts.network,
            projection,
            &self.prompts.tokenizer,
            self.prompts.context_length(),
            &self.device,
        )
    }
}
