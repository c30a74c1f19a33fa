//! Training of the captioner on a handful of coloured shapes: it learns, resumes, refuses, and survives the disk.

use std::path::Path;

use burn::tensor::Tensor;
use image::RgbImage;
use model_import::SaveDtype;
use ragar::data::stickers::{Sticker, Style};
use ragar::networks::blip2::{Blip2VisionConfig, CaptionOptions};
use ragar::networks::clip::{ClipPreprocessing, ClipVisionConfig, ClipVisionModel};
use ragar::nn::activation::Activation;
use ragar::optimisation::progress::{Progress, Silent};
use ragar::optimisation::{Interrupt, parameters};
use ragar::pretrained::blip2;
use ragar::pretraining::captioner::{
    CaptionerData, CaptionerPretrainingConfig, TrainedCaptioner, initial_weights, run,
};
use ragar::pretraining::{Augmentation, PretrainingError};

use ragar::text::TextTokenizer;

use crate::support::{StopAfter, TestBackend, device, devices};

const SIZE: usize = 16;
const SHAPES: [(&str, &str); 3] = [("dog", "animal"), ("apple", "food"), ("car", "transport")];
const STYLES: [Style; 2] = [Style::Flat, Style::Glossy];

/// Rows, a square or columns, told apart within a patch; red where flat, blue where glossy.
fn picture(shape: usize, style: Style) -> Vec<u8> {
    let inside = |x: usize, y: usize| match shape {
        0 => y.is_multiple_of(2),
        1 => (4..12).contains(&x) && (4..12).contains(&y),
        _ => x.is_multiple_of(2),
    };
    let colour = if style == Style::Flat {
        [220, 30, 30]
    } else {
        [30, 30, 220]
    };
    let pixel = |place: usize| {
        if inside(place % SIZE, place / SIZE) {
            colour
        } else {
            [255; 3]
        }
    };
    (0..SIZE * SIZE).flat_map(pixel).collect()
}

/// Every shape in every style; the glossy car is held out.
fn stickers() -> (Vec<Sticker>, Vec<RgbImage>) {
    let (mut stickers, mut images) = (Vec::new(), Vec::new());
    for (shape, (label, group)) in SHAPES.into_iter().enumerate() {
        for style in STYLES {
            let side = SIZE as u32;
            images.push(RgbImage::from_raw(side, side, picture(shape, style)).expect("a picture"));
            stickers.push(Sticker {
                item: stickers.len(),
                glyph: format!("{shape}"),
                label: label.into(),
                tags: Vec::new(),
                group: group.into(),
                style,
                held_out: shape == 2 && style == Style::Glossy,
            });
        }
    }
    (stickers, images)
}

fn pixels() -> Tensor<TestBackend, 4> {
    let (_, images) = stickers();
    let images: Vec<&RgbImage> = images.iter().take(5).collect();
    ClipPreprocessing::symmetric(SIZE as u32).to_pixels(&images, &device())
}

fn config(steps: usize) -> CaptionerPretrainingConfig {
    let mut config = CaptionerPretrainingConfig {
        augmentation: Augmentation {
            flip: 0.0,
            shift: 0.0,
            scale: [1.0, 1.0],
            rotation: 0.0,
            colour: 0.0,
            erase: 0.0,
        },
        batch_size: 5,
        width: 32,
        num_vision_layers: 1,
        num_qformer_layers: 1,
        num_queries: 2,
        num_text_layers: 1,
        vocab_size: 320,
        ..Default::default()
    };
    config.trainer.steps = steps;
    config.trainer.schedule.learning_rate = 8e-3;
    config.trainer.schedule.warmup_steps = 5;
    config.trainer.average_decay = 0.8;
    config.trainer.log_every = 1;
    config.trainer.evaluate_every = 1000;
    config
}

fn train(
    config: &CaptionerPretrainingConfig,
    folder: &Path,
    progress: &dyn Progress,
    interrupt: &Interrupt,
) -> TrainedCaptioner<TestBackend> {
    let (stickers, images) = stickers();
    let data = CaptionerData {
        stickers: &stickers,
        images: &images,
        tower: None,
        extra: None,
    };
    let devices = devices();
    run::<TestBackend>(
        config,
        data,
        folder,
        &devices.train,
        &devices.frozen,
        progress,
        interrupt,
    )
    .expect("a run")
}

#[test]
fn a_handful_is_learned_and_survives_the_disk() {
    let folder = tempfile::tempdir().expect("a folder");
    let trained = train(&config(200), folder.path(), &Silent, &Interrupt::default());
    let score = trained.report.training;
    assert!(
        score.exact > 0.99,
        "five pictures are not learned by heart: {score}"
    );

    let hub = folder.path().join("hub");
    let (network, tokenizer, preprocessing) =
        (&trained.network, &trained.tokenizer, &trained.preprocessing);
    blip2::save(
        &hub,
        &trained.config,
        network,
        tokenizer,
        preprocessing,
        SaveDtype::F32,
    )
    .expect("a hub folder");
    let opened = blip2::open::<TestBackend>(&hub, &device()).expect("the hub folder");
    assert_eq!(opened.config, trained.config);
    assert_eq!(&opened.preprocessing, preprocessing);
    let pixels = pixels();
    let options = CaptionOptions::default();
    let texts = |network: &ragar::networks::blip2::Blip2ForConditionalGeneration<TestBackend>,
                 words: &TextTokenizer| {
        let rows = network
            .caption(pixels.clone(), None, &options)
            .expect("captions");
        rows.iter()
            .map(|ids| words.decode(ids).trim().to_string())
            .collect::<Vec<_>>()
    };
    let before = texts(network, tokenizer);
    assert_eq!(before[0], "a smooth flat sticker of a dog, animal");
    assert_eq!(before, texts(&opened.network, &opened.tokenizer));
}

#[test]
fn a_resumed_run_equals_an_uninterrupted_one() {
    let config = config(8);
    let (whole, parts) = (
        tempfile::tempdir().expect("a folder"),
        tempfile::tempdir().expect("a folder"),
    );
    let expected = train(&config, whole.path(), &Silent, &Interrupt::default());
    let interrupt = Interrupt::default();
    let stopped = train(&config, parts.path(), &StopAfter(3, &interrupt), &interrupt);
    assert!(stopped.report.interrupted && stopped.report.steps == 3);
    let resumed = train(&config, parts.path(), &Silent, &Interrupt::default());
    let all = |trained: &TrainedCaptioner<TestBackend>| {
        parameters::collect(&trained.network, parameters::Selection::All)
    };
    assert_eq!(all(&expected), all(&resumed));
}

#[test]
fn data_that_cannot_be_learned_from_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let devices = devices();
    let refuse = |stickers: &[Sticker], images: &[RgbImage], expected: &str| {
        let data = CaptionerData {
            stickers,
            images,
            tower: None,
            extra: None,
        };
        let (train, frozen) = (&devices.train, &devices.frozen);
        let interrupt = Interrupt::default();
        let result = run::<TestBackend>(
            &config(1),
            data,
            folder.path(),
            train,
            frozen,
            &Silent,
            &interrupt,
        );
        let error = result.expect_err("must be refused");
        assert!(
            matches!(&error, PretrainingError::Data(text) if text.contains(expected)),
            "{error}"
        );
    };
    let (mut stickers, mut images) = stickers();
    refuse(&stickers, &images[1..], "5 images of 6 stickers");
    images[3] = RgbImage::new(8, 16);
    refuse(&stickers, &images, "image 3 (apple, 3d) is 8 × 16");
    images[3] = RgbImage::new(16, 16);
    stickers[5].held_out = false;
    refuse(&stickers, &images, "no pair is held out");
}

#[test]
fn embeddings_are_seeded_and_layers_left_alone() {
    let clip = ClipVisionConfig {
        hidden_size: 16,
        num_attention_heads: 2,
        num_hidden_layers: 1,
        ..Default::default()
    };
    let tower = clip.init::<TestBackend>(&device());
    let layer = |tower: &ClipVisionModel<TestBackend>| {
        let layer = &tower.encoder.layers[0];
        (
            layer.mlp.fc1.weight.val().into_data(),
            layer.layer_norm1.gamma.val().into_data(),
        )
    };
    let before = layer(&tower);
    let [first, second] =
        [1, 1].map(|seed| initial_weights::seeded_embeddings(tower.clone(), seed));
    assert_eq!(layer(&first), before);
    let positions = |tower: &ClipVisionModel<TestBackend>| {
        tower.embeddings.position_embedding.weight.val().into_data()
    };
    assert_eq!(positions(&first), positions(&second));
    assert_ne!(positions(&first), positions(&tower));
}

#[test]
fn unknown_settings_are_refused() {
    let error =
        serde_json::from_str::<CaptionerPretrainingConfig>(r#"{"widht": 64}"#).expect_err("a typo");
    assert!(error.to_string().contains("widht"), "{error}");
}

#[test]
fn a_tower_taken_over_from_clip_sees_what_clip_sees() {
    let clip = ClipVisionConfig {
        hidden_size: 32,
        intermediate_size: 64,
        num_hidden_layers: 2,
        num_attention_heads: 4,
        image_size: SIZE,
        patch_size: 4,
        ..Default::default()
    };
    let ours = Blip2VisionConfig {
        hidden_size: 32,
        intermediate_size: 64,
        num_hidden_layers: 2,
        num_attention_heads: 4,
        image_size: SIZE,
        patch_size: 4,
        hidden_act: Activation::QuickGelu,
        layer_norm_eps: clip.layer_norm_eps,
        qkv_bias: true,
    };
    let tower = initial_weights::seeded_embeddings(clip.init::<TestBackend>(&device()), 3);
    let tower = ragar::pretraining::initial::seeded(tower, 3, |_| false);
    let mut taken = ours.init::<TestBackend>(0.02, &device());
    let pixels = pixels();
    let states = tower.forward(pixels.clone()).last_hidden_state;
    let expected = tower.post_layernorm.forward(states);
    let likeness = |actual: Tensor<TestBackend, 3>| {
        let dot = |a: &Tensor<TestBackend, 3>, b: &Tensor<TestBackend, 3>| {
            (a.clone() * b.clone())
                .sum()
                .into_data()
                .iter::<f32>()
                .sum::<f32>()
        };
        dot(&actual, &expected) / (dot(&actual, &actual) * dot(&expected, &expected)).sqrt()
    };
    let before = likeness(taken.forward(pixels.clone()));
    initial_weights::start_from_clip(&mut taken, &tower, pixels.clone(), &device());
    let after = likeness(taken.forward(pixels));
    assert!(
        after > 0.9 && before < 0.5,
        "cosine {before} before, {after} after"
    );
}
