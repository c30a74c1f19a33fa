//! Learned tokens (textual inversion) from files, into a text encoder and its tokeniser, and back into a file.
//!
//! Two forms: diffusers' `{token: vectors}` and the web UI's, `string_to_param` in a pickle or `emb_params` in safetensors.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use burn::tensor::{DType, Tensor, TensorData, backend::Backend};
use model_import::{Checkpoint, ImportError, write_tensors};

use crate::networks::clip::{ClipTextConfig, ClipTextModel};
use crate::text::TextTokenizer;

/// What a folder's file is called, in the order looked for.
const FILES: [&str; 2] = ["learned_embeds.safetensors", "learned_embeds.bin"];
/// The web UI's name of the vectors in a pickle.
const PARAMETERS: &str = "string_to_param.*";
/// And in safetensors, where the token is the file's name.
const NAMELESS: &str = "emb_params";

/// A learned token that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TextualInversionError {
    /// The file cannot be read or written.
    #[error(transparent)]
    File(#[from] ImportError),
    /// Neither of the two forms.
    #[error(
        "{}: holds {found}; expected one tensor named after its token, `{PARAMETERS}`, or `{NAMELESS}`", .path.display()
    )]
    Form {
        /// The file.
        path: PathBuf,
        /// The tensors' names.
        found: String,
    },
    /// A file that does not say its token.
    #[error("{}: does not say which token it holds; name one", .path.display())]
    Nameless {
        /// The file.
        path: PathBuf,
    },
    /// Not a vector per token.
    #[error(
        "token `{token}` has vectors of shape {found:?}; the text encoder wants [any, {width}]"
    )]
    Shape {
        /// The token.
        token: String,
        /// The encoder's width.
        width: usize,
        /// What the file holds.
        found: Vec<usize>,
    },
    /// Infinite values or none at all.
    #[error("token `{token}` has values that are no finite numbers: the file is damaged")]
    NotFinite {
        /// The token.
        token: String,
    },
    /// A name that is taken.
    #[error(
        "`{token}` is in the tokeniser's vocabulary already; give the learned token another name"
    )]
    Known {
        /// The token.
        token: String,
    },
}

/// A token with its vectors.
#[derive(Debug, Clone, PartialEq)]
pub struct LearnedToken {
    /// As it is written in prompts.
    pub token: String,
    /// `[tokens, width]` in f32, or a single `[width]`.
    pub vectors: TensorData,
}

impl LearnedToken {
    /// Reads a file, or `learned_embeds` in a folder. `token` names it anew, and has to where the file does not.
    ///
    /// # Errors
    /// A file that is not there or of no known form.
    pub fn open(path: &Path, token: Option<&str>) -> Result<Self, TextualInversionError> {
        let in_folder = FILES.iter().map(|name| path.join(name));
        let file = match path.is_dir() {
            true => in_folder.into_iter().find(|file| file.is_file()),
            false => None,
        };
        let path = file.unwrap_or_else(|| path.to_path_buf());
        let checkpoint = Checkpoint::open(&path)?;
        let (tensor, own_name) = form(&checkpoint, &path)?;
        let token = token.map(String::from).or(own_name);
        let token = token.ok_or_else(|| TextualInversionError::Nameless { path: path.clone() })?;
        let vectors = checkpoint.tensor(&tensor)?.convert_dtype(DType::F32);
        if vectors.iter::<f32>().any(|value| !value.is_finite()) {
            return Err(TextualInversionError::NotFinite { token });
        }
        Ok(Self { token, vectors })
    }

    /// Writes diffusers' form.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn save(&self, path: &Path) -> Result<(), TextualInversionError> {
        let tensors = BTreeMap::from([(self.token.clone(), self.vectors.clone())]);
        let metadata = BTreeMap::from([("format".to_string(), "pt".to_string())]);
        Ok(write_tensors(path, &tensors, &metadata)?)
    }

    /// The token and its others: `<cat>`, `<cat>_1`, `<cat>_2` for three vectors.
    pub fn names(&self) -> Vec<String> {
        let others = (1..self.count()).map(|number| format!("{}_{number}", self.token));
        std::iter::once(self.token.clone()).chain(others).collect()
    }

    fn count(&self) -> usize {
        match *self.vectors.shape.as_slice() {
            [count, _] => count,
            _ => 1,
        }
    }

    /// Adds the token to a text encoder and its tokeniser; returns them and the ids. Prompts then go through
    /// [`TextTokenizer::with_every_vector`].
    ///
    /// # Errors
    /// When the token is known already, or its vectors are of another width than the encoder's.
    pub fn add_to<B: Backend>(
        &self,
        config: &mut ClipTextConfig,
        network: ClipTextModel<B>,
        tokenizer: TextTokenizer,
    ) -> Result<(ClipTextModel<B>, TextTokenizer, Vec<u32>), TextualInversionError> {
        let (width, count) = (config.hidden_size, self.count());
        let shape = self.vectors.shape.as_slice();
        if count == 0 || (shape != [width] && shape != [count, width]) {
            return Err(TextualInversionError::Shape {
                token: self.token.clone(),
                width,
                found: shape.to_vec(),
            });
        }
        let names = self.names();
        // A second vector's name shows that the token was there with several.
        let second = format!("{}_1", self.token);
        if let Some(token) = names
            .iter()
            .chain([&second])
            .find(|name| tokenizer.id(name).is_some())
        {
            return Err(TextualInversionError::Known {
                token: token.clone(),
            });
        }
        let first = tokenizer.vocab_size();
        let tokenizer = tokenizer.with_added_tokens(&names);
        let device = network.embeddings.token_embedding.weight.val().device();
        let values: Vec<f32> = self.vectors.iter::<f32>().collect();
        let vectors = Tensor::from_data(TensorData::new(values, [count, width]), &device);
        let network = network.with_token_vectors(first, vectors);
        config.vocab_size = config.vocab_size.max(first + count);
        let ids = (first..first + count).map(|id| id as u32).collect();
        Ok((network, tokenizer, ids))
    }
}

/// The name of the vectors' tensor, and the token if the file says it.
fn form(
    checkpoint: &Checkpoint,
    path: &Path,
) -> Result<(String, Option<String>), TextualInversionError> {
    if checkpoint.contains(PARAMETERS) {
        return Ok((PARAMETERS.into(), checkpoint.metadata().remove("name")));
    }
    let names: Vec<&str> = checkpoint.names().collect();
    match names.as_slice() {
        // The web UI calls such a token as its file is called.
        [NAMELESS] => {
            let stem = path.file_stem().and_then(|stem| stem.to_str());
            let stem = stem.filter(|stem| *stem != "learned_embeds");
            Ok((NAMELESS.into(), stem.map(String::from)))
        }
        [token] => Ok((token.to_string(), Some(token.to_string()))),
        _ => Err(TextualInversionError::Form {
            path: path.to_path_buf(),
            found: names.join(", "),
        }),
    }
}
