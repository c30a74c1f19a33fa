//! The 3×3 convolution of stride 1 that keeps height and width.
//!
//! No matrix of patches is built. Each channel of an image is copied once into a row of zeros-padded lines, one zero
//! between two lines and one line of zeros between two images; every tap of the kernel is then that row, shifted. A tile of
//! neighbouring positions times some output channels stays in registers while the input channels go by.

use rayon::prelude::*;

use crate::vector::{Instructions, instructions};

/// Input channels after which a tile is put down: their pixels and weights fit the nearest cache.
const INPUTS: usize = 16;
/// Positions that make it worth padding several small images into one row.
const POSITIONS: usize = 256;

/// What stays in registers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Tile {
    /// Output channels.
    channels: usize,
    /// Neighbouring positions of a padded row.
    positions: usize,
}

impl Tile {
    /// Of 32 registers 24 hold sums, 3 pixels, 1 a weight.
    const AVX512: Self = Self {
        channels: 8,
        positions: 48,
    };
    /// Of 16 registers 12 hold sums, 2 pixels, 1 a weight: with all 16 in use, sums would be put down at every tap.
    const AVX2: Self = Self {
        channels: 6,
        positions: 16,
    };

    /// The one for this processor.
    fn here() -> Self {
        match instructions() {
            Instructions::Avx512 => Self::AVX512,
            Instructions::Avx2 | Instructions::Portable => Self::AVX2,
        }
    }
}

/// What goes in, `[batch, inputs, height, width]`, and comes out, `[batch, outputs, height, width]`.
#[derive(Debug, Clone, Copy)]
pub struct ConvolutionSizes {
    /// Images.
    pub batch: usize,
    /// Channels in.
    pub inputs: usize,
    /// Channels out.
    pub outputs: usize,
    /// Lines.
    pub height: usize,
    /// Pixels of a line.
    pub width: usize,
}

impl ConvolutionSizes {
    fn area(&self) -> usize {
        self.height * self.width
    }

    /// From a line to the next of a padded row.
    fn pitch(&self) -> usize {
        self.width + 1
    }

    /// From an image to the next of a padded row.
    fn plane(&self) -> usize {
        (self.height + 1) * self.pitch()
    }

    /// Zeros before the first pixel, and after the last tile.
    fn margin(&self) -> usize {
        self.pitch() + 1
    }

    /// The length of a padded row of `images`.
    fn padded(&self, images: usize) -> usize {
        let positions = Tile::here().positions;
        2 * self.margin() + (images * self.plane()).next_multiple_of(positions)
    }

    /// Places of the nine taps before the last.
    fn taps(&self) -> [usize; 9] {
        std::array::from_fn(|tap| tap / 3 * self.pitch() + tap % 3)
    }
}

/// `weight` is `[outputs, inputs, 3, 3]`, `bias` `[outputs]`.
///
/// # Panics
/// When the slices do not fit the sizes.
pub fn convolve(
    sizes: ConvolutionSizes,
    input: &[f32],
    weight: &[f32],
    bias: Option<&[f32]>,
) -> Vec<f32> {
    let ConvolutionSizes {
        batch,
        inputs,
        outputs,
        ..
    } = sizes;
    assert_eq!(input.len(), batch * inputs * sizes.area());
    assert_eq!(weight.len(), outputs * inputs * 9);
    assert!(bias.is_none_or(|bias| bias.len() == outputs));
    let mut output = vec![0.0f32; batch * outputs * sizes.area()];
    if input.is_empty() || output.is_empty() {
        return output;
    }
    let tile = Tile::here();
    let weights = packed(sizes, tile.channels, weight);
    let threads = rayon::current_num_threads();
    let images = POSITIONS
        .div_ceil(sizes.plane())
        .min(batch.div_ceil(threads));
    // Few large images are shared out by output channels too.
    let groups = batch.div_ceil(images);
    let blocks = outputs.div_ceil(tile.channels);
    let parts = if images == 1 {
        (2 * threads).div_ceil(groups).min(blocks)
    } else {
        1
    };
    let blocks_per_part = blocks.div_ceil(parts);
    output
        .par_chunks_mut(images * outputs * sizes.area())
        .zip(input.par_chunks(images * inputs * sizes.area()))
        .for_each(|(output, input)| {
            let rows = Rows::of(sizes, input);
            if parts == 1 {
                rows.convolve(&weights, bias, 0, output);
            } else {
                output
                    .par_chunks_mut(blocks_per_part * tile.channels * sizes.area())
                    .enumerate()
                    .for_each(|(part, output)| {
                        rows.convolve(&weights, bias, part * blocks_per_part, output);
                    });
            }
        });
    output
}

/// The weights in the order of their use: `[blocks, inputs, 9, channels of a tile]`, zero where a block is not full.
fn packed(sizes: ConvolutionSizes, channels: usize, weight: &[f32]) -> Vec<f32> {
    let per_output = sizes.inputs * 9;
    let blocks = sizes.outputs.div_ceil(channels);
    let mut packed = vec![0.0; blocks * channels * per_output];
    packed
        .par_chunks_mut(channels * per_output)
        .zip(weight.par_chunks(channels * per_output))
        .for_each(|(packed, weight)| {
            for (channel, weights) in weight.chunks_exact(per_output).enumerate() {
                for (place, value) in weights.iter().enumerate() {
                    packed[place * channels + channel] = *value;
                }
            }
        });
    packed
}

/// Part of a line within a tile.
struct Segment {
    /// Its first position, counted from the tile's.
    from: usize,
    /// Its first place in the output's first channel.
    to: usize,
    length: usize,
}

/// Some images, a padded row per channel.
struct Rows {
    sizes: ConvolutionSizes,
    images: usize,
    length: usize,
    values: Vec<f32>,
}

impl Rows {
    fn of(sizes: ConvolutionSizes, input: &[f32]) -> Self {
        let images = input.len() / (sizes.inputs * sizes.area());
        let length = sizes.padded(images);
        let mut values = vec![0.0f32; sizes.inputs * length];
        for (index, channel) in input.chunks_exact(sizes.area()).enumerate() {
            let (image, channel_index) = (index / sizes.inputs, index % sizes.inputs);
            let start = channel_index * length + sizes.margin() + image * sizes.plane();
            for (line, pixels) in channel.chunks_exact(sizes.width).enumerate() {
                values[start + line * sizes.pitch()..][..sizes.width].copy_from_slice(pixels);
            }
        }
        Self {
            sizes,
            images,
            length,
            values,
        }
    }

    /// The output channels from block `first` on, as many as `output` has room for.
    fn convolve(&self, weights: &[f32], bias: Option<&[f32]>, first: usize, output: &mut [f32]) {
        let (sizes, taps) = (self.sizes, self.sizes.taps());
        let Tile {
            channels: block_channels,
            positions: tile,
        } = Tile::here();
        let per_image = output.len() / self.images;
        let channels = per_image / sizes.area();
        let mut sums = vec![0.0f32; channels.next_multiple_of(block_channels) * tile];
        for start in (0..self.images * sizes.plane()).step_by(tile) {
            let segments = self.segments(start, tile, per_image);
            if segments.is_empty() {
                continue;
            }
            for begin in (0..sizes.inputs).step_by(INPUTS) {
                let end = (begin + INPUTS).min(sizes.inputs);
                let pixels = &self.values[start + begin * self.length..];
                for (block, sums) in sums.chunks_exact_mut(block_channels * tile).enumerate() {
                    let place = ((first + block) * sizes.inputs + begin) * 9 * block_channels;
                    let weights = &weights[place..][..(end - begin) * 9 * block_channels];
                    add_tile(pixels, self.length, &taps, weights, begin == 0, sums);
                }
            }
            for (channel, sums) in sums.chunks_exact(tile).take(channels).enumerate() {
                let bias = bias.map_or(0.0, |bias| bias[first * block_channels + channel]);
                for segment in &segments {
                    let target = channel * sizes.area() + segment.to;
                    let target = &mut output[target..][..segment.length];
                    let source = &sums[segment.from..][..segment.length];
                    for (target, source) in target.iter_mut().zip(source) {
                        *target = source + bias;
                    }
                }
            }
        }
    }

    /// What of the tile at `start` are pixels, and where they belong.
    fn segments(&self, start: usize, tile: usize, per_image: usize) -> Vec<Segment> {
        let sizes = self.sizes;
        let end = (start + tile).min(self.images * sizes.plane());
        let mut segments = Vec::new();
        let mut place = start;
        while place < end {
            let (image, within) = (place / sizes.plane(), place % sizes.plane());
            let (line, pixel) = (within / sizes.pitch(), within % sizes.pitch());
            if line < sizes.height && pixel < sizes.width {
                segments.push(Segment {
                    from: place - start,
                    to: image * per_image + line * sizes.width + pixel,
                    length: (sizes.width - pixel).min(end - place),
                });
            }
            place += sizes.pitch() - pixel;
        }
        segments
    }
}

/// Adds to `sums`, a tile, what some input channels give; `fresh` sums start from zero.
///
/// `pixels` are padded rows, `length` apart; `weights` are `[inputs, 9, channels]`.
fn add_tile(
    pixels: &[f32],
    length: usize,
    taps: &[usize; 9],
    weights: &[f32],
    fresh: bool,
    sums: &mut [f32],
) {
    let Tile {
        channels,
        positions,
    } = Tile::here();
    let inputs = weights.len() / (9 * channels);
    assert_eq!(sums.len(), channels * positions);
    assert!(pixels.len() >= (inputs - 1) * length + taps[8] + positions);
    match instructions() {
        // SAFETY: the processor has these instructions, and all that is read lies before what was just checked.
        #[cfg(target_arch = "x86_64")]
        Instructions::Avx512 => unsafe {
            x86::add_tile_avx512(pixels, length, taps, weights, fresh, sums);
        },
        #[cfg(target_arch = "x86_64")]
        Instructions::Avx2 => unsafe {
            x86::add_tile_avx2(pixels, length, taps, weights, fresh, sums);
        },
        _ => add_tile_portable(Tile::here(), pixels, length, taps, weights, fresh, sums),
    }
}

fn add_tile_portable(
    tile: Tile,
    pixels: &[f32],
    length: usize,
    taps: &[usize; 9],
    weights: &[f32],
    fresh: bool,
    sums: &mut [f32],
) {
    if fresh {
        sums.fill(0.0);
    }
    let Tile {
        channels,
        positions,
    } = tile;
    for (input, weights) in weights.chunks_exact(9 * channels).enumerate() {
        for (tap, weights) in taps.iter().zip(weights.chunks_exact(channels)) {
            let pixels = &pixels[input * length + tap..][..positions];
            for (sums, weight) in sums.chunks_exact_mut(positions).zip(weights) {
                for (sum, pixel) in sums.iter_mut().zip(pixels) {
                    *sum += weight * pixel;
                }
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::{
        __m256, __m512, _mm256_fmadd_ps, _mm256_loadu_ps, _mm256_set1_ps, _mm256_setzero_ps,
        _mm256_storeu_ps, _mm512_fmadd_ps, _mm512_loadu_ps, _mm512_set1_ps, _mm512_setzero_ps,
        _mm512_storeu_ps,
    };

    use super::Tile;

    /// Adds to a tile of [`Tile::AVX512`].
    ///
    /// # Safety
    /// `pixels` must reach `taps[8]` and a tile beyond the last input channel's start.
    #[target_feature(enable = "avx512f")]
    pub(super) unsafe fn add_tile_avx512(
        pixels: &[f32],
        length: usize,
        taps: &[usize; 9],
        weights: &[f32],
        fresh: bool,
        sums: &mut [f32],
    ) {
        const WIDTH: usize = 16;
        const CHANNELS: usize = Tile::AVX512.channels;
        const VECTORS: usize = Tile::AVX512.positions / WIDTH;
        assert_eq!(sums.len(), CHANNELS * VECTORS * WIDTH);
        let kept = sums.as_mut_ptr();
        let mut totals: [[__m512; VECTORS]; CHANNELS] = [[_mm512_setzero_ps(); VECTORS]; CHANNELS];
        if !fresh {
            for (channel, totals) in totals.iter_mut().enumerate() {
                for (vector, total) in totals.iter_mut().enumerate() {
                    *total =
                        unsafe { _mm512_loadu_ps(kept.add((channel * VECTORS + vector) * WIDTH)) };
                }
            }
        }
        let mut weight = weights.as_ptr();
        for input in 0..weights.len() / (9 * CHANNELS) {
            for tap in taps {
                unsafe {
                    let source = pixels.as_ptr().add(input * length + tap);
                    let row = [
                        _mm512_loadu_ps(source),
                        _mm512_loadu_ps(source.add(WIDTH)),
                        _mm512_loadu_ps(source.add(2 * WIDTH)),
                    ];
                    for (channel, totals) in totals.iter_mut().enumerate() {
                        let factor = _mm512_set1_ps(*weight.add(channel));
                        for (total, pixels) in totals.iter_mut().zip(row) {
                            *total = _mm512_fmadd_ps(factor, pixels, *total);
                        }
                    }
                    weight = weight.add(CHANNELS);
                }
            }
        }
        for (channel, totals) in totals.iter().enumerate() {
            for (vector, total) in totals.iter().enumerate() {
                unsafe { _mm512_storeu_ps(kept.add((channel * VECTORS + vector) * WIDTH), *total) };
            }
        }
    }

    /// Adds to a tile of [`Tile::AVX2`].
    ///
    /// # Safety
    /// As [`add_tile_avx512`].
    #[target_feature(enable = "avx2,fma")]
    pub(super) unsafe fn add_tile_avx2(
        pixels: &[f32],
        length: usize,
        taps: &[usize; 9],
        weights: &[f32],
        fresh: bool,
        sums: &mut [f32],
    ) {
        const WIDTH: usize = 8;
        const CHANNELS: usize = Tile::AVX2.channels;
        const VECTORS: usize = Tile::AVX2.positions / WIDTH;
        assert_eq!(sums.len(), CHANNELS * VECTORS * WIDTH);
        let kept = sums.as_mut_ptr();
        let mut totals: [[__m256; VECTORS]; CHANNELS] = [[_mm256_setzero_ps(); VECTORS]; CHANNELS];
        if !fresh {
            for (channel, totals) in totals.iter_mut().enumerate() {
                for (vector, total) in totals.iter_mut().enumerate() {
                    *total =
                        unsafe { _mm256_loadu_ps(kept.add((channel * VECTORS + vector) * WIDTH)) };
                }
            }
        }
        let mut weight = weights.as_ptr();
        for input in 0..weights.len() / (9 * CHANNELS) {
            for tap in taps {
                unsafe {
                    let source = pixels.as_ptr().add(input * length + tap);
                    let row = [_mm256_loadu_ps(source), _mm256_loadu_ps(source.add(WIDTH))];
                    for (channel, totals) in totals.iter_mut().enumerate() {
                        let factor = _mm256_set1_ps(*weight.add(channel));
                        for (total, pixels) in totals.iter_mut().zip(row) {
                            *total = _mm256_fmadd_ps(factor, pixels, *total);
                        }
                    }
                    weight = weight.add(CHANNELS);
                }
            }
        }
        for (channel, totals) in totals.iter().enumerate() {
            for (vector, total) in totals.iter().enumerate() {
                unsafe { _mm256_storeu_ps(kept.add((channel * VECTORS + vector) * WIDTH), *total) };
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(count: usize, seed: usize) -> Vec<f32> {
        (0..count)
            .map(|i| ((i * 7919 + seed * 104_729) % 1009) as f32 / 504.0 - 1.0)
            .collect()
    }

    /// The definition, in f64.
    fn by_definition(
        sizes: ConvolutionSizes,
        input: &[f32],
        weight: &[f32],
        bias: &[f32],
    ) -> Vec<f64> {
        let ConvolutionSizes {
            batch,
            inputs,
            outputs,
            height,
            width,
        } = sizes;
        let mut result = Vec::new();
        for image in 0..batch {
            for output in 0..outputs {
                for line in 0..height {
                    for pixel in 0..width {
                        let mut sum = f64::from(bias[output]);
                        for channel in 0..inputs {
                            for tap in 0..9 {
                                let (y, x) = (line + tap / 3, pixel + tap % 3);
                                if (1..=height).contains(&y) && (1..=width).contains(&x) {
                                    let place =
                                        ((image * inputs + channel) * height + y - 1) * width + x
                                            - 1;
                                    sum += f64::from(input[place])
                                        * f64::from(weight[(output * inputs + channel) * 9 + tap]);
                                }
                            }
                        }
                        result.push(sum);
                    }
                }
            }
        }
        result
    }

    #[test]
    fn any_size_follows_the_definition() {
        // Batches that share rows, single large images, channels that fill no block, widths below and beyond a tile.
        for [batch, inputs, outputs, height, width] in [
            [1, 1, 1, 1, 1],
            [5, 3, 7, 4, 4],
            [16, 17, 9, 2, 3],
            [1, 40, 33, 9, 16],
            [2, 4, 16, 30, 61],
            [3, 16, 3, 5, 100],
        ] {
            let sizes = ConvolutionSizes {
                batch,
                inputs,
                outputs,
                height,
                width,
            };
            let input = numbers(batch * inputs * height * width, 1);
            let weight = numbers(outputs * inputs * 9, 2);
            let bias = numbers(outputs, 3);
            let got = convolve(sizes, &input, &weight, Some(&bias));
            let want = by_definition(sizes, &input, &weight, &bias);
            assert_eq!(got.len(), want.len());
            for (place, (got, want)) in got.iter().zip(want).enumerate() {
                assert!(
                    (f64::from(*got) - want).abs() < 1e-4,
                    "{sizes:?} at {place}: {got} for {want}"
                );
            }
        }
    }

    #[test]
    fn every_set_of_instructions_adds_the_same() {
        let sizes = ConvolutionSizes {
            batch: 1,
            inputs: 5,
            outputs: 8,
            height: 6,
            width: 11,
        };
        type AddTile = unsafe fn(&[f32], usize, &[usize; 9], &[f32], bool, &mut [f32]);
        let check = |tile: Tile, add: AddTile| {
            // As long a row as the widest tile asks for.
            let length = sizes.taps()[8] + Tile::AVX512.positions;
            let pixels = numbers(sizes.inputs * length, 4);
            let weights = packed(sizes, tile.channels, &numbers(8 * 45, 5));
            let weights = &weights[..sizes.inputs * 9 * tile.channels];
            for fresh in [false, true] {
                let mut want = numbers(tile.channels * tile.positions, 6);
                let mut got = want.clone();
                let taps = &sizes.taps();
                add_tile_portable(tile, &pixels, length, taps, weights, fresh, &mut want);
                // SAFETY: asked for only where the instructions are, and the row is long enough.
                unsafe { add(&pixels, length, taps, weights, fresh, &mut got) };
                for (got, want) in got.iter().zip(&want) {
                    assert!((got - want).abs() < 1e-5, "{got} for {want}");
                }
            }
        };
        check(Tile::here(), add_tile);
        #[cfg(target_arch = "x86_64")]
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
            check(Tile::AVX2, x86::add_tile_avx2);
        }
        #[cfg(target_arch = "x86_64")]
        if is_x86_feature_detected!("avx512f") {
            check(Tile::AVX512, x86::add_tile_avx512);
        }
    }
}
