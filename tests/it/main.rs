//! One test binary; a module per concern.

mod blip2;
mod captioner;
mod checkpoint;
mod cli;
mod clip;
mod configs;
mod data;
mod demo;
mod diffusion;
mod evaluation;
mod features;
mod generation;
mod layers;
mod llama;
mod mapper;
mod micro;
mod pretraining;
mod recommenders;
mod reflection;
mod retrieval;
mod scheduler;
mod shapes;
mod stickers;
mod support;
mod text;
mod training;
