//! How fast the 3×3 convolution is: `cargo bench -p host-kernels`, or beside LibTorch `python benches/compare/convolution.py`.
//!
//! A line for each of the sizes that are typed as `batch,inputs,height,width,outputs` (without any, those of the shipped
//! and the published denoising networks): the sizes and the billions of operations a second of the fastest of some runs.
//! Cores: `RAYON_NUM_THREADS`.

use std::hint::black_box;
use std::time::{Duration, Instant};

use host_kernels::{ConvolutionSizes, convolve};

/// The shipped network's three levels, its autoencoder's last, and Stable Diffusion's first.
const SIZES: [&str; 5] = [
    "32,64,16,16,64",
    "32,96,8,8,96",
    "32,112,4,4,112",
    "16,24,64,64,24",
    "1,320,64,64,320",
];
/// How long one of the sizes is tried.
const TRIED: Duration = Duration::from_millis(400);

fn sizes(text: &str) -> Option<ConvolutionSizes> {
    let numbers: Result<Vec<usize>, _> = text.split(',').map(str::parse).collect();
    let [batch, inputs, height, width, outputs] = numbers.ok()?.try_into().ok()?;
    Some(ConvolutionSizes {
        batch,
        inputs,
        outputs,
        height,
        width,
    })
}

/// Numbers in [−0.5, 0.5] without a pattern that a processor could use.
fn numbers(count: usize) -> Vec<f32> {
    let mut state = 1u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 24) as f32 - 0.5
    };
    (0..count).map(|_| next()).collect()
}

fn main() {
    // Cargo adds `--bench`.
    let typed: Vec<String> = std::env::args()
        .skip(1)
        .filter(|w| w != "--bench")
        .collect();
    let standing = SIZES.map(String::from).to_vec();
    for text in if typed.is_empty() { standing } else { typed } {
        let Some(sizes) = sizes(&text) else {
            eprintln!("{text}: want batch,inputs,height,width,outputs");
            std::process::exit(2);
        };
        let area = sizes.height * sizes.width;
        let input = numbers(sizes.batch * sizes.inputs * area);
        let weight = numbers(sizes.outputs * sizes.inputs * 9);
        let bias = numbers(sizes.outputs);
        let operations = 2.0 * (weight.len() * sizes.batch * area) as f64;
        let (mut best, started) = (f64::INFINITY, Instant::now());
        while started.elapsed() < TRIED {
            let before = Instant::now();
            black_box(convolve(
                sizes,
                black_box(&input),
                black_box(&weight),
                Some(&bias),
            ));
            best = best.min(before.elapsed().as_secs_f64());
        }
        println!("{text} {:.2}", operations / best / 1e9);
    }
}
