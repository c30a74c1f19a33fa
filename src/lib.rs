//! RAGAR: retrieval-augmented personalised image generation guided by recommendation
//! (arXiv 2505.01657), on the Burn framework.
//!
//! Layers, from the top; a room imports only from rooms below its own line, never from its neighbours:
//!
//! ```text
//! 7 app            command line, run configuration, backend, commands, report
//! 6 training · pretraining · evaluation
//! 5 reflection · preparation · baselines
//! 4 retrieval · generation
//! 3 features · pretrained
//! 2 networks · recommender · data
//! 1 nn · text · optimisation
//! 0 [model-import] [host-kernels]
//! ```
//!
//! The main path is [`reflection::step`]: one training step, equation by equation.

pub mod app;
pub mod baselines;
pub mod data;
pub mod evaluation;
pub mod features;
pub mod generation;
pub mod networks;
pub mod nn;
pub mod optimisation;
pub mod preparation;
pub mod pretrained;
pub mod pretraining;
pub mod recommender;
pub mod reflection;
pub mod retrieval;
pub mod text;
pub mod training;
