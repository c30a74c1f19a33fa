//! Tokens added after training, such as those of textual inversion.

use tokenizers::AddedToken;

use super::TextTokenizer;

impl TextTokenizer {
    /// The tokeniser with `tokens` at the end of its vocabulary, each found whole wherever it stands in a text.
    /// A token that is known already keeps its id.
    pub fn with_added_tokens(mut self, tokens: &[String]) -> Self {
        let tokens: Vec<AddedToken> = tokens
            .iter()
            .map(|token| AddedToken::from(token.as_str(), false))
            .collect();
        self.inner.add_tokens(&tokens);
        self
    }

    /// `prompt` with every added token of several vectors followed by its others: `<cat>` becomes
    /// `<cat> <cat>_1 <cat>_2` where those are added tokens, too (diffusers' `maybe_convert_prompt`).
    pub fn with_every_vector(&self, prompt: &str) -> String {
        let added = self.inner.get_added_vocabulary().get_vocab();
        let mut tokens: Vec<String> = self
            .encode_plain(prompt)
            .into_iter()
            .filter_map(|id| self.token(id))
            .filter(|token| added.contains_key(token) && added.contains_key(&format!("{token}_1")))
            .collect();
        tokens.sort();
        tokens.dedup();
        tokens.into_iter().fold(prompt.to_string(), |text, token| {
            let others = (1..).map(|number| format!("{token}_{number}"));
            let others = others.take_while(|other| added.contains_key(other));
            let whole: Vec<String> = std::iter::once(token.clone()).chain(others).collect();
            text.replace(&token, &whole.join(" "))
        })
    }
}
