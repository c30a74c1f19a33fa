//! Tokenisers in Hugging Face layout: `tokenizer.json`, or the older `vocab.json` + `merges.txt` of CLIP and GPT-2.
//!
//! The padding and truncation settings inside a `tokenizer.json` are ignored: whoever encodes says the length.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};
use tokenizers::models::ModelWrapper;

use super::byte_pair::{self, BytePairKind, CLIP_WORD_END, SpecialTokens};
use super::chat::ChatTemplate;

/// A tokeniser that cannot be read, made or written.
#[derive(Debug, thiserror::Error)]
pub enum TokenizerError {
    /// The folder holds none of the layouts that are understood.
    #[error(
        "{}: no tokeniser: expected tokenizer.json, or vocab.json with merges.txt{hint}",
        .dir.display()
    )]
    Missing {
        /// The folder.
        dir: PathBuf,
        /// A remark on what was found instead.
        hint: String,
    },
    /// A file cannot be read.
    #[error("{}: cannot be read: {source}", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file's content is not what its name promises.
    #[error("{}: {detail}", .path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What was expected and what stands there.
        detail: String,
    },
    /// A file cannot be written.
    #[error("{}: cannot be written: {source}", .path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The vocabulary asked for cannot hold the bytes and the special tokens.
    #[error("a vocabulary of {requested} tokens is too small: this kind needs at least {smallest}")]
    VocabularySize {
        /// Asked for.
        requested: usize,
        /// The least possible.
        smallest: usize,
    },
    /// The tokeniser library refused.
    #[error("training the tokeniser failed: {0}")]
    Training(String),
}

mod added;

/// On which side short rows of a batch are filled up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PaddingSide {
    /// After the text.
    Right,
    /// Before the text, as batched generation needs.
    Left,
}

/// A loaded tokeniser.
#[derive(Debug, Clone)]
pub struct TextTokenizer {
    inner: tokenizers::Tokenizer,
    bos: Option<u32>,
    eos: Option<u32>,
    pad: u32,
    max_length: Option<usize>,
    padding_side: PaddingSide,
    /// Special tokens put before and after every text.
    num_prefix: usize,
    num_suffix: usize,
    /// `tokenizer_config.json`, kept for saving.
    config: Map<String, Value>,
}

impl TextTokenizer {
    /// Opens the tokeniser in folder `dir`.
    ///
    /// # Errors
    /// When no known layout is there, or a file is broken; the message names the file.
    pub fn open(dir: &Path) -> Result<Self, TokenizerError> {
        let config_path = dir.join("tokenizer_config.json");
        let mut config = read_object(&dir.join("special_tokens_map.json"))?.unwrap_or_default();
        config.extend(read_object(&config_path)?.unwrap_or_default());
        if let Some(template) = read_chat_template(dir)? {
            config.insert("chat_template".into(), template.into());
        }
        let path = dir.join("tokenizer.json");
        if path.is_file() {
            let bytes = read(&path)?;
            return Self::from_definition(&bytes, config, &path);
        }
        let (vocab_path, merges_path) = (dir.join("vocab.json"), dir.join("merges.txt"));
        let Some(vocab) = read_object(&vocab_path)? else {
            return Err(missing(dir));
        };
        if !merges_path.is_file() {
            return Err(missing(dir));
        }
        let merges = read_merges(&merges_path)?;
        let definition = legacy_definition(&vocab_path, vocab, merges, &config)?;
        Self::from_definition(definition.to_string().as_bytes(), config, &vocab_path)
    }

    /// Learns a byte-pair vocabulary of at most `vocab_size` tokens from the texts of `corpus`.
    ///
    /// # Errors
    /// When `vocab_size` cannot hold the bytes and the special tokens.
    pub fn train_byte_pair<'a>(
        corpus: impl IntoIterator<Item = &'a str>,
        vocab_size: usize,
        kind: &BytePairKind,
    ) -> Result<Self, TokenizerError> {
        let smallest = kind.smallest_vocabulary();
        if vocab_size < smallest {
            return Err(TokenizerError::VocabularySize {
                requested: vocab_size,
                smallest,
            });
        }
        let definition = byte_pair::train(corpus, vocab_size, kind)
            .map_err(|e| TokenizerError::Training(e.to_string()))?;
        let (special, class) = match kind {
            BytePairKind::Clip => (byte_pair::clip_special(), "CLIPTokenizer"),
            BytePairKind::ByteLevel(special) => (special.clone(), "PreTrainedTokenizerFast"),
        };
        let mut config = Map::new();
        config.insert("tokenizer_class".into(), class.into());
        for (role, token) in [
            ("bos_token", special.bos),
            ("eos_token", special.eos),
            ("pad_token", special.pad),
            ("unk_token", special.unk),
        ] {
            if let Some(token) = token {
                config.insert(role.into(), token.into());
            }
        }
        match kind {
            BytePairKind::Clip => {
                config.insert("do_lower_case".into(), true.into());
            }
            BytePairKind::ByteLevel(_) => {
                config.insert("add_bos_token".into(), special.add_bos.into());
                config.insert("add_prefix_space".into(), false.into());
            }
        }
        Self::from_definition(
            definition.to_string().as_bytes(),
            config,
            Path::new("tokenizer.json"),
        )
    }

    fn from_definition(
        bytes: &[u8],
        config: Map<String, Value>,
        path: &Path,
    ) -> Result<Self, TokenizerError> {
        let content = |detail: String| TokenizerError::Content {
            path: path.to_path_buf(),
            detail,
        };
        let mut inner = tokenizers::Tokenizer::from_bytes(bytes)
            .map_err(|e| content(format!("not a tokeniser definition: {e}")))?;
        let _ = inner
            .with_padding(None)
            .with_truncation(None)
            .map_err(|e| content(e.to_string()))?;
        // An encoder without its unknown token fails on the first unknown character: find out now.
        let probe = |text: &str, special: bool| {
            inner
                .encode(text, special)
                .map(|e| e.get_ids().to_vec())
                .map_err(|e| content(format!("cannot encode {text:?}: {e}")))
        };
        probe("\u{1F342}\u{0}\u{7f}", false)?;
        let (plain, wrapped) = (probe("a", false)?, probe("a", true)?);
        let num_prefix = wrapped
            .windows(plain.len().max(1))
            .position(|window| window == plain)
            .unwrap_or(0);
        let num_suffix = wrapped.len().saturating_sub(plain.len() + num_prefix);
        let role = |name: &str| token_of(&config, name).and_then(|t| inner.token_to_id(&t));
        let (bos, eos) = (role("bos_token"), role("eos_token"));
        // A file without roles: CLIP's and Llama's own names, which every conversion keeps.
        let named = |names: &[&str]| names.iter().find_map(|name| inner.token_to_id(name));
        let bos = bos.or_else(|| named(&[byte_pair::CLIP_START, "<s>"]));
        let eos = eos.or_else(|| named(&[byte_pair::CLIP_END, "</s>"]));
        let pad = role("pad_token").or(eos).unwrap_or(0);
        let max_length = config
            .get("model_max_length")
            .and_then(Value::as_f64)
            .filter(|length| (1.0..1e6).contains(length))
            .map(|length| length as usize);
        let padding_side = match config.get("padding_side").and_then(Value::as_str) {
            Some("left") => PaddingSide::Left,
            _ => PaddingSide::Right,
        };
        Ok(Self {
            inner,
            bos,
            eos,
            pad,
            max_length,
            padding_side,
            num_prefix,
            num_suffix,
            config,
        })
    }

    /// The ids of `text`, with the special tokens that the folder's tokeniser puts round it.
    pub fn encode(&self, text: &str) -> Vec<u32> {
        self.ids(text, true)
    }

    /// The ids of `text` alone.
    pub fn encode_plain(&self, text: &str) -> Vec<u32> {
        self.ids(text, false)
    }

    fn ids(&self, text: &str, special: bool) -> Vec<u32> {
        self.inner
            .encode_fast(text, special)
            .expect("a tokeniser whose unknown token was probed on opening encodes any text")
            .get_ids()
            .to_vec()
    }

    /// Rows of exactly `length` ids and, of the same shape, which of them are real. Long texts lose the end of
    /// their own words, never the end token; short ones are filled up with the padding token.
    pub fn encode_padded(&self, texts: &[&str], length: usize) -> (Vec<Vec<u32>>, Vec<Vec<bool>>) {
        texts
            .iter()
            .map(|text| {
                let mut ids = self.truncated(text, length);
                let mut mask = vec![true; ids.len()];
                let missing = length - ids.len();
                match self.padding_side {
                    PaddingSide::Right => {
                        ids.resize(length, self.pad);
                        mask.resize(length, false);
                    }
                    PaddingSide::Left => {
                        ids.splice(0..0, std::iter::repeat_n(self.pad, missing));
                        mask.splice(0..0, std::iter::repeat_n(false, missing));
                    }
                }
                (ids, mask)
            })
            .unzip()
    }

    /// At most `length` ids of `text`; the special tokens stay.
    pub fn truncated(&self, text: &str, length: usize) -> Vec<u32> {
        let mut ids = self.encode(text);
        if ids.len() > length {
            let end = ids.len();
            let suffix = self.num_suffix.min(length);
            ids.drain(length - suffix..end - suffix);
        }
        ids
    }

    /// The text of `ids`, without special tokens.
    pub fn decode(&self, ids: &[u32]) -> String {
        let text = self
            .inner
            .decode(ids, true)
            .expect("decoding unknown ids skips them");
        match self.word_end() {
            Some(end) => text.replace(end, " ").trim().to_string(),
            None => text,
        }
    }

    /// CLIP's decoder leaves the word ends in the text.
    fn word_end(&self) -> Option<&str> {
        match self.inner.get_model() {
            ModelWrapper::BPE(model) => model
                .end_of_word_suffix
                .as_deref()
                .filter(|end| !end.is_empty()),
            _ => None,
        }
    }

    /// The id of one token as the vocabulary spells it.
    pub fn id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// The spelling of one id.
    pub fn token(&self, id: u32) -> Option<String> {
        self.inner.id_to_token(id)
    }

    /// One more than the largest id, added tokens included.
    pub fn vocab_size(&self) -> usize {
        let largest = self.inner.get_vocab(true).into_values().max();
        largest.map_or(0, |id| id as usize + 1)
    }

    /// The start token.
    pub fn bos_id(&self) -> Option<u32> {
        self.bos
    }

    /// The end token.
    pub fn eos_id(&self) -> Option<u32> {
        self.eos
    }

    /// The padding token; where none is named, the end token.
    pub fn pad_id(&self) -> u32 {
        self.pad
    }

    /// How many special tokens stand before a text.
    pub fn num_prefix(&self) -> usize {
        self.num_prefix
    }

    /// The context length that the folder names.
    pub fn max_length(&self) -> Option<usize> {
        self.max_length
    }

    /// How an instruction-tuned model wants to be spoken to; none where the folder does not say.
    pub fn chat_template(&self) -> Option<ChatTemplate> {
        let source = match self.config.get("chat_template")? {
            Value::String(source) => source,
            // Several templates, each with its purpose.
            Value::Array(named) => {
                named.iter().find(|entry| entry["name"] == "default")?["template"].as_str()?
            }
            _ => return None,
        };
        let roles = ["bos_token", "eos_token", "pad_token", "unk_token"];
        let tokens = roles.into_iter();
        let tokens = tokens.filter_map(|role| Some((role, token_of(&self.config, role)?)));
        let path = Path::new("tokenizer_config.json");
        Some(ChatTemplate::new(path, source, tokens.collect()))
    }

    /// Names the context length, for saving.
    pub fn with_max_length(mut self, length: usize) -> Self {
        self.max_length = Some(length);
        self.config.insert("model_max_length".into(), length.into());
        self
    }

    /// Fills up short rows on `side`.
    pub fn with_padding_side(mut self, side: PaddingSide) -> Self {
        self.padding_side = side;
        self
    }

    /// Writes `tokenizer.json`, `tokenizer_config.json`, `special_tokens_map.json` and, for byte-pair vocabularies,
    /// `vocab.json` with `merges.txt`, so that older readers load the folder too.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn save(&self, dir: &Path) -> Result<(), TokenizerError> {
        fs::create_dir_all(dir).map_err(|source| TokenizerError::Write {
            path: dir.to_path_buf(),
            source,
        })?;
        let path = dir.join("tokenizer.json");
        let content = |detail: String| TokenizerError::Content {
            path: path.clone(),
            detail,
        };
        let text = self
            .inner
            .to_string(true)
            .map_err(|e| content(e.to_string()))?;
        let definition: Value = serde_json::from_str(&text).map_err(|e| content(e.to_string()))?;
        write(&path, &text)?;
        if let Some(vocab) = definition["model"]["vocab"].as_object() {
            let mut entries: Vec<(&String, &Value)> = vocab.iter().collect();
            entries.sort_by_key(|(_, id)| id.as_u64());
            let ordered: Map<String, Value> = entries
                .into_iter()
                .map(|(token, id)| (token.clone(), id.clone()))
                .collect();
            write(&dir.join("vocab.json"), &Value::Object(ordered).to_string())?;
        }
        if let Some(merges) = definition["model"]["merges"].as_array() {
            let mut lines = String::from("#version: 0.2\n");
            for pair in merges {
                let (left, right) = (pair[0].as_str(), pair[1].as_str());
                lines.push_str(&format!(
                    "{} {}\n",
                    left.unwrap_or_default(),
                    right.unwrap_or_default()
                ));
            }
            write(&dir.join("merges.txt"), &lines)?;
        }
        let roles: Map<String, Value> = ["bos_token", "eos_token", "pad_token", "unk_token"]
            .iter()
            .filter_map(|role| token_of(&self.config, role).map(|t| (role.to_string(), t.into())))
            .collect();
        write(
            &dir.join("special_tokens_map.json"),
            &pretty(&Value::Object(roles)),
        )?;
        write(
            &dir.join("tokenizer_config.json"),
            &pretty(&json!(self.config)),
        )
    }
}

/// The `tokenizer.json` of a `vocab.json` + `merges.txt` folder.
fn legacy_definition(
    vocab_path: &Path,
    vocab: Map<String, Value>,
    merges: Vec<Value>,
    config: &Map<String, Value>,
) -> Result<Value, TokenizerError> {
    let class = config.get("tokenizer_class").and_then(Value::as_str);
    let clip = match class {
        Some(class) => class.starts_with("CLIPTokenizer"),
        None => vocab.keys().any(|token| token.ends_with(CLIP_WORD_END)),
    };
    let special = if clip {
        let mut special = byte_pair::clip_special();
        special.pad = token_of(config, "pad_token").or(special.pad);
        special
    } else {
        let role = |name: &str| token_of(config, name);
        let mut tokens: Vec<String> = ["bos_token", "eos_token", "pad_token", "unk_token"]
            .iter()
            .filter_map(|name| role(name))
            .filter(|token| vocab.contains_key(token))
            .collect();
        tokens.sort();
        tokens.dedup();
        SpecialTokens {
            tokens,
            bos: role("bos_token"),
            eos: role("eos_token"),
            pad: role("pad_token"),
            unk: role("unk_token"),
            add_bos: config.get("add_bos_token").and_then(Value::as_bool) == Some(true),
            add_eos: false,
        }
    };
    let start = special.bos.iter().filter(|_| special.add_bos);
    let end = special.eos.iter().filter(|_| special.add_eos);
    for token in start.chain(end) {
        if !vocab.contains_key(token) {
            return Err(TokenizerError::Content {
                path: vocab_path.to_path_buf(),
                detail: format!("the special token {token:?} is not in the vocabulary"),
            });
        }
    }
    let kind = if clip {
        BytePairKind::Clip
    } else {
        BytePairKind::ByteLevel(special.clone())
    };
    Ok(byte_pair::tokenizer_json(
        &kind, vocab, merges, &special, true,
    ))
}

/// The token in a role, written as a string or as an object with `content`.
fn token_of(config: &Map<String, Value>, role: &str) -> Option<String> {
    let value = config.get(role)?;
    let token = value.as_str().or_else(|| value.get("content")?.as_str());
    token.map(String::from)
}

/// The template in a file of its own, which newer folders have.
fn read_chat_template(dir: &Path) -> Result<Option<String>, TokenizerError> {
    let path = dir.join("chat_template.jinja");
    if path.is_file() {
        let content = |_| TokenizerError::Content {
            path: path.clone(),
            detail: "not UTF-8 text".into(),
        };
        return String::from_utf8(read(&path)?).map(Some).map_err(content);
    }
    let named = read_object(&dir.join("chat_template.json"))?;
    Ok(named.and_then(|named| Some(named.get("chat_template")?.as_str()?.to_string())))
}

fn missing(dir: &Path) -> TokenizerError {
    let hint = if dir.join("tokenizer.model").is_file() || dir.join("spiece.model").is_file() {
        "; a SentencePiece model is here: save it once with transformers' fast tokeniser to get tokenizer.json"
    } else {
        ""
    };
    TokenizerError::Missing {
        dir: dir.to_path_buf(),
        hint: hint.into(),
    }
}

fn read(path: &Path) -> Result<Vec<u8>, TokenizerError> {
    fs::read(path).map_err(|source| TokenizerError::Read {
        path: path.to_path_buf(),
        source,
    })
}

/// A JSON object; `None` where the file does not exist.
fn read_object(path: &Path) -> Result<Option<Map<String, Value>>, TokenizerError> {
    if !path.is_file() {
        return Ok(None);
    }
    serde_json::from_slice(&read(path)?)
        .map(Some)
        .map_err(|e| TokenizerError::Content {
            path: path.to_path_buf(),
            detail: format!("not a JSON object: {e}"),
        })
}

fn read_merges(path: &Path) -> Result<Vec<Value>, TokenizerError> {
    let content = |detail: String| TokenizerError::Content {
        path: path.to_path_buf(),
        detail,
    };
    let text = String::from_utf8(read(path)?).map_err(|_| content("not UTF-8 text".into()))?;
    text.lines()
        .enumerate()
        .filter(|(number, line)| {
            !(line.trim().is_empty() || (*number == 0 && line.starts_with("#version")))
        })
        .map(|(number, line)| match line.split_once(' ') {
            Some((left, right)) if !right.contains(' ') => Ok(json!([left, right])),
            _ => Err(content(format!(
                "line {}: expected two pieces with one space between, found {line:?}",
                number + 1
            ))),
        })
        .collect()
}

fn pretty(value: &Value) -> String {
    let mut text = serde_json::to_string_pretty(value).expect("JSON values serialise");
    text.push('\n');
    text
}

/// Writes to a file beside it, then renames. (The room knows no model files, and so not how `model-import` does the same.)
fn write(path: &Path, text: &str) -> Result<(), TokenizerError> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let aside = path.with_file_name(format!(".{name}.{}.partial", std::process::id()));
    let attempt = || -> std::io::Result<()> {
        let mut file = fs::File::create(&aside)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&aside, path)
    };
    attempt().map_err(|source| {
        let _ = fs::remove_file(&aside);
        TokenizerError::Write {
            path: path.to_path_buf(),
            source,
        }
    })
}
