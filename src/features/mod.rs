//! Frozen extractors and the store that keeps what they computed.

pub mod caption;
pub mod semantic;
pub mod store;
pub mod visual;
