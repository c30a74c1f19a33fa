//! Building blocks shared by the networks. No network, no file.

pub mod activation;
pub mod attention;
pub mod linear;
pub mod lora;
pub mod precision;
pub mod rotary;
pub mod timestep;
