//! `ragar model`: bring, look into, convert and prove checkpoints.

mod check;
mod convert;
mod inspect;

pub use check::{CheckOptions, check};
pub use convert::convert;
pub use inspect::inspect;
