//! Byte-pair vocabularies: learning the merges of a small corpus, and the `tokenizer.json` that carries them.
//!
//! Two dialects: CLIP's (lower case, words end in `</w>`, start and end tokens round every text) and the
//! byte-level one of GPT-2, OPT and most Llama descendants (a leading space belongs to the word).
//! Training is deterministic: ties between equally frequent pairs go to the alphabetically first pair.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use tokenizers::tokenizer::{
    NormalizedString, Normalizer, OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer,
};

/// CLIP's start token.
pub const CLIP_START: &str = "<|startoftext|>";
/// CLIP's end token, which also pads and stands for the unknown.
pub const CLIP_END: &str = "<|endoftext|>";
/// What CLIP's vocabulary appends to the last piece of a word.
pub const CLIP_WORD_END: &str = "</w>";

/// How CLIP cuts a text into words (`CLIPTokenizer` of transformers).
const CLIP_WORDS: &str =
    r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+";

/// The special tokens of a byte-level vocabulary.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SpecialTokens {
    /// All special tokens, in the order of their ids, which start at 0.
    pub tokens: Vec<String>,
    /// Start of a text.
    pub bos: Option<String>,
    /// End of a text.
    pub eos: Option<String>,
    /// Fills up short rows of a batch.
    pub pad: Option<String>,
    /// Stands for what the vocabulary lacks (never needed by a byte-level vocabulary, but named in its files).
    pub unk: Option<String>,
    /// Whether encoding puts `bos` before the text.
    pub add_bos: bool,
    /// Whether encoding puts `eos` after the text.
    pub add_eos: bool,
}

/// The dialect of a byte-pair vocabulary.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BytePairKind {
    /// CLIP's; its two special tokens take the two largest ids, as both of CLIP's end-token rules expect.
    Clip,
    /// GPT-2's, with the special tokens given.
    ByteLevel(SpecialTokens),
}

impl BytePairKind {
    /// OPT's arrangement: `<s>` 0, `<pad>` 1, `</s>` 2, `<unk>` 3, and `</s>` starts every text.
    pub fn opt() -> Self {
        Self::ByteLevel(SpecialTokens {
            tokens: ["<s>", "<pad>", "</s>", "<unk>"].map(String::from).into(),
            bos: Some("</s>".into()),
            eos: Some("</s>".into()),
            pad: Some("<pad>".into()),
            unk: Some("<unk>".into()),
            add_bos: true,
            add_eos: false,
        })
    }

    /// Llama's arrangement: `<unk>` 0, `<s>` 1, `</s>` 2, then `extra`; `<s>` starts every text, `</s>` pads.
    pub fn llama(extra: &[&str]) -> Self {
        let mut tokens: Vec<String> = ["<unk>", "<s>", "</s>"].map(String::from).into();
        tokens.extend(extra.iter().map(|t| t.to_string()));
        Self::ByteLevel(SpecialTokens {
            tokens,
            bos: Some("<s>".into()),
            eos: Some("</s>".into()),
            pad: Some("</s>".into()),
            unk: Some("<unk>".into()),
            add_bos: true,
            add_eos: false,
        })
    }

    /// The smallest vocabulary of this dialect: every byte and the special tokens.
    pub fn smallest_vocabulary(&self) -> usize {
        match self {
            Self::Clip => 512 + 2,
            Self::ByteLevel(special) => 256 + special.tokens.len(),
        }
    }
}

/// The printable stand-ins of the 256 bytes, in the order of GPT-2's and CLIP's vocabularies.
pub(super) fn byte_alphabet() -> Vec<String> {
    let printable = |byte: &u32| {
        (0x21..=0x7e).contains(byte) || (0xa1..=0xac).contains(byte) || (0xae..=0xff).contains(byte)
    };
    let unprintable = (0..256).filter(|byte| !printable(byte)).count() as u32;
    (0..256)
        .filter(printable)
        .chain(256..256 + unprintable)
        .filter_map(char::from_u32)
        .map(String::from)
        .collect()
}

/// Learns a vocabulary of at most `vocab_size` tokens (special ones included) and returns its `tokenizer.json`.
/// A pair must occur twice to be merged, so a small corpus may give fewer.
pub(super) fn train<'a>(
    corpus: impl IntoIterator<Item = &'a str>,
    vocab_size: usize,
    kind: &BytePairKind,
) -> tokenizers::Result<Value> {
    let suffix = match kind {
        BytePairKind::Clip => CLIP_WORD_END,
        BytePairKind::ByteLevel(_) => "",
    };
    let cutter = tokenizers::Tokenizer::from_bytes(definition(kind, &[], &[], false).to_string())?;
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for text in corpus {
        let mut text = NormalizedString::from(text);
        if let Some(normalizer) = cutter.get_normalizer() {
            normalizer.normalize(&mut text)?;
        }
        let mut words = PreTokenizedString::from(text);
        if let Some(pre_tokenizer) = cutter.get_pre_tokenizer() {
            pre_tokenizer.pre_tokenize(&mut words)?;
        }
        for (word, _, _) in words.get_splits(OffsetReferential::Original, OffsetType::Byte) {
            *counts.entry(word.to_string()).or_default() += 1;
        }
    }
    let mut words: Vec<(Vec<String>, usize)> = counts
        .into_iter()
        .filter(|(word, _)| !word.is_empty())
        .map(|(word, count)| {
            let mut pieces: Vec<String> = word.chars().map(String::from).collect();
            if let Some(last) = pieces.last_mut() {
                last.push_str(suffix);
            }
            (pieces, count)
        })
        .collect();

    let num_merges = vocab_size.saturating_sub(kind.smallest_vocabulary());
    let mut merges: Vec<(String, String)> = Vec::with_capacity(num_merges);
    while merges.len() < num_merges {
        let mut pairs: BTreeMap<(&str, &str), usize> = BTreeMap::new();
        for (pieces, count) in &words {
            for pair in pieces.windows(2) {
                *pairs.entry((&pair[0], &pair[1])).or_default() += count;
            }
        }
        // `max_by_key` keeps the last of equals: walk backwards so that the first pair wins.
        let best = pairs.into_iter().rev().max_by_key(|(_, count)| *count);
        let Some(((left, right), count)) = best else {
            break;
        };
        if count < 2 {
            break;
        }
        let pair = (left.to_string(), right.to_string());
        for (pieces, _) in &mut words {
            merge(pieces, &pair);
        }
        merges.push(pair);
    }
    let base = base_vocabulary(kind);
    Ok(definition(kind, &base, &merges, true))
}

/// Joins every occurrence of `pair`, from the left.
fn merge(pieces: &mut Vec<String>, pair: &(String, String)) {
    let mut place = 0;
    while place + 1 < pieces.len() {
        if pieces[place] == pair.0 && pieces[place + 1] == pair.1 {
            let right = pieces.remove(place + 1);
            pieces[place].push_str(&right);
        }
        place += 1;
    }
}

/// The bytes of a dialect, as its vocabulary lists them.
fn base_vocabulary(kind: &BytePairKind) -> Vec<String> {
    let bytes = byte_alphabet();
    match kind {
        BytePairKind::Clip => {
            let ends: Vec<String> = bytes
                .iter()
                .map(|b| format!("{b}{CLIP_WORD_END}"))
                .collect();
            bytes.into_iter().chain(ends).collect()
        }
        BytePairKind::ByteLevel(_) => bytes,
    }
}

/// The `tokenizer.json` of a dialect with the given bytes and merges. Without `with_special`, one that only cuts words.
fn definition(
    kind: &BytePairKind,
    base: &[String],
    merges: &[(String, String)],
    with_special: bool,
) -> Value {
    let mut tokens: Vec<String> = Vec::new();
    if let (BytePairKind::ByteLevel(special), true) = (kind, with_special) {
        tokens.extend(special.tokens.iter().cloned());
    }
    tokens.extend(base.iter().cloned());
    let mut seen: std::collections::BTreeSet<String> = tokens.iter().cloned().collect();
    for (left, right) in merges {
        // Two different pairs may spell the same token; it keeps its first id.
        let joined = format!("{left}{right}");
        if seen.insert(joined.clone()) {
            tokens.push(joined);
        }
    }
    if matches!(kind, BytePairKind::Clip) && with_special {
        tokens.extend([CLIP_START.to_string(), CLIP_END.to_string()]);
    }
    let vocab: Map<String, Value> = tokens
        .into_iter()
        .enumerate()
        .map(|(id, token)| (token, id.into()))
        .collect();
    let merges = merges.iter().map(|(l, r)| json!([l, r])).collect();
    let special = match kind {
        BytePairKind::Clip => clip_special(),
        BytePairKind::ByteLevel(special) => special.clone(),
    };
    tokenizer_json(kind, vocab, merges, &special, with_special)
}

/// CLIP's two tokens in all their roles.
pub(super) fn clip_special() -> SpecialTokens {
    SpecialTokens {
        tokens: vec![CLIP_START.into(), CLIP_END.into()],
        bos: Some(CLIP_START.into()),
        eos: Some(CLIP_END.into()),
        pad: Some(CLIP_END.into()),
        unk: Some(CLIP_END.into()),
        add_bos: true,
        add_eos: true,
    }
}

/// Puts together a `tokenizer.json` as transformers would for `CLIPTokenizer` or `GPT2Tokenizer`.
pub(super) fn tokenizer_json(
    kind: &BytePairKind,
    vocab: Map<String, Value>,
    merges: Vec<Value>,
    special: &SpecialTokens,
    with_special: bool,
) -> Value {
    let byte_level = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true});
    let clip = matches!(kind, BytePairKind::Clip);
    let (normalizer, pre_tokenizer) = if clip {
        (
            json!({"type": "Sequence", "normalizers": [
                {"type": "NFC"},
                {"type": "Replace", "pattern": {"Regex": r"\s+"}, "content": " "},
                {"type": "Lowercase"},
            ]}),
            json!({"type": "Sequence", "pretokenizers": [
                {"type": "Split", "pattern": {"Regex": CLIP_WORDS}, "behavior": "Removed", "invert": true},
                byte_level,
            ]}),
        )
    } else {
        (Value::Null, byte_level.clone())
    };
    let id = |token: &str| vocab.get(token).cloned().unwrap_or(Value::Null);
    let added: Vec<Value> = special
        .tokens
        .iter()
        .filter(|token| with_special && vocab.contains_key(*token))
        .map(|token| {
            json!({"id": id(token), "content": token, "single_word": false, "lstrip": false,
                   "rstrip": false, "normalized": false, "special": true})
        })
        .collect();
    let post_processor = if with_special {
        template(special, &id)
    } else {
        Value::Null
    };
    let unk = match (&special.unk, clip && with_special) {
        (Some(unk), true) => json!(unk),
        _ => Value::Null,
    };
    json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": added,
        "normalizer": normalizer,
        "pre_tokenizer": pre_tokenizer,
        "post_processor": post_processor,
        "decoder": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
        "model": {
            "type": "BPE",
            "dropout": null,
            "unk_token": unk,
            "continuing_subword_prefix": "",
            "end_of_word_suffix": if clip { CLIP_WORD_END } else { "" },
            "fuse_unk": false,
            "byte_fallback": false,
            "vocab": vocab,
            "merges": Value::Array(merges),
        },
    })
}

/// The template that puts start and end tokens round a text.
fn template(special: &SpecialTokens, id: &dyn Fn(&str) -> Value) -> Value {
    let start = special.bos.as_ref().filter(|_| special.add_bos);
    let end = special.eos.as_ref().filter(|_| special.add_eos);
    let piece = |token: &String| json!({"SpecialToken": {"id": token, "type_id": 0}});
    let text = |name: &str| json!({"Sequence": {"id": name, "type_id": 0}});
    let single: Vec<Value> = start
        .map(piece)
        .into_iter()
        .chain([text("A")])
        .chain(end.map(piece))
        .collect();
    let pair: Vec<Value> = single
        .iter()
        .cloned()
        .chain([text("B")])
        .chain(end.map(piece))
        .collect();
    let specials: Map<String, Value> = start
        .into_iter()
        .chain(end)
        .map(|token| {
            let entry = json!({"id": token, "ids": [id(token)], "tokens": [token]});
            (token.clone(), entry)
        })
        .collect();
    json!({"type": "TemplateProcessing", "single": single, "pair": pair, "special_tokens": specials})
}
