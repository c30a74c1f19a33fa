//! The generator told what no method knows: how much it makes of the right theme.

use std::collections::HashMap;

use burn::tensor::backend::Backend;
use image::RgbImage;
use sha2::{Digest, Sha256};

use super::method::{DrawError, Method, MethodKind, Request};
use super::studio::Studio;

/// Draws from a prompt made of the right answer: where retrieval and keywords make no mistake, RAGAR's is this one. What a
/// preference model adds to its prompt is not bounded by it, the prompt is.
pub struct Answer<'a, B: Backend> {
    studio: &'a Studio<'a, B>,
    prompts: HashMap<(String, usize), String>,
    digest: String,
}

impl<'a, B: Backend> Answer<'a, B> {
    /// `prompts` where the right answer is known, by user and reference.
    pub fn new(studio: &'a Studio<'a, B>, prompts: HashMap<(String, usize), String>) -> Self {
        let mut all: Vec<(&(String, usize), &String)> = prompts.iter().collect();
        all.sort();
        let digest = Sha256::digest(format!("{all:?}"));
        Self {
            studio,
            digest: format!("{digest:x}"),
            prompts,
        }
    }
}

impl<B: Backend> Method for Answer<'_, B> {
    fn name(&self) -> &'static str {
        "answer"
    }

    fn label(&self) -> &'static str {
        "Told the right answer's theme"
    }

    fn kind(&self) -> MethodKind {
        MethodKind::Ceiling
    }

    fn fingerprint(&self) -> String {
        let Studio {
            identity, sampler, ..
        } = self.studio;
        format!("answer {} {identity} {sampler}", self.digest)
    }

    fn draw(&self, requests: &[Request<'_>], seed: u64) -> Vec<Result<RgbImage, DrawError>> {
        let prompts: Vec<Option<&str>> = requests
            .iter()
            .map(|request| {
                let history = request.history;
                let key = (history.user.clone(), history.reference);
                self.prompts.get(&key).map(String::as_str)
            })
            .collect();
        let (told, known): (Vec<Request<'_>>, Vec<&str>) = requests
            .iter()
            .zip(&prompts)
            .filter_map(|(request, prompt)| Some((*request, (*prompt)?)))
            .unzip();
        let mut drawn = self.studio.prompts(&told, &known, seed).into_iter();
        let mut next = |prompt: Option<&str>| match prompt {
            Some(_) => drawn.next().unwrap_or(Err(DrawError::Unknown)),
            None => Err(DrawError::Unknown),
        };
        prompts.into_iter().map(&mut next).collect()
    }
}
