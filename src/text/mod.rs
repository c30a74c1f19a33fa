//! Tokenisers, prompts and keywords. No network.

pub mod keyword;
pub mod prompt;
pub mod tokenizer;
