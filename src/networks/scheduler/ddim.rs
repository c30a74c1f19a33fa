//! DDIM.
