//! Tokenisers, prompts and keywords. No network.

pub mod byte_pair;
pub mod keyword;
pub mod prompt;
pub mod tokenizer;

pub use byte_pair::{BytePairKind, SpecialTokens};
pub use tokenizer::{PaddingSide, TextTokenizer, TokenizerError};
