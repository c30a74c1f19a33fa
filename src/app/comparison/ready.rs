//! Methods made ready to draw, by name.

use std::path::Path;

use anyhow::Context as _;
use burn::module::Module as _;

use super::Comparison;
use super::methods::{MethodName, Ragar};
use crate::app::assembly::{Language, preference};
use crate::app::backend::Backend;
use crate::app::exhibition::Visitor;
use crate::baselines::answer::Answer;
use crate::baselines::denoising::Denoiser;
use crate::baselines::floors::{Choice, Floor};
use crate::baselines::pmg::{Pmg, PmgNetworks};
use crate::baselines::stable_diffusion::{StableDiffusion, Words};
use crate::baselines::textual_inversion::TextualInversion;
use crate::baselines::{Method, Studio};
use crate::data::history::History;
use crate::generation::sample::Sample;
use crate::pretrained::diffusion::PretrainedDiffusion;
use crate::pretrained::{diffusion, hub};

/// The generator where a graph is recorded, for methods that train through it.
pub(super) struct Through {
    parts: PretrainedDiffusion<Backend>,
    denoiser: Denoiser<Backend>,
}

impl Through {
    /// Opened where one of `names` trains through it.
    pub(super) fn open(
        comparison: &Comparison,
        names: &[MethodName],
    ) -> anyhow::Result<Option<Self>> {
        if !names.iter().any(|name| name.trains_through_generator()) {
            return Ok(None);
        }
        let device = &comparison.devices.train;
        let folder = hub::located(&comparison.config.models.generator);
        let parts = diffusion::open::<Backend>(&folder, device)
            .with_context(|| format!("models.generator = \"{}\"", folder.display()))?;
        let denoiser = Denoiser::new(parts.unet.clone(), &parts.scheduler, device)?;
        Ok(Some(Self { parts, denoiser }))
    }

    /// Width and height of what it draws.
    pub(super) fn side(&self) -> usize {
        self.parts.latent_size() * self.parts.vae_config.downsampling()
    }
}

/// What methods are made of.
pub(super) struct Workbench<'a> {
    comparison: &'a Comparison,
    /// Where all of them draw.
    studio: &'a Studio<'a, Backend>,
    through: Option<Through>,
    /// The language model where a graph is recorded.
    language: Option<Language>,
    /// What PMG learns from.
    lessons: Vec<Sample>,
    /// Where `ragar train` left RAGAR.
    run: &'a Path,
}

impl<'a> Workbench<'a> {
    /// With all that `names` need.
    ///
    /// # Errors
    /// A language model that cannot be loaded, a history that gives no sample.
    pub(super) fn open(
        comparison: &'a Comparison,
        studio: &'a Studio<'a, Backend>,
        through: Option<Through>,
        names: &[MethodName],
        run: &'a Path,
    ) -> anyhow::Result<Self> {
        let language = match names.iter().any(|name| name.trains_language()) {
            true => Some(Language::open(
                &comparison.config.models,
                &comparison.devices.train,
            )?),
            false => None,
        };
        let histories: Vec<&History> = comparison.lessons.iter().collect();
        let lessons = match names.contains(&MethodName::Pmg) {
            true => comparison.samples(&histories, |_| Some(0))?,
            false => Vec::new(),
        };
        Ok(Self {
            comparison,
            studio,
            through,
            language,
            lessons: lessons.into_iter().map(|(_, sample)| sample).collect(),
            run,
        })
    }

    /// The method of that name, not yet trained.
    ///
    /// # Errors
    /// Settings that make no method, a run without RAGAR's weights, right answers that nobody knows.
    pub(super) fn ready(
        &self,
        name: MethodName,
        visitors: &[Visitor<'_>],
    ) -> anyhow::Result<Box<dyn Method + '_>> {
        let (own, studio) = (self.comparison, self.studio);
        let missing = || format!("{name:?} needs a network that was not loaded");
        let floor = |choice| Box::new(Floor { studio, choice });
        let prompted = |words| Box::new(StableDiffusion { studio, words });
        Ok(match name {
            MethodName::Reference => floor(Choice::Reference),
            MethodName::History => floor(Choice::History),
            MethodName::Neighbour => floor(Choice::Neighbour),
            MethodName::Answer => {
                let answers = own.answers()?;
                own.note_alike(&answers, visitors);
                Box::new(Answer::new(studio, answers))
            }
            MethodName::Keywords => prompted(Words::Keywords),
            MethodName::Sd => prompted(Words::CaptionAndKeywords),
            MethodName::TextualInversion => {
                let through = self.through.as_ref().with_context(missing)?;
                let prompts = &own.generation.prompts;
                Box::new(TextualInversion::<Backend>::new(
                    &own.config.baselines.textual_inversion,
                    studio,
                    own.generation.generator.vae(),
                    &through.denoiser,
                    (
                        through.parts.text_encoder.network.clone(),
                        prompts.network.clone(),
                    ),
                    &prompts.tokenizer,
                    own.generation.shape().tokens,
                )?)
            }
            MethodName::Pmg => {
                let language = self.language.as_ref().with_context(missing)?;
                let networks = PmgNetworks {
                    training_llama: language.model.clone().no_grad(),
                    llama: &own.language.model,
                    vae: own.generation.generator.vae(),
                    denoiser: &self.through.as_ref().with_context(missing)?.denoiser,
                    semantic: own.eyes.semantic(),
                    visual: own.eyes.visual(),
                    shape: own.generation.shape(),
                };
                let config = &own.config.baselines.pmg;
                Box::new(Pmg::<Backend>::new(
                    config,
                    studio,
                    networks,
                    &self.lessons,
                )?)
            }
            MethodName::Ragar => {
                let language = self.language.as_ref().with_context(missing)?;
                let (generation, device) = (&own.generation, &own.devices.train);
                Box::new(Ragar {
                    studio,
                    model: preference::open(&own.config, self.run, language, generation, device)?,
                    digest: preference::fingerprint(self.run)?,
                })
            }
        })
    }
}
