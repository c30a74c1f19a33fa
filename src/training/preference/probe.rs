//! `training.micro_batch = "auto"`: how many samples does the device's memory hold at once?

use std::panic::{AssertUnwindSafe, catch_unwind};

use burn::tensor::Tensor;
use burn::tensor::backend::AutodiffBackend;

use super::error::TrainingError;
use crate::generation::preference::{PreferenceModel, Reading};
use crate::generation::sample::{Sample, rows};
use crate::generation::segments;
use crate::generation::shift::retrieval_shift;
use crate::optimisation::device_failure;
use crate::reflection::rollout::Frozen;

/// The largest of 1, 2, 4, … `batch_size` for which a backward pass over the longest prompt of `samples` ends well and
/// leaves room for twice its host memory.
///
/// # Errors
/// When not even one sample fits.
pub(super) fn micro_batch<B: AutodiffBackend>(
    model: &PreferenceModel<B>,
    frozen: &Frozen<'_, B::InnerBackend>,
    samples: &[Sample],
    batch_size: usize,
    segment_layers: usize,
) -> Result<usize, TrainingError> {
    let longest = samples
        .iter()
        .max_by_key(|sample| sample.preference_ids.len());
    let longest = longest.ok_or(TrainingError::Empty)?;
    let sizes = (0..).map(|power| (1usize << power).min(batch_size));
    let mut fits = 0;
    for size in sizes {
        let before = host_memory();
        if let Err(reason) = passes(model, frozen, &vec![longest; size], segment_layers) {
            if fits == 0 {
                return Err(TrainingError::Memory { reason });
            }
            break;
        }
        fits = size;
        if size == batch_size || no_room_for_more(before, host_memory()) {
            break;
        }
    }
    Ok(fits)
}

/// One backward pass; out of memory is a panic of the backend.
fn passes<B: AutodiffBackend>(
    model: &PreferenceModel<B>,
    frozen: &Frozen<'_, B::InnerBackend>,
    samples: &[&Sample],
    segment_layers: usize,
) -> Result<(), String> {
    let device_holds = || device_failure::check().map_err(|failure| failure.to_string());
    device_holds()?;
    let pass = || -> Result<(), String> {
        let prompts: Vec<&str> = samples.iter().map(|s| s.global_prompt.as_str()).collect();
        let ids: Vec<&[u32]> = samples
            .iter()
            .map(|s| s.preference_ids.as_slice())
            .collect();
        let retrieved = rows(samples, |s| &s.retrieved_preference, &frozen.device);
        let reading = Reading {
            prompts: &ids,
            global: Tensor::from_inner(frozen.text.encode(&prompts).states),
            retrieved: Tensor::from_inner(retrieved),
            shift: model
                .takes_shift()
                .then(|| Tensor::from_inner(retrieval_shift(samples, frozen.text))),
        };
        let gradients = segments::gradients(model, &reading, segment_layers, |preference| {
            let size = |t: Tensor<B, 3>| t.powi_scalar(2).mean();
            size(preference.general) + size(preference.multimodal)
        });
        drop(gradients);
        <B::InnerBackend as burn::tensor::backend::Backend>::sync(&frozen.device)
            .map_err(|error| format!("{error:?}"))
    };
    let passed = catch_unwind(AssertUnwindSafe(pass)).unwrap_or_else(|panic| {
        Err(panic
            .downcast_ref::<String>()
            .cloned()
            .or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string))
            .unwrap_or_else(|| "the backend gave no reason".into()))
    });
    // The device's own thread swallows a panic, and nothing of this pass is needed.
    let held = device_holds();
    device_failure::forget();
    passed.and(held)
}

/// Bytes of the host: this process's peak, and what is free. Known on Linux alone.
#[derive(Debug, Clone, Copy)]
struct HostMemory {
    peak: u64,
    available: u64,
}

fn host_memory() -> Option<HostMemory> {
    let field = |file: &str, name: &str| -> Option<u64> {
        let text = std::fs::read_to_string(file).ok()?;
        let line = text.lines().find(|line| line.starts_with(name))?;
        let kilobytes: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
        Some(kilobytes * 1024)
    };
    Some(HostMemory {
        peak: field("/proc/self/status", "VmHWM:")?,
        available: field("/proc/meminfo", "MemAvailable:")?,
    })
}

/// Would twice as much of what the last pass added be too much?
fn no_room_for_more(before: Option<HostMemory>, after: Option<HostMemory>) -> bool {
    match (before, after) {
        (Some(before), Some(after)) => 2 * after.peak.saturating_sub(before.peak) > after.available,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_left_for_twice_the_growth() {
        let memory = |peak, available| Some(HostMemory { peak, available });
        assert!(!no_room_for_more(memory(10, 100), memory(40, 90)));
        assert!(no_room_for_more(memory(10, 100), memory(60, 90)));
        assert!(!no_room_for_more(None, memory(60, 1)));
    }
}
