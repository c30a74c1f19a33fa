//! Tokenisers: the reference's ids, files of several layouts, training, errors.

use std::path::Path;

use ragar::text::{
    BytePairKind, ChatTemplate, Message, PaddingSide, TextTokenizer, TokenizerError,
};

use crate::support::{Golden, golden_dir};

const CORPUS: [&str; 6] = [
    "a glossy 3d sticker of a hamburger, food",
    "a smooth flat sticker of a hamburger, food",
    "a simple cartoon sticker of a cat face, animal",
    "a bold retro sticker of a cat, animal",
    "a soft shaded sticker of a red car, transport",
    "3d food, flat animal, hamburger",
];

#[test]
fn clip_ids_equal_the_reference() {
    let golden = Golden::open("pipeline");
    let dir = golden_dir("pipeline").join("model/tokenizer");
    let tokenizer = TextTokenizer::open(&dir).unwrap();
    let texts: Vec<String> =
        serde_json::from_str(&golden.metadata("tokenizer_texts").unwrap()).unwrap();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let expected: Vec<i64> = golden.data("output.tokenizer_ids").iter::<i64>().collect();
    assert_eq!(tokenizer.max_length(), Some(77));
    let (rows, mask) = tokenizer.encode_padded(&texts, 77);
    for (number, row) in rows.iter().enumerate() {
        let row: Vec<i64> = row.iter().map(|id| i64::from(*id)).collect();
        assert_eq!(
            row,
            expected[number * 77..(number + 1) * 77],
            "text {number}: {:?}",
            texts[number]
        );
    }
    assert_eq!(mask[0].iter().filter(|real| **real).count(), 2);
}

#[test]
fn saved_tokenisers_open_in_both_layouts() {
    for kind in [
        BytePairKind::Clip,
        BytePairKind::opt(),
        BytePairKind::llama(&["[INST]"]),
    ] {
        let trained = TextTokenizer::train_byte_pair(CORPUS, 700, &kind).unwrap();
        let dir = tempfile::tempdir().unwrap();
        trained.save(dir.path()).unwrap();
        let whole = TextTokenizer::open(dir.path()).unwrap();
        let text = "A glossy 3d sticker of an unseen caf\u{e9}, it's\n food";
        assert_eq!(trained.encode(text), whole.encode(text));
        assert_eq!(trained.vocab_size(), whole.vocab_size());
        assert_eq!(trained.eos_id(), whole.eos_id());
        assert_eq!(trained.pad_id(), whole.pad_id());
        std::fs::remove_file(dir.path().join("tokenizer.json")).unwrap();
        let pieces = TextTokenizer::open(dir.path()).unwrap();
        assert_eq!(trained.encode(text), pieces.encode(text), "{kind:?}");
    }
}

#[test]
fn training_is_deterministic_and_merges_words() {
    let train = || TextTokenizer::train_byte_pair(CORPUS, 600, &BytePairKind::Clip).unwrap();
    let (first, second) = (train(), train());
    let text = "a glossy 3d sticker of a hamburger, food";
    assert_eq!(first.encode(text), second.encode(text));
    assert!(first.id("sticker</w>").is_some());
    assert_eq!(first.eos_id(), Some(first.vocab_size() as u32 - 1));
    assert_eq!(
        first.decode(&first.encode(text)),
        "a glossy 3 d sticker of a hamburger , food"
    );
}

#[test]
fn byte_level_text_comes_back_whole() {
    let tokenizer = TextTokenizer::train_byte_pair(CORPUS, 400, &BytePairKind::opt()).unwrap();
    let text = "A glossy 3d  sticker \u{1F342}\n";
    let ids = tokenizer.encode(text);
    assert_eq!(ids[0], 2, "OPT's texts start with </s>");
    assert_eq!(tokenizer.decode(&ids), text);
    assert_eq!(tokenizer.encode_plain(text), ids[1..]);
}

#[test]
fn truncation_keeps_the_end_token_and_padding_takes_either_side() {
    let clip = TextTokenizer::train_byte_pair(CORPUS, 600, &BytePairKind::Clip).unwrap();
    let (rows, mask) = clip.encode_padded(&[CORPUS[0], "cat"], 5);
    assert_eq!(rows[0].len(), 5);
    assert_eq!(rows[0][4], clip.eos_id().unwrap());
    assert_eq!(rows[0][..4], clip.encode(CORPUS[0])[..4]);
    assert_eq!(mask[1], [true, true, true, false, false]);
    let left = TextTokenizer::train_byte_pair(CORPUS, 600, &BytePairKind::llama(&[]))
        .unwrap()
        .with_padding_side(PaddingSide::Left);
    let (rows, mask) = left.encode_padded(&["cat"], 6);
    let real = mask[0].iter().filter(|real| **real).count();
    assert!(real < 6 && mask[0][5] && !mask[0][0]);
    assert_eq!(rows[0][6 - real..], left.encode("cat"));
}

#[test]
fn errors_name_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let open = || TextTokenizer::open(dir.path()).unwrap_err().to_string();
    assert!(open().contains("expected tokenizer.json"), "{}", open());
    std::fs::write(dir.path().join("tokenizer.model"), "x").unwrap();
    assert!(open().contains("SentencePiece"), "{}", open());
    std::fs::write(
        dir.path().join("vocab.json"),
        r#"{"a": 0, "<|endoftext|>": 1}"#,
    )
    .unwrap();
    std::fs::write(dir.path().join("merges.txt"), "#version: 0.2\na b c\n").unwrap();
    assert!(open().contains("line 2"), "{}", open());
    std::fs::write(dir.path().join("tokenizer.json"), "{}").unwrap();
    assert!(open().contains("tokenizer.json"), "{}", open());
    assert!(matches!(
        TextTokenizer::train_byte_pair(CORPUS, 100, &BytePairKind::Clip),
        Err(TokenizerError::VocabularySize { smallest: 514, .. })
    ));
}

/// Templates of the styles that published models have, rendered by transformers.
#[test]
fn chat_templates_equal_the_reference() {
    let text = std::fs::read_to_string(golden_dir("chat").join("golden.json")).unwrap();
    let golden: serde_json::Value = serde_json::from_str(&text).unwrap();
    let cases = golden["cases"].as_array().unwrap();
    assert_eq!(cases.len(), 18);
    for case in cases {
        let name = case["template"].as_str().unwrap();
        let tokens = vec![("bos_token", "<s>".into()), ("eos_token", "</s>".into())];
        let source = golden["templates"][name].as_str().unwrap();
        let template = ChatTemplate::new(Path::new("x.jinja"), source, tokens);
        let messages: Vec<Message> = case["messages"]
            .as_array()
            .unwrap()
            .iter()
            .map(|message| Message {
                role: message["role"].as_str().unwrap().into(),
                content: message["content"].as_str().unwrap().into(),
            })
            .collect();
        let found = template.render(&messages, case["add_generation_prompt"] == true);
        match case["text"].as_str() {
            Some(expected) => assert_eq!(found.unwrap(), expected, "{name} {messages:?}"),
            None => assert!(found.is_err(), "{name} {messages:?}: must be refused"),
        }
    }
}

#[test]
fn a_chat_template_may_stand_in_three_places() {
    let source = golden_dir("pipeline").join("model/tokenizer");
    let dir = tempfile::tempdir().unwrap();
    for name in ["vocab.json", "merges.txt", "special_tokens_map.json"] {
        std::fs::copy(source.join(name), dir.path().join(name)).unwrap();
    }
    let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
    let rendered = || {
        let template = TextTokenizer::open(dir.path()).unwrap().chat_template()?;
        Some(template.render(&[Message::user("cat")], true).unwrap())
    };
    assert_eq!(rendered(), None);
    write(
        "tokenizer_config.json",
        r#"{"chat_template": "1 {{ messages[0].content }}"}"#,
    );
    assert_eq!(rendered().unwrap(), "1 cat");
    write(
        "tokenizer_config.json",
        r#"{"chat_template": [{"name": "tool", "template": "x"}, {"name": "default", "template": "2 {{ bos_token }}"}]}"#,
    );
    assert_eq!(rendered().unwrap(), "2 <|startoftext|>");
    write("chat_template.json", r#"{"chat_template": "3"}"#);
    assert_eq!(rendered().unwrap(), "3");
    write("chat_template.jinja", "4{# remark #}");
    assert_eq!(rendered().unwrap(), "4");
}
