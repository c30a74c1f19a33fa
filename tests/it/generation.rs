//! Generation.

mod keywords {
    //! Keywords of items and users, with a language model that is played by a table.

    use std::cell::RefCell;

    use ragar::generation::keywords::{
        KeywordConfig, LlamaWriter, Summary, UserKeywords, Writer, item_answers, user_keywords,
    };
    use ragar::networks::llama::{LlamaConfig, LlamaForCausalLm};
    use ragar::text::keyword::PoolConfig;
    use ragar::text::prompt::PromptConfig;
    use ragar::text::{BytePairKind, TextTokenizer};

    use crate::support::{TestBackend, device, golden_dir};

    /// Answers with the prompt's last line but one, in upper case, and remembers what it was asked.
    #[derive(Default)]
    struct Echo {
        asked: RefCell<Vec<String>>,
    }

    impl Writer for Echo {
        fn write(&self, prompts: &[String]) -> Vec<String> {
            self.asked.borrow_mut().extend(prompts.iter().cloned());
            prompts
                .iter()
                .map(|prompt| {
                    let line = prompt.lines().rev().nth(1).unwrap_or_default();
                    format!("{}\nand more", line.to_uppercase())
                })
                .collect()
        }
    }

    #[test]
    fn items_are_asked_one_by_one() {
        let writer = Echo::default();
        let prompts = PromptConfig::default();
        let items = [("a cat", "cat, animal"), ("a pear", "pear, food")];
        let answers = item_answers(&writer, &prompts, &items);
        assert_eq!(answers[1], "TEXT: PEAR, FOOD\nand more");
        assert_eq!(
            writer.asked.borrow()[0],
            "Caption: a cat\nText: cat, animal\nKeywords:"
        );
    }

    #[test]
    fn users_are_pooled_and_summarised_where_asked() {
        let writer = Echo::default();
        let prompts = PromptConfig::default();
        let histories = [
            vec!["flat animal, cat", "3d food, pear", "flat animal, dog"],
            vec!["flat animal, cat"],
        ];
        let mut config = KeywordConfig {
            pool: PoolConfig {
                min_count: 2,
                num_kept: 8,
            },
            ..KeywordConfig::default()
        };
        let found = user_keywords(&writer, &prompts, &config, &histories);
        let user = |keywords: &[&str], summary: &str| UserKeywords {
            keywords: keywords.iter().map(|k| k.to_string()).collect(),
            summary: summary.into(),
        };
        assert_eq!(
            found,
            [user(&["flat animal"], "flat animal"), user(&[], "")]
        );
        assert!(
            writer.asked.borrow().is_empty(),
            "joined keywords need no language model"
        );
        config.summary = Summary::Llm;
        let found = user_keywords(&writer, &prompts, &config, &histories);
        assert_eq!(found[0].summary, "KEYWORDS: FLAT ANIMAL");
        assert_eq!(found[1].summary, "");
        assert_eq!(
            *writer.asked.borrow(),
            ["Keywords: flat animal\nSummary:"],
            "a user without keywords is not asked about"
        );
    }

    #[test]
    fn a_llama_answers_in_the_order_of_the_prompts_whatever_the_batches() {
        let text = std::fs::read(golden_dir("llama-mha").join("model/config.json")).unwrap();
        let mut config: LlamaConfig = serde_json::from_slice(&text).unwrap();
        let tokenizer = TextTokenizer::train_byte_pair(
            ["a pear, a cat and a dog"],
            280,
            &BytePairKind::llama(&[]),
        )
        .unwrap();
        config.vocab_size = tokenizer.vocab_size();
        let model: LlamaForCausalLm<TestBackend> =
            config.init(&device()).unwrap().initialise(0.5, 2);
        let prompts: Vec<String> = [
            "a pear and a cat",
            "dog",
            "a cat, a dog, a pear",
            "a",
            "cat",
        ]
        .map(String::from)
        .into();
        let write = |batch_size| {
            let keywords = KeywordConfig {
                max_new_tokens: 6,
                batch_size,
                ..KeywordConfig::default()
            };
            LlamaWriter::new(&model, &tokenizer, &keywords)
                .unwrap()
                .write(&prompts)
        };
        let alone = write(1);
        assert_eq!(write(2), alone);
        assert_eq!(write(8), alone);
        assert!(alone.iter().any(|answer| *answer != alone[0]), "{alone:?}");
    }
}
