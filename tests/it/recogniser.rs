//! The recognisers of glyphs and styles: the numbers of a second writing in torch, folders, training.

use std::path::Path;

use burn::tensor::{Tensor, TensorData};
use image::{Rgb, RgbImage};
use model_import::SaveDtype;
use ragar::data::pixels::to_batch;
use ragar::data::stickers::{Sticker, Style};
use ragar::networks::recogniser::{Aspect, Recogniser, RecogniserConfig};
use ragar::optimisation::{Decay, Interrupt, Silent};
use ragar::pretrained::recogniser as pretrained;
use ragar::pretraining::extra::ExtraPictures;
use ragar::pretraining::recogniser::{
    RecogniserData, RecogniserPretrainingConfig, TrainedRecogniser, run, smoothed,
};

use crate::support::{Golden, TestBackend, compare, device, devices, golden_dir, on_flex};

/// The largest error may be this much of the largest value, as everywhere.
const BOUNDS: (f32, f32) = (1e-5, 1e-4);

fn check(golden: &Golden, network: &Recogniser<TestBackend>) {
    use ragar::nn::convolution::convolve;
    use ragar::nn::norm::group_norm_silu;

    let pixels = Tensor::from_data(golden.data("input.pixels"), &device());
    let mut map = group_norm_silu(&network.stem_norm, convolve(&network.stem, pixels));
    let name = |number: usize| format!("output.map{number}");
    let held = |name: &str, found: TensorData| {
        compare(name, &golden.data(name), &found, BOUNDS.0, BOUNDS.1);
    };
    held(&name(0), map.clone().into_data());
    for (number, block) in network.blocks.iter().enumerate() {
        map = block.forward(map);
        held(&name(number + 1), map.clone().into_data());
    }
    let pixels = Tensor::from_data(golden.data("input.pixels"), &device());
    let scores = network.forward(pixels.clone());
    held("output.scores", scores.clone().into_data());
    // The names are the largest scores, in their order.
    let values: Vec<f32> = scores.into_data().iter::<f32>().collect();
    let rows = values.chunks(values.len() / 3);
    for (row, named) in rows.zip(network.name(pixels, 2)) {
        let mut order: Vec<usize> = (0..row.len()).collect();
        order.sort_by(|a, b| row[*b].total_cmp(&row[*a]));
        assert_eq!(named, order[..2]);
    }
}

#[test]
fn every_layer_gives_the_reference_s_numbers() {
    let golden = Golden::open("recogniser");
    let folder = golden_dir("recogniser").join("model");
    let (config, network) = pretrained::open::<TestBackend>(&folder, &device()).unwrap();
    assert_eq!((config.aspect, config.names.len()), (Aspect::Glyph, 7));
    check(&golden, &network);
}

#[test]
#[should_panic(expected = "output.map1")]
fn a_wrong_weight_is_seen() {
    let golden = Golden::open("recogniser");
    let folder = golden_dir("recogniser").join("model");
    let (_, mut network) = pretrained::open::<TestBackend>(&folder, &device()).unwrap();
    let block = &mut network.blocks[0];
    block.norm2.gamma = block
        .norm2
        .gamma
        .take()
        .map(|scale| scale.map(|scale| scale.mul_scalar(1.001)));
    check(&golden, &network);
}

#[test]
fn a_saved_folder_is_the_same_network() {
    let folder = golden_dir("recogniser").join("model");
    let (config, network) = pretrained::open::<TestBackend>(&folder, &device()).unwrap();
    let saved = tempfile::tempdir().unwrap();
    pretrained::save(saved.path(), &config, &network, SaveDtype::F32).unwrap();
    let (again, copy) = pretrained::open::<TestBackend>(saved.path(), &device()).unwrap();
    assert_eq!(again, config);
    let golden = Golden::open("recogniser");
    check(&golden, &copy);
}

#[test]
fn a_broken_configuration_names_its_field() {
    let folder = golden_dir("recogniser").join("model");
    let text = std::fs::read_to_string(folder.join("config.json")).unwrap();
    let config: RecogniserConfig = serde_json::from_str(&text).unwrap();
    let refused = |change: &dyn Fn(&mut RecogniserConfig)| {
        let mut broken = config.clone();
        change(&mut broken);
        broken.validate().unwrap_err().to_string()
    };
    assert!(refused(&|c| c.names.clear()).starts_with("names: "));
    assert!(refused(&|c| c.shape.widths = vec![9]).contains("multiples of 2"));
    assert!(refused(&|c| c.shape.stem_kernel = 4).contains("4 must be odd"));
    assert!(refused(&|c| c.shape.widths.clear()).contains("at least one block"));
    assert!(refused(&|c| c.image_size = 4).contains("4 pixels"));

    // A folder of something else, and one without weights.
    let elsewhere = golden_dir("clip").join("model");
    let error = pretrained::open::<TestBackend>(&elsewhere, &device()).unwrap_err();
    assert!(error.to_string().contains("ragar-recogniser"), "{error}");
    let bare = tempfile::tempdir().unwrap();
    std::fs::write(bare.path().join("config.json"), &text).unwrap();
    assert!(pretrained::open::<TestBackend>(bare.path(), &device()).is_err());
}

#[test]
fn smoothing_spreads_part_of_the_answer() {
    let scores = [2.0f64, 0.0, -1.0];
    let total: f64 = scores.iter().map(|score| score.exp()).sum();
    let said = scores.map(|score| score - total.ln());
    let expected = -(0.9 * said[1] + 0.1 * said.iter().sum::<f64>() / 3.0);
    let scores = TensorData::new(scores.map(|score| score as f32).to_vec(), [1, 3]);
    let scores = Tensor::<TestBackend, 2>::from_data(scores, &device());
    let found = smoothed(scores, &[1], 0.1).into_data();
    let found = found.iter::<f32>().next().unwrap();
    assert!(
        (f64::from(found) - expected).abs() < 1e-5,
        "{found}, {expected}"
    );
}

const SIDE: u32 = 16;

/// A glyph is a colour in a place, a style is how its outline looks.
fn picture(glyph: usize, style: Style) -> RgbImage {
    let colour = [[220, 30, 30], [30, 160, 40], [40, 60, 220], [200, 170, 0]][glyph];
    RgbImage::from_fn(SIDE, SIDE, |x, y| {
        let inside = (4..12).contains(&x) && (4..12).contains(&y);
        let edge = inside && (x == 4 || x == 11 || y == 4 || y == 11);
        match (inside, edge, style) {
            (false, ..) => Rgb([255; 3]),
            (_, true, Style::Flat) => Rgb([0; 3]),
            (_, false, Style::Glossy) if (x + y) % 2 == 0 => Rgb([255; 3]),
            _ => Rgb(colour),
        }
    })
}

fn stickers(held_out: [usize; 2]) -> (Vec<Sticker>, Vec<RgbImage>) {
    let styles = [Style::Flat, Style::Glossy, Style::Cartoon];
    let mut all = (Vec::new(), Vec::new());
    for glyph in 0..4 {
        for (number, style) in styles.into_iter().enumerate() {
            all.0.push(Sticker {
                item: all.0.len(),
                glyph: format!("g{glyph}"),
                label: format!("thing {glyph}"),
                tags: Vec::new(),
                group: "things".into(),
                style,
                held_out: [glyph, number] == held_out,
            });
            all.1.push(picture(glyph, style));
        }
    }
    all
}

fn small(steps: usize) -> RecogniserPretrainingConfig {
    let mut config = RecogniserPretrainingConfig::glyphs();
    config.shape.stem_kernel = 3;
    config.shape.widths = vec![16];
    config.batch_size = 8;
    config.decoded_share = 0.0;
    config.augmentation.erase = 0.0;
    config.trainer.steps = steps;
    config.trainer.schedule.warmup_steps = 5;
    config.trainer.average_decay = 0.8;
    config.trainer.checkpoint_every = 20;
    config
}

fn trained(
    config: &RecogniserPretrainingConfig,
    data: &RecogniserData<'_>,
    folder: &Path,
) -> TrainedRecogniser<TestBackend> {
    let devices = devices();
    run::<TestBackend>(
        config,
        data,
        folder,
        &devices.train,
        &devices.frozen,
        &Silent,
        &Interrupt::default(),
    )
    .unwrap()
}

#[test]
fn a_glyph_is_named_in_a_style_never_seen() {
    let (stickers, images) = stickers([2, 0]);
    let data = RecogniserData {
        aspect: Aspect::Glyph,
        stickers: &stickers,
        images: &images,
        extra: None,
        decoded: Some([&images, &[]]),
    };
    let folder = tempfile::tempdir().unwrap();
    let report = trained(&small(60), &data, folder.path()).report;
    assert_eq!(report.steps, 60);
    assert_eq!(
        (report.held_out.pictures, report.training.pictures),
        (1, 11)
    );
    assert_eq!(report.held_out.right, 1.0, "{report:?}");
    // Four glyphs: among five they all are.
    assert_eq!(report.held_out.right_in_five, None);
    assert_eq!(report.held_out_decoded, Some(report.held_out));
    assert!(report.training.right > 0.9, "{report:?}");
}

#[test]
fn a_style_is_named_of_a_glyph_never_seen_in_it() {
    let (stickers, images) = stickers([2, 0]);
    // Further glyphs; the first is one of the set's own and must not be learned from.
    let mut more = Vec::new();
    let mut pictures = Vec::new();
    for (number, glyph) in ["g2", "h0", "h1"].into_iter().enumerate() {
        for style in [Style::Flat, Style::Glossy, Style::Cartoon] {
            more.push(Sticker {
                glyph: glyph.into(),
                style,
                ..stickers[0].clone()
            });
            pictures.push(picture(number + 1, style));
        }
    }
    let data = RecogniserData {
        aspect: Aspect::Style,
        stickers: &stickers,
        images: &images,
        extra: Some(ExtraPictures {
            stickers: &more,
            images: &pictures,
        }),
        decoded: Some([&images, &pictures]),
    };
    let mut config = RecogniserPretrainingConfig::styles();
    config.batch_size = 8;
    config.shape.widths = vec![16];
    config.trainer = small(60).trainer;
    let folder = tempfile::tempdir().unwrap();
    let trained = trained(&config, &data, folder.path());
    assert_eq!(trained.config.aspect, Aspect::Style);
    assert_eq!(trained.config.names, ["3d", "cartoon", "flat"]);
    let report = trained.report;
    assert_eq!(
        (report.held_out.pictures, report.training.pictures),
        (1, 11)
    );
    assert_eq!(report.held_out.right, 1.0, "{report:?}");
    assert!(report.training.right > 0.9, "{report:?}");
}

#[test]
fn a_stopped_training_goes_on_to_the_same_weights() {
    let (stickers, images) = stickers([2, 0]);
    let data = RecogniserData {
        aspect: Aspect::Glyph,
        stickers: &stickers,
        images: &images,
        extra: None,
        decoded: None,
    };
    let config = |steps| {
        let mut config = small(steps);
        // A constant rate: a cosine knows where it ends.
        config.trainer.schedule.decay = Decay::Constant;
        config.trainer.checkpoint_every = 6;
        config
    };
    let (whole, parts) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let whole = trained(&config(12), &data, whole.path());
    trained(&config(6), &data, parts.path());
    let resumed = trained(&config(12), &data, parts.path());
    let scores = |network: &Recogniser<TestBackend>| -> Vec<f32> {
        let batch = to_batch(&images.iter().collect::<Vec<_>>(), &device());
        network.forward(batch).into_data().iter::<f32>().collect()
    };
    let (whole, resumed) = (scores(&whole.network), scores(&resumed.network));
    if on_flex() {
        assert_eq!(whole, resumed);
    }
    // Elsewhere kernels may sum in another order from run to run.
    let apart = whole.iter().zip(&resumed).map(|(a, b)| (a - b).abs());
    assert!(apart.fold(0.0, f32::max) < 1e-3, "{whole:?}, {resumed:?}");
}

#[test]
fn what_cannot_be_trained_on_is_said() {
    let (stickers, mut images) = stickers([2, 0]);
    let devices = devices();
    let refused = |config: &RecogniserPretrainingConfig, images: &[RgbImage]| {
        let folder = tempfile::tempdir().unwrap();
        let data = RecogniserData {
            aspect: Aspect::Glyph,
            stickers: &stickers,
            images,
            extra: None,
            decoded: None,
        };
        run::<TestBackend>(
            config,
            &data,
            folder.path(),
            &devices.train,
            &devices.frozen,
            &Silent,
            &Interrupt::default(),
        )
        .unwrap_err()
        .to_string()
    };
    let mut config = small(1);
    config.decoded_share = 0.5;
    assert!(refused(&config, &images).contains("`decoded_share` is 0.5"));
    config.decoded_share = 1.5;
    assert!(refused(&config, &images).contains("below 1"));
    images[3] = RgbImage::new(SIDE, SIDE + 1);
    let error = refused(&small(1), &images);
    assert!(error.contains("(16, 17)"), "{error}");
}
