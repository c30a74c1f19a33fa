//! Building blocks shared by the networks. No network, no file.

pub mod activation;
pub mod attention;
pub mod convolution;
pub mod host;
pub mod linear;
pub mod lora;
pub mod norm;
pub mod precision;
pub mod product;
pub mod rotary;
pub mod timestep;
