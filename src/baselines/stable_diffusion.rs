//! The same generator, untrained, from words: the reference's caption with the user's keywords, or the keywords alone.

use burn::tensor::backend::Backend;
use image::RgbImage;

use super::method::{DrawError, Method, MethodKind, Request};
use super::studio::Studio;

/// The prompt: the reference's caption, then the user's keywords (as PMG's comparison has it).
pub fn prompt(caption: &str, keywords: &[String]) -> String {
    let mut parts = vec![caption.to_string()];
    parts.extend(keywords.iter().cloned());
    parts.join(", ")
}

/// Which words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Words {
    /// The generator's own prompt ("Global"), from which RAGAR starts.
    Keywords,
    /// [`prompt`].
    CaptionAndKeywords,
}

/// Stable Diffusion as it is.
pub struct StableDiffusion<'a, B: Backend> {
    /// The generator.
    pub studio: &'a Studio<'a, B>,
    /// From which words.
    pub words: Words,
}

impl<B: Backend> Method for StableDiffusion<'_, B> {
    fn name(&self) -> &'static str {
        match self.words {
            Words::Keywords => "keywords",
            Words::CaptionAndKeywords => "sd",
        }
    }

    fn label(&self) -> &'static str {
        match self.words {
            Words::Keywords => "Keywords",
            Words::CaptionAndKeywords => "Stable Diffusion",
        }
    }

    fn kind(&self) -> MethodKind {
        MethodKind::Contender
    }

    fn fingerprint(&self) -> String {
        format!(
            "{} {} {}",
            self.name(),
            self.studio.identity,
            self.studio.sampler
        )
    }

    fn draw(&self, requests: &[Request<'_>], seed: u64) -> Vec<Result<RgbImage, DrawError>> {
        let prompts: Vec<String> = requests
            .iter()
            .map(|request| match self.words {
                Words::Keywords => request.sample.global_prompt.clone(),
                Words::CaptionAndKeywords => {
                    let caption = &self.studio.captions[request.sample.reference];
                    prompt(caption, &request.sample.keywords)
                }
            })
            .collect();
        let prompts: Vec<&str> = prompts.iter().map(String::as_str).collect();
        self.studio.prompts(requests, &prompts, seed)
    }
}
