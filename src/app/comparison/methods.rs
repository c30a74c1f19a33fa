//! Which methods there are, by name, and RAGAR as one of them.

use crate::generation::sample::Sample;
use clap::ValueEnum;
use image::RgbImage;

use crate::app::backend::Backend;
use crate::baselines::{DrawError, Method, MethodKind, Request, Studio};
use crate::generation::preference::PreferenceModel;

/// A method on the command line. GLIDE and LaVIT, which bring generators of their own, have no name yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum MethodName {
    /// Floor: the reference, unchanged
    Reference,
    /// Floor: a random picture of the history
    History,
    /// Floor: the nearest item of the catalogue
    Neighbour,
    /// Ceiling: the generator told the right answer's theme, where that is known (stickers)
    Answer,
    /// The generator from keywords and the reference's own words
    Keywords,
    /// The generator from the reference's caption and keywords
    Sd,
    /// Textual Inversion: a learned word per user; trains on first use
    TextualInversion,
    /// PMG: keywords and soft tokens; trains on first use
    Pmg,
    /// RAGAR, as `ragar train` left it in --run
    Ragar,
}

impl MethodName {
    /// Those that need no training beside RAGAR's.
    pub const USUAL: [Self; 6] = [
        Self::Reference,
        Self::History,
        Self::Neighbour,
        Self::Keywords,
        Self::Sd,
        Self::Ragar,
    ];

    /// Does it train through the generator?
    pub(super) fn trains_through_generator(self) -> bool {
        matches!(self, Self::TextualInversion | Self::Pmg)
    }

    /// Does it need the language model where a graph is recorded?
    pub(super) fn trains_language(self) -> bool {
        matches!(self, Self::Ragar | Self::Pmg)
    }
}

/// RAGAR: the preference model that `ragar train` left.
pub(super) struct Ragar<'a> {
    /// The generator.
    pub studio: &'a Studio<'a, Backend>,
    /// What `ragar train` left, without a graph.
    pub model: PreferenceModel<Backend>,
    /// A digest of its file.
    pub digest: String,
}

impl Method for Ragar<'_> {
    fn name(&self) -> &'static str {
        "ragar"
    }

    fn label(&self) -> &'static str {
        "RAGAR"
    }

    fn kind(&self) -> MethodKind {
        MethodKind::Contender
    }

    fn fingerprint(&self) -> String {
        let Studio {
            identity, sampler, ..
        } = self.studio;
        format!("ragar {} {identity} {sampler}", self.digest)
    }

    fn draw(&self, requests: &[Request<'_>], seed: u64) -> Vec<Result<RgbImage, DrawError>> {
        if requests.is_empty() {
            return Vec::new();
        }
        let samples: Vec<&Sample> = requests.iter().map(|request| request.sample).collect();
        let general = self
            .studio
            .drawing
            .preference(&self.model, &samples)
            .general;
        self.studio.conditionings(requests, general, seed)
    }
}
