//! Blip2.
