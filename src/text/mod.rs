//! Tokenisers, prompts and keywords. No network.

pub mod byte_pair;
pub mod chat;
pub mod keyword;
pub mod prompt;
pub mod tokenizer;

pub use byte_pair::{BytePairKind, SpecialTokens};
pub use chat::{ChatTemplate, ChatTemplateError, Message};
pub use tokenizer::{PaddingSide, TextTokenizer, TokenizerError};
