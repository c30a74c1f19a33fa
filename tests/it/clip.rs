//! CLIP: the reference's numbers, checkpoints of several forms, preprocessing, contrastive pretraining.

use burn::tensor::{Int, Tensor, TensorData};
use ragar::networks::clip::{Clip, ClipConfig, ClipPreprocessing, ClipTextConfig};
use ragar::pretrained::clip as pretrained;
use ragar::pretrained::folder::FolderError;

use crate::support::{Golden, TestBackend, compare, device, differs, golden_dir};

fn golden_clip() -> Clip<TestBackend> {
    open_clip("clip")
}

fn open_clip(case: &str) -> Clip<TestBackend> {
    let path = golden_dir(case).join("model");
    pretrained::open_network(&path, &device()).unwrap().1
}

#[test]
fn both_towers_equal_the_reference() {
    for case in ["clip", "clip-gelu"] {
        check_both_towers(&Golden::open(case), &open_clip(case));
    }
}

fn check_both_towers(golden: &Golden, clip: &Clip<TestBackend>) {
    let output = clip.forward(
        golden.int("input.input_ids"),
        Some(golden.int("input.attention_mask")),
        golden.float("input.pixel_values"),
    );
    golden.check(
        "output.text_last_hidden_state",
        output.text.last_hidden_state,
    );
    golden.check("output.text_pooler_output", output.text.pooler_output);
    golden.check(
        "output.vision_last_hidden_state",
        output.vision.last_hidden_state,
    );
    golden.check("output.vision_pooler_output", output.vision.pooler_output);
    golden.check("output.text_embeds", output.text_embeds);
    golden.check("output.image_embeds", output.image_embeds);
    golden.check(
        "output.logits_per_image",
        output.logits_per_text.clone().transpose(),
    );
    golden.check("output.logits_per_text", output.logits_per_text);
}

#[test]
fn single_towers_equal_the_reference() {
    for case in ["clip-text", "clip-text-bare"] {
        let golden = Golden::open(case);
        let path = golden_dir(case).join("model");
        let (_, tower) = pretrained::open_text::<TestBackend>(&path, &device()).unwrap();
        let mask = golden.int("input.attention_mask");
        let (text, embeds) = tower.forward(golden.int("input.input_ids"), Some(mask));
        golden.check("output.last_hidden_state", text.last_hidden_state);
        golden.check("output.pooler_output", text.pooler_output);
        golden.check("output.text_embeds", embeds.expect("a projection"));
        // The tower alone is in the same file.
        let (_, tower) = pretrained::open_text_model::<TestBackend>(&path, &device()).unwrap();
        let mask = golden.int("input.attention_mask");
        let text = tower.forward_masked(golden.int("input.input_ids"), Some(mask));
        golden.check("output.pooler_output", text.pooler_output);
    }
    let golden = Golden::open("clip-vision");
    let path = golden_dir("clip-vision").join("model");
    let (_, tower) = pretrained::open_vision::<TestBackend>(&path, &device()).unwrap();
    let (vision, embeds) = tower.forward(golden.float("input.pixel_values"));
    golden.check("output.last_hidden_state", vision.last_hidden_state);
    golden.check("output.pooler_output", vision.pooler_output);
    golden.check("output.image_embeds", embeds.expect("a projection"));
}

#[test]
fn towers_out_of_a_whole_clip_carry_its_projections() {
    let (clip, golden) = (open_clip("clip-gelu"), Golden::open("clip-gelu"));
    let path = golden_dir("clip-gelu").join("model");
    let (config, text) = pretrained::open_text::<TestBackend>(&path, &device()).unwrap();
    assert_eq!(config.projection_dim, 28);
    let ids = || golden.int("input.input_ids");
    let (_, embeds) = text.forward(ids(), None);
    assert_eq!(
        embeds.expect("a projection").into_data(),
        clip.text_embeds(ids()).into_data()
    );
    let (_, vision) = pretrained::open_vision::<TestBackend>(&path, &device()).unwrap();
    let pixels = || golden.float("input.pixel_values");
    let (_, embeds) = vision.forward(pixels());
    assert_eq!(
        embeds.expect("a projection").into_data(),
        clip.image_embeds(pixels()).into_data()
    );
    // A text encoder without one says so by its absence.
    let path = golden_dir("pipeline").join("model/text_encoder");
    let (_, text) = pretrained::open_text::<TestBackend>(&path, &device()).unwrap();
    assert!(text.text_projection.is_none());
}

#[test]
fn every_option_of_the_towers_shows() {
    let golden = Golden::open("clip-text");
    let path = golden_dir("clip-text").join("model");
    let text = std::fs::read_to_string(path.join("config.json")).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let weights = "model.safetensors";
    std::fs::copy(path.join(weights), dir.path().join(weights)).unwrap();
    for (from, to, output) in [
        ("\"gelu\"", "\"quick_gelu\"", "output.last_hidden_state"),
        (
            "\"eos_token_id\": 59",
            "\"eos_token_id\": 1",
            "output.pooler_output",
        ),
        (
            "\"hidden_size\"",
            "\"layer_norm_eps\": 0.001, \"hidden_size\"",
            "output.last_hidden_state",
        ),
    ] {
        let changed = text.replacen(from, to, 1);
        assert_ne!(changed, text, "{from}");
        std::fs::write(dir.path().join("config.json"), changed).unwrap();
        let (_, tower) = pretrained::open_text::<TestBackend>(dir.path(), &device()).unwrap();
        let mask = golden.int("input.attention_mask");
        let (states, _) = tower.forward(golden.int("input.input_ids"), Some(mask));
        let actual = match output {
            "output.pooler_output" => states.pooler_output.into_data(),
            _ => states.last_hidden_state.into_data(),
        };
        let expected = golden.data(output);
        assert!(differs(&expected, &actual), "{to} was not noticed");
    }
}

#[test]
fn one_changed_weight_shows() {
    let golden = Golden::open("clip");
    let mut clip = golden_clip();
    let pixels: Tensor<TestBackend, 4> = golden.float("input.pixel_values");
    let before = clip.vision_model.forward(pixels.clone()).last_hidden_state;
    let bias = &mut clip.vision_model.encoder.layers[0].mlp.fc1;
    bias.bias = bias.bias.take().map(|bias| {
        bias.map(|values| {
            let shift: Vec<f32> = (0..values.dims()[0])
                .map(|i| if i == 3 { 0.05 } else { 0.0 })
                .collect();
            values + Tensor::from_floats(shift.as_slice(), &device())
        })
    });
    let after = clip.vision_model.forward(pixels).last_hidden_state;
    golden.check("output.vision_last_hidden_state", before);
    let differs = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        compare(
            "perturbed",
            &golden.data("output.vision_last_hidden_state"),
            &after.into_data(),
            1e-5,
            1e-4,
        );
    }));
    assert!(differs.is_err(), "a changed bias must change the states");
}

#[test]
fn the_pipelines_text_encoder_equals_the_reference() {
    let golden = Golden::open("pipeline");
    let path = golden_dir("pipeline").join("model/text_encoder");
    let (config, text) = pretrained::open_text_model::<TestBackend>(&path, &device()).unwrap();
    assert_eq!(config.eos_token_id, 2);
    let states = Tensor::cat(
        vec![
            text.forward(golden.int("input.negative_ids"))
                .last_hidden_state,
            text.forward(golden.int("input.prompt_ids"))
                .last_hidden_state,
        ],
        0,
    );
    golden.check("output.prompt_embeds", states);
    // Skipping no layer is the last state; the states before the final norm are one per layer and the input.
    let ids: Tensor<TestBackend, 2, Int> = golden.int("input.prompt_ids");
    assert_eq!(text.hidden_states(ids.clone()).len(), 3);
    compare(
        "skipping none",
        &text.forward(ids.clone()).last_hidden_state.into_data(),
        &text.skipping(ids, 0).into_data(),
        1e-6,
        0.0,
    );
}

#[test]
fn both_end_token_rules_take_the_first_end() {
    let ids = || Tensor::<TestBackend, 2, Int>::from_data([[5, 3, 9, 9], [5, 9, 9, 9]], &device());
    for eos_token_id in [2, 9] {
        let config = ClipTextConfig {
            vocab_size: 10,
            hidden_size: 8,
            intermediate_size: 8,
            num_hidden_layers: 1,
            num_attention_heads: 2,
            eos_token_id,
            ..ClipTextConfig::default()
        };
        let ends = config
            .init::<TestBackend>(&device())
            .ends(ids())
            .into_data();
        let expected = TensorData::from([[false, false, true, false], [false, true, false, false]]);
        ends.assert_eq(&expected, false);
    }
    // Without any end token the reference takes the first place.
    let config = ClipTextConfig {
        vocab_size: 10,
        hidden_size: 8,
        intermediate_size: 8,
        num_hidden_layers: 1,
        num_attention_heads: 2,
        eos_token_id: 7,
        ..ClipTextConfig::default()
    };
    let ends = config
        .init::<TestBackend>(&device())
        .ends(ids())
        .into_data();
    let expected = TensorData::from([[true, false, false, false], [true, false, false, false]]);
    ends.assert_eq(&expected, false);
}

#[test]
fn sparse_configurations_take_the_references_defaults() {
    let config: ClipConfig = serde_json::from_str(r#"{"model_type": "clip"}"#).unwrap();
    assert_eq!(config, ClipConfig::default());
    assert_eq!(config.text_config.eos_token_id, 49407);
    assert_eq!(config.vision_config.patch_size, 32);
    let config: ClipConfig = serde_json::from_str(
        r#"{"text_config": {"hidden_size": 64}, "text_config_dict": {"hidden_size": 96, "hidden_act": "gelu"},
            "vision_config": {"image_size": [224, 224], "patch_size": 14}, "vision_config_dict": null}"#,
    )
    .unwrap();
    assert_eq!(config.text_config.hidden_size, 96);
    assert_eq!(config.vision_config.num_positions(), 257);
    let mut wrong = config;
    wrong.text_config.num_attention_heads = 5;
    let message = wrong.validate().unwrap_err().to_string();
    assert!(message.contains("num_attention_heads = 5"), "{message}");
}

#[test]
fn saved_folders_open_again_with_either_naming() {
    let path = golden_dir("clip").join("model");
    let (config, clip) = pretrained::open_network::<TestBackend>(&path, &device()).unwrap();
    let tokenizer =
        ragar::text::TextTokenizer::open(&golden_dir("pipeline").join("model/tokenizer")).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let whole = dir.path().join("whole");
    pretrained::save(
        &whole,
        &config,
        &clip,
        &tokenizer,
        &ClipPreprocessing::symmetric(56),
        model_import::SaveDtype::F32,
    )
    .unwrap();
    let again = pretrained::open::<TestBackend>(&whole, &device()).unwrap();
    assert_eq!(again.config, config);
    assert_eq!(again.preprocessing, ClipPreprocessing::symmetric(56));
    let ids = || Tensor::<TestBackend, 2, Int>::from_data([[118, 7, 9, 119]], &device());
    let expected = clip.text_model.forward(ids()).pooler_output.into_data();
    let check = |name: &str, text: &ragar::networks::clip::ClipTextModel<TestBackend>| {
        let found = text.forward(ids()).pooler_output.into_data();
        compare(name, &expected, &found, 1e-7, 0.0);
    };
    check("whole", &again.network.text_model);
    // The text tower out of the whole network, with its prefix, and without one.
    let (_, text) = pretrained::open_text_model::<TestBackend>(&whole, &device()).unwrap();
    check("out of the whole", &text);
    let encoder = dir.path().join("text_encoder");
    pretrained::save_text_model(
        &encoder,
        &config.text_config,
        &clip.text_model,
        &tokenizer,
        model_import::SaveDtype::F32,
    )
    .unwrap();
    let (_, text) = pretrained::open_text_model::<TestBackend>(&encoder, &device()).unwrap();
    check("with prefix", &text);
    model_import::save_from(
        &clip.text_model,
        &encoder.join("model.safetensors"),
        &model_import::KeyMap::identity(),
        model_import::SaveDtype::F32,
        &Default::default(),
    )
    .unwrap();
    let (_, text) = pretrained::open_text_model::<TestBackend>(&encoder, &device()).unwrap();
    check("without prefix", &text);
    let (_, vision) = pretrained::open_vision_model::<TestBackend>(&whole, &device()).unwrap();
    assert_eq!(vision.encoder.layers.len(), 2);
}

#[test]
fn folder_errors_say_what_is_wrong() {
    let dir = tempfile::tempdir().unwrap();
    let open = |name: &str| {
        pretrained::open_network::<TestBackend>(&dir.path().join(name), &device())
            .unwrap_err()
            .to_string()
    };
    assert!(open("nowhere").contains("no such folder"));
    std::fs::create_dir(dir.path().join("empty")).unwrap();
    let message = open("empty");
    assert!(
        message.contains("no config.json") && message.contains("nothing"),
        "{message}"
    );
    let config = dir.path().join("empty/config.json");
    std::fs::write(&config, r#"{"model_type": "llama"}"#).unwrap();
    let message = open("empty");
    assert!(
        message.contains("\"llama\"") && message.contains("expected clip"),
        "{message}"
    );
    std::fs::write(
        &config,
        r#"{"model_type": "clip", "vision_config": {"hidden_size": "x"}}"#,
    )
    .unwrap();
    let message = open("empty");
    assert!(message.contains("config.json"), "{message}");
    std::fs::write(&config, r#"{"model_type": "clip"}"#).unwrap();
    let error = pretrained::open_network::<TestBackend>(&dir.path().join("empty"), &device());
    assert!(matches!(error, Err(FolderError::Weights(_))));
}

#[test]
fn preprocessing_reads_every_form_and_keeps_pictures_of_the_right_size() {
    let read = |text: &str| {
        ClipPreprocessing::from_json(&serde_json::from_str(text).unwrap(), 224).unwrap()
    };
    assert_eq!(read("{}"), ClipPreprocessing::clip(224));
    assert_eq!(
        read(r#"{"size": 224, "crop_size": 224}"#),
        ClipPreprocessing::clip(224)
    );
    assert_eq!(
        read(r#"{"size": {"shortest_edge": 224}, "crop_size": {"height": 224, "width": 224}}"#),
        ClipPreprocessing::clip(224)
    );
    let symmetric = ClipPreprocessing::symmetric(64);
    assert_eq!(
        ClipPreprocessing::from_json(&symmetric.to_json(), 64).unwrap(),
        symmetric
    );
    let picture =
        image::RgbImage::from_fn(64, 64, |x, y| image::Rgb([x as u8 * 4, y as u8 * 4, 7]));
    let pixels = symmetric.to_pixels::<TestBackend>(&[&picture], &device());
    assert_eq!(pixels.dims(), [1, 3, 64, 64]);
    // From the generator's range nothing changes but rounding.
    let again = symmetric.from_symmetric(pixels.clone());
    compare(
        "in range",
        &pixels.clone().into_data(),
        &again.into_data(),
        1e-6,
        0.0,
    );
    // Another size goes through the host, as a file would.
    let smaller = ClipPreprocessing::symmetric(32);
    compare(
        "resized",
        &smaller
            .to_pixels::<TestBackend>(&[&picture], &device())
            .into_data(),
        &smaller.from_symmetric(pixels).into_data(),
        1e-6,
        0.0,
    );
    let wide = image::RgbImage::new(90, 60);
    assert_eq!(
        smaller.to_pixels::<TestBackend>(&[&wide], &device()).dims(),
        [1, 3, 32, 32]
    );
}

mod pretraining {
    use image::{Rgb, RgbImage};
    use ragar::data::stickers::{Sticker, Style};
    use ragar::optimisation::parameters::{Selection, collect};
    use ragar::optimisation::{Interrupt, Progress, Schedule, Silent};
    use ragar::pretraining::augmentation::Augmentation;
    use ragar::pretraining::clip::{
        ClipPretrainingConfig, ClipPretrainingError, ClipSizes, Start, TrainedClip,
        TrainingPictures, model_card, run,
    };
    use ragar::pretraining::extra::ExtraPictures;

    use crate::support::{TestBackend, compare, devices};

    /// Six glyphs that are colours, in five styles that are the place of a bar; one pair of each glyph held out.
    fn stickers() -> (Vec<Sticker>, Vec<RgbImage>) {
        let colours = [
            [220, 20, 20],
            [20, 180, 20],
            [20, 20, 220],
            [200, 180, 0],
            [0, 180, 180],
            [160, 0, 160],
        ];
        let names = ["apple", "pear", "plum", "dog", "cat", "cow"];
        let mut stickers = Vec::new();
        let mut images = Vec::new();
        for (glyph, colour) in colours.into_iter().enumerate() {
            for (number, style) in Style::ALL.into_iter().enumerate() {
                stickers.push(Sticker {
                    item: stickers.len(),
                    glyph: format!("{glyph}"),
                    label: names[glyph].into(),
                    tags: vec!["round".into()],
                    group: if glyph < 3 { "food" } else { "animal" }.into(),
                    style,
                    held_out: number == glyph % 5,
                });
                images.push(RgbImage::from_fn(16, 16, |_, y| {
                    Rgb(if y as usize / 3 == number {
                        colour
                    } else {
                        [255; 3]
                    })
                }));
            }
        }
        (stickers, images)
    }

    fn config(num_steps: usize) -> ClipPretrainingConfig {
        ClipPretrainingConfig {
            text_steps: num_steps,
            text_batch: 32,
            num_steps,
            num_glyphs: 5,
            num_styles: 4,
            num_extra_glyphs: 2,
            sizes: ClipSizes {
                width: 32,
                num_layers: 1,
                num_heads: 2,
                projection_dim: 16,
                image_size: 16,
                patch_size: 8,
                context: 24,
                vocab_size: 600,
            },
            schedule: Schedule {
                learning_rate: 5e-3,
                warmup_steps: 5,
                ..Schedule::default()
            },
            augmentation: Augmentation {
                flip: 0.5,
                shift: 0.0,
                scale: [1.0, 1.0],
                rotation: 0.0,
                colour: 0.05,
                erase: 0.0,
            },
            checkpoint_every: 4,
            evaluate_every: 0,
            log_every: 1,
            ..ClipPretrainingConfig::default()
        }
    }

    fn train(
        config: &ClipPretrainingConfig,
        output: &std::path::Path,
        progress: &dyn Progress,
        interrupt: &Interrupt,
    ) -> Result<TrainedClip<TestBackend>, ClipPretrainingError> {
        train_from(None, config, output, progress, interrupt)
    }

    fn train_from(
        start: Option<&TrainedClip<TestBackend>>,
        config: &ClipPretrainingConfig,
        output: &std::path::Path,
        progress: &dyn Progress,
        interrupt: &Interrupt,
    ) -> Result<TrainedClip<TestBackend>, ClipPretrainingError> {
        let (stickers, images) = stickers();
        // Glyphs without descriptions, and a known one that must be left out.
        let (mut more, more_images) = (stickers.clone(), images.clone());
        for sticker in more.iter_mut().skip(5) {
            sticker.glyph = format!("more {}", sticker.glyph);
        }
        let pictures = TrainingPictures {
            stickers: &stickers,
            images: &images,
            extra: Some(ExtraPictures {
                stickers: &more,
                images: &more_images,
            }),
            decoded: None,
        };
        run::<TestBackend>(
            config,
            pictures,
            start.map(|trained| Start {
                network: &trained.network,
                config: &trained.config,
                tokenizer: &trained.tokenizer,
            }),
            output,
            &devices().train,
            progress,
            interrupt,
        )
    }

    #[test]
    fn a_handful_of_stickers_is_learnt() {
        let dir = tempfile::tempdir().unwrap();
        let config = config(120);
        let trained = train(&config, dir.path(), &Silent, &Interrupt::default()).unwrap();
        let quality = &trained.quality;
        assert!(quality.training.glyph_by_text_1 > 0.9, "{quality}");
        assert!(quality.training.style_of_known_glyph > 0.9, "{quality}");
        // Six glyphs: chance is 0.17.
        assert!(quality.held_out.glyph_by_image_1 > 0.4, "{quality}");
        let card = model_card(
            &config,
            &trained,
            &stickers().0,
            "ragar pretrain clip",
            "a test",
        );
        assert!(
            card.contains("24 training pairs") && card.contains("6 held-out"),
            "{card}"
        );
    }

    #[test]
    fn given_weights_keep_their_text_tower_to_the_bit() {
        let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let none = Interrupt::default();
        let first = train(&config(6), folders[0].path(), &Silent, &none).unwrap();
        let second = config(5);
        let further = train_from(Some(&first), &second, folders[1].path(), &Silent, &none).unwrap();
        let (before, after) = (
            collect::<TestBackend, _>(&first.network, Selection::All),
            collect::<TestBackend, _>(&further.network, Selection::All),
        );
        for (name, data) in before {
            let same = data == after[&name];
            assert_eq!(same, name.starts_with("text"), "{name}");
        }
        let mut wider = second;
        wider.sizes.projection_dim = 24;
        let error = train_from(Some(&first), &wider, folders[1].path(), &Silent, &none);
        let error = error.unwrap_err().to_string();
        assert!(error.contains("pretrain.clip.sizes"), "{error}");
    }

    /// Raises the interruption when a step is reached.
    struct StopAt(usize, Interrupt);

    impl Progress for StopAt {
        fn begin(&self, _: &str, _: usize) {}
        fn advance(&self, position: usize, _: &str) {
            if position >= self.0 {
                self.1.raise();
            }
        }
        fn end(&self) {}
        fn note(&self, _: &str) {}
    }

    #[test]
    fn an_interrupted_run_ends_as_an_uninterrupted_one() {
        let whole = tempfile::tempdir().unwrap();
        let config = config(6);
        let expected = train(&config, whole.path(), &Silent, &Interrupt::default()).unwrap();
        // In the text part, between the parts, in the picture part.
        for stop in [3, 6, 10] {
            let parts = tempfile::tempdir().unwrap();
            let interrupt = Interrupt::default();
            let stopped = train(
                &config,
                parts.path(),
                &StopAt(stop, interrupt.clone()),
                &interrupt,
            );
            assert!(
                matches!(stopped, Err(ClipPretrainingError::Interrupted { step }) if step == stop)
            );
            let resumed = train(&config, parts.path(), &Silent, &Interrupt::default()).unwrap();
            let found = collect::<TestBackend, _>(&resumed.network, Selection::All);
            for (name, data) in collect::<TestBackend, _>(&expected.network, Selection::All) {
                compare(&name, &data, &found[&name], 1e-6, 0.0);
            }
            let lines = |dir: &std::path::Path| {
                let text = std::fs::read_to_string(dir.join("metrics.jsonl")).unwrap();
                text.lines().count()
            };
            assert_eq!(lines(whole.path()), lines(parts.path()));
        }
    }

    #[test]
    fn configurations_refuse_unknown_keys_and_nonsense() {
        let error = toml::from_str::<ClipPretrainingConfig>("learning_rte = 1").unwrap_err();
        assert!(error.to_string().contains("learning_rte"), "{error}");
        let wrong = ClipPretrainingConfig {
            num_glyphs: 1,
            ..ClipPretrainingConfig::default()
        };
        assert!(
            wrong
                .validate()
                .unwrap_err()
                .to_string()
                .contains("num_glyphs")
        );
        let dir = tempfile::tempdir().unwrap();
        let mut many = config(2);
        many.num_glyphs = 50;
        let error = train(&many, dir.path(), &Silent, &Interrupt::default()).unwrap_err();
        assert!(
            error.to_string().contains("6 glyphs to train on"),
            "{error}"
        );
    }
}
