//! The methods that RAGAR is compared with, behind one trait: the same users, generator, seeds and denoising steps.
//!
//! [`Method`] asks for nothing that a method with a generator of its own (GLIDE, LaVIT) could not give: such a method
//! keeps its generator to itself and implements the same functions. RAGAR implements it in the application, where its
//! training is put together.

pub mod answer;
pub mod denoising;
pub mod fitting;
pub mod floors;
pub mod method;
pub mod pmg;
pub mod stable_diffusion;
pub mod studio;
pub mod textual_inversion;

use serde::{Deserialize, Serialize};

pub use method::{DrawError, Method, MethodError, MethodKind, Request, Watch};
pub use studio::Studio;

/// `[baselines]`: the trained methods beside RAGAR.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BaselinesConfig {
    /// `[baselines.pmg]`
    pub pmg: pmg::PmgConfig,
    /// `[baselines.textual_inversion]`
    pub textual_inversion: textual_inversion::TextualInversionConfig,
}

impl BaselinesConfig {
    /// Refuses values without a meaning, with the reason.
    ///
    /// # Errors
    /// A sentence that names the key.
    pub fn validate(&self) -> Result<(), String> {
        self.pmg
            .validate()
            .map_err(|error| format!("pmg.{error}"))?;
        let inversion = self.textual_inversion.validate();
        inversion.map_err(|error| format!("textual_inversion.{error}"))
    }
}
