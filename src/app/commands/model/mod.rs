//! `ragar model`: bring, look into, convert and prove checkpoints.

mod check;
mod convert;
mod fetch;
mod inspect;

pub use check::{CheckOptions, check};
pub use convert::convert;
pub use fetch::fetch;
pub use inspect::inspect;
