//! `scheduler_config.json`, as diffusers writes it. Unknown keys are allowed, null is as good as absent, and what is
//! absent is what the named class has by default.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value};

use super::class::SchedulerClass;
use super::prediction::PredictionType;

/// How the noise grows over the training steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BetaSchedule {
    /// β evenly spaced.
    Linear,
    /// √β evenly spaced (Stable Diffusion).
    ScaledLinear,
    /// The squared-cosine schedule of improved DDPM.
    #[serde(rename = "squaredcos_cap_v2")]
    SquaredCosine,
}

/// How the sampler's steps lie among the training steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TimestepSpacing {
    /// From step 0 upwards.
    Leading,
    /// From the last step downwards.
    Trailing,
    /// Both ends included.
    Linspace,
}

/// Where the last step of a sampler that works on noise levels leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FinalSigma {
    /// To the clean sample.
    Zero,
    /// To the first training step's level.
    SigmaMin,
}

/// How Euler's noise levels lie between those of the training steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Interpolation {
    /// As the steps do.
    Linear,
    /// Their logarithms are evenly spaced.
    LogLinear,
}

/// A schedule that cannot be built.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum SchedulerError {
    /// An option that this implementation does not know.
    #[error("`{key}` is {found}: only {supported} is supported")]
    Unsupported {
        key: &'static str,
        found: String,
        supported: String,
    },
    /// More sampling steps than the schedule has, or too few.
    #[error("{found} sampling steps: choose between {least} and {most}")]
    Steps {
        found: usize,
        least: usize,
        most: usize,
    },
    /// A sampler that cannot begin on the way.
    #[error(
        "strength = {strength}, and the {class} sampler must begin at pure noise: choose `scheduler = \"ddim\"`, `dpm-solver++`, `euler` or `unipc`, or strength = 1"
    )]
    Beginning { strength: f64, class: &'static str },
}

/// A noise schedule and its sampler.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(remote = "Self")]
pub struct SchedulerConfig {
    #[serde(rename = "_class_name", with = "class_name")]
    pub class: SchedulerClass,
    pub num_train_timesteps: usize,
    pub beta_start: f64,
    pub beta_end: f64,
    pub beta_schedule: BetaSchedule,
    #[serde(default)]
    pub trained_betas: Option<Vec<f64>>,
    /// DDIM, LCM: clamp the predicted clean sample to ± `clip_sample_range` at every step.
    pub clip_sample: bool,
    pub clip_sample_range: f64,
    /// DDIM, PNDM: is the step before the first free of noise, or as noisy as training step 0?
    pub set_alpha_to_one: bool,
    /// Added to the steps of `leading` spacing.
    pub steps_offset: usize,
    pub prediction_type: PredictionType,
    pub timestep_spacing: TimestepSpacing,
    /// Shift the schedule so that the last step holds no signal (Lin et al., 2023).
    pub rescale_betas_zero_snr: bool,
    pub thresholding: bool,
    /// PNDM: start with a repeated step in place of Runge–Kutta steps.
    pub skip_prk_steps: bool,
    /// DPM-Solver++, Euler, UniPC: the noise levels of Karras et al., 2022.
    pub use_karras_sigmas: bool,
    /// The same samplers: where the last step leads.
    pub final_sigmas_type: FinalSigma,
    /// Euler, UniPC: least and largest level of Karras et al.; the schedule's own where absent.
    #[serde(default)]
    pub sigma_min: Option<f64>,
    #[serde(default)]
    pub sigma_max: Option<f64>,
    /// DPM-Solver++, UniPC: outputs that a step reads, up to three.
    pub solver_order: usize,
    /// DPM-Solver++: `midpoint` or `heun`. UniPC: `bh1` or `bh2`. Another solver's word means the default.
    pub solver_type: String,
    /// DPM-Solver++, UniPC: fewer outputs in the last steps, for stability.
    pub lower_order_final: bool,
    /// DPM-Solver++: a first-order last step whatever the number of steps.
    pub euler_at_final: bool,
    pub algorithm_type: String,
    /// DPM-Solver++: leave out steps whose logarithm of signal over noise is less; −∞ where absent.
    #[serde(default)]
    pub lambda_min_clipped: Option<f64>,
    /// DPM-Solver++: does the network also predict a variance?
    #[serde(default)]
    pub variance_type: Option<String>,
    /// UniPC: steps after which nothing is corrected.
    pub disable_corrector: Vec<usize>,
    pub predict_x0: bool,
    #[serde(default)]
    pub solver_p: Option<Value>,
    /// Euler.
    pub interpolation_type: Interpolation,
    pub timestep_type: String,
    /// LCM: steps of the schedule that the network was distilled on.
    pub original_inference_steps: usize,
    /// LCM: how soon a step trusts the network alone.
    pub timestep_scaling: f64,
    pub use_exponential_sigmas: bool,
    pub use_beta_sigmas: bool,
    pub use_lu_lambdas: bool,
    pub use_flow_sigmas: bool,
}

/// Keys that are always written; the others where they differ from the class's default.
const ALWAYS_WRITTEN: [&str; 13] = [
    "_class_name",
    "num_train_timesteps",
    "beta_start",
    "beta_end",
    "beta_schedule",
    "clip_sample",
    "clip_sample_range",
    "set_alpha_to_one",
    "steps_offset",
    "prediction_type",
    "timestep_spacing",
    "rescale_betas_zero_snr",
    "thresholding",
];

mod class_name {
    use super::{Deserialize, Deserializer, SchedulerClass, Serializer};
    use serde::de::Error;

    pub fn serialize<S: Serializer>(class: &SchedulerClass, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(class.name())
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<SchedulerClass, D::Error> {
        let name = String::deserialize(from)?;
        SchedulerClass::named(&name).ok_or_else(|| {
            let known = SchedulerClass::known();
            D::Error::custom(format!("`_class_name` is {name}, known are {known}"))
        })
    }
}

impl Serialize for SchedulerConfig {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut keys = self.keys::<S::Error>()?;
        let usual = Self::of(self.class).keys::<S::Error>()?;
        keys.retain(|key, value| {
            ALWAYS_WRITTEN.contains(&key.as_str()) || usual.get(key) != Some(value)
        });
        keys.serialize(to)
    }
}

impl<'de> Deserialize<'de> for SchedulerConfig {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        use serde::de::Error;
        let given = Map::<String, Value>::deserialize(from)?;
        let class = match given.get("_class_name") {
            None | Some(Value::Null) => SchedulerClass::Ddim,
            Some(name) => class_name::deserialize(name).map_err(D::Error::custom)?,
        };
        let mut keys = Self::of(class)
            .keys::<serde_json::Error>()
            .map_err(D::Error::custom)?;
        keys.extend(given.into_iter().filter(|(_, value)| !value.is_null()));
        let mut config = Self::deserialize(Value::Object(keys)).map_err(D::Error::custom)?;
        if class == SchedulerClass::Pndm {
            // The reference's class does not have the key, and leaves the betas as they are.
            config.rescale_betas_zero_snr = false;
        }
        Ok(config)
    }
}

impl Default for SchedulerConfig {
    fn default() -> Self {
        Self::of(SchedulerClass::Ddim)
    }
}

impl SchedulerConfig {
    /// diffusers' defaults of a class.
    pub fn of(class: SchedulerClass) -> Self {
        use SchedulerClass::{Ddim, DpmSolver, Euler, Lcm, Pndm, UniPc};
        let (beta_start, beta_end, beta_schedule) = match class {
            Lcm => (0.00085, 0.012, BetaSchedule::ScaledLinear),
            _ => (0.0001, 0.02, BetaSchedule::Linear),
        };
        Self {
            class,
            num_train_timesteps: 1000,
            beta_start,
            beta_end,
            beta_schedule,
            trained_betas: None,
            clip_sample: class == Ddim,
            clip_sample_range: 1.0,
            set_alpha_to_one: class != Pndm,
            steps_offset: 0,
            prediction_type: PredictionType::Epsilon,
            timestep_spacing: match class {
                DpmSolver | Euler | UniPc => TimestepSpacing::Linspace,
                Ddim | Pndm | Lcm => TimestepSpacing::Leading,
            },
            rescale_betas_zero_snr: false,
            thresholding: false,
            skip_prk_steps: false,
            use_karras_sigmas: false,
            final_sigmas_type: FinalSigma::Zero,
            sigma_min: None,
            sigma_max: None,
            solver_order: 2,
            solver_type: if class == UniPc { "bh2" } else { "midpoint" }.into(),
            lower_order_final: true,
            euler_at_final: false,
            algorithm_type: "dpmsolver++".into(),
            lambda_min_clipped: None,
            variance_type: None,
            disable_corrector: Vec::new(),
            predict_x0: true,
            solver_p: None,
            interpolation_type: Interpolation::Linear,
            timestep_type: "discrete".into(),
            original_inference_steps: 50,
            timestep_scaling: 10.0,
            use_exponential_sigmas: false,
            use_beta_sigmas: false,
            use_lu_lambdas: false,
            use_flow_sigmas: false,
        }
    }

    fn keys<E: serde::ser::Error>(&self) -> Result<Map<String, Value>, E> {
        match Self::serialize(self, serde_json::value::Serializer).map_err(E::custom)? {
            Value::Object(keys) => Ok(keys),
            _ => Ok(Map::new()),
        }
    }

    /// Refuses what would change the arithmetic and is not supported.
    ///
    /// # Errors
    /// Names the first such key.
    pub fn validate(&self) -> Result<(), SchedulerError> {
        if self.num_train_timesteps == 0 {
            return refuse("num_train_timesteps", 0, "a positive number");
        }
        let ordered =
            0.0 < self.beta_start && self.beta_start <= self.beta_end && self.beta_end < 1.0;
        if !ordered {
            let found = format!("{} (with `beta_end` {})", self.beta_start, self.beta_end);
            return refuse("beta_start", found, "0 < beta_start ≤ beta_end < 1");
        }
        if let Some(betas) = &self.trained_betas
            && betas.len() != self.num_train_timesteps
        {
            let found = format!("a list of {}", betas.len());
            return refuse("trained_betas", found, "one number per training step");
        }
        for (key, asked) in [
            ("thresholding", self.thresholding),
            ("use_exponential_sigmas", self.use_exponential_sigmas),
            ("use_beta_sigmas", self.use_beta_sigmas),
            ("use_lu_lambdas", self.use_lu_lambdas),
            ("use_flow_sigmas", self.use_flow_sigmas),
        ] {
            if asked {
                return refuse(key, true, "false");
            }
        }
        match self.class {
            SchedulerClass::Ddim => Ok(()),
            SchedulerClass::Pndm => self.validate_pndm(),
            SchedulerClass::DpmSolver => self.validate_dpm_solver(),
            SchedulerClass::Euler if self.timestep_type != "discrete" => {
                refuse("timestep_type", &self.timestep_type, "discrete")
            }
            SchedulerClass::Euler => Ok(()),
            SchedulerClass::UniPc => self.validate_unipc(),
            SchedulerClass::Lcm => {
                let known = 1..=self.num_train_timesteps;
                if known.contains(&self.original_inference_steps) {
                    return Ok(());
                }
                let found = self.original_inference_steps;
                refuse(
                    "original_inference_steps",
                    found,
                    "1 to `num_train_timesteps`",
                )
            }
        }
    }

    fn validate_pndm(&self) -> Result<(), SchedulerError> {
        match self.prediction_type {
            PredictionType::Sample => {
                refuse("prediction_type", "sample", "epsilon or v_prediction")
            }
            _ => Ok(()),
        }
    }

    fn validate_dpm_solver(&self) -> Result<(), SchedulerError> {
        // `deis` is another scheduler's word, which the reference reads as the default.
        if !["dpmsolver++", "deis"].contains(&self.algorithm_type.as_str()) {
            return refuse("algorithm_type", &self.algorithm_type, "dpmsolver++");
        }
        if let Some(found) = &self.variance_type
            && found.starts_with("learned")
        {
            return refuse("variance_type", found, "null");
        }
        self.validate_solver()
    }

    fn validate_unipc(&self) -> Result<(), SchedulerError> {
        if !self.predict_x0 {
            return refuse("predict_x0", false, "true");
        }
        if self.solver_p.is_some() {
            return refuse("solver_p", "another scheduler", "null");
        }
        self.validate_solver()
    }

    fn validate_solver(&self) -> Result<(), SchedulerError> {
        if !(1..=3).contains(&self.solver_order) {
            return refuse("solver_order", self.solver_order, "1, 2 or 3");
        }
        let known = ["midpoint", "heun", "logrho", "bh1", "bh2"];
        if !known.contains(&self.solver_type.as_str()) {
            return refuse("solver_type", &self.solver_type, &known.join(", "));
        }
        Ok(())
    }
}

fn refuse(key: &'static str, found: impl ToString, supported: &str) -> Result<(), SchedulerError> {
    Err(SchedulerError::Unsupported {
        key,
        found: found.to_string(),
        supported: supported.into(),
    })
}
