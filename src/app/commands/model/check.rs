//! `ragar model check`: does a checkpoint compute here what the reference computes with it?

use std::fmt::Write as _;
use std::path::Path;

use burn::tensor::FloatDType;

use crate::app::cli::ComputeDtype;
use crate::app::golden::{Comparison, Proof, Question, Tolerance, prove};
use crate::app::session::Session;
use crate::pretrained::hub;

/// What was typed.
#[derive(Debug)]
pub struct CheckOptions<'a> {
    pub model: Option<&'a Path>,
    pub golden: &'a Path,
    pub adapter: Option<&'a Path>,
    pub dtype: ComputeDtype,
    pub atol: f64,
    pub rtol: f64,
}

/// Prints a line per recorded output.
///
/// # Errors
/// When an output is off by more than its bound, so that the program exits with 1.
pub fn check(session: &Session, options: &CheckOptions<'_>) -> anyhow::Result<()> {
    let model = options.model.map(hub::located);
    let question = Question {
        model: model.as_deref(),
        adapter: options.adapter,
        dtype: match options.dtype {
            ComputeDtype::F32 => FloatDType::F32,
            ComputeDtype::F16 => FloatDType::F16,
            ComputeDtype::Bf16 => FloatDType::BF16,
        },
        tolerance: Tolerance {
            atol: options.atol,
            rtol: options.rtol,
        },
    };
    let proof = prove(options.golden, &question, &session.devices()?)?;
    session.output.result(describe(&proof), &proof)?;
    let failed: Vec<&str> = proof
        .outputs
        .iter()
        .filter(|line| !line.passed)
        .map(|line| line.name.as_str())
        .collect();
    anyhow::ensure!(
        proof.passed,
        "{} of {} outputs differ from the reference: {}",
        failed.len(),
        proof.outputs.len(),
        failed.join(", ")
    );
    Ok(())
}

fn describe(proof: &Proof) -> String {
    let mut text = format!("{} against {}", proof.kind, proof.golden.display());
    if let Some(model) = &proof.model {
        text = format!("{}: {text}", model.display());
    }
    if let Some(adapter) = &proof.adapter {
        let _ = write!(text, ", with {}", adapter.display());
    }
    let _ = writeln!(text, ", {} on {}", proof.dtype, proof.device);
    let name = |line: &Comparison| line.name.chars().count();
    let width = proof.outputs.iter().map(name).max().unwrap_or(0);
    for line in &proof.outputs {
        let verdict = if line.passed { "ok" } else { "DIFFERS" };
        let _ = write!(text, "  {:<width$}  ", line.name);
        match &line.reason {
            Some(reason) => {
                let _ = writeln!(text, "{verdict}: {reason}");
            }
            None if line.bound == 0.0 => {
                let _ = writeln!(text, "{} ids differ  {verdict}", line.error);
            }
            None => {
                let cosine = line.cosine.map_or("none".into(), |c| format!("{c:.9}"));
                let _ = writeln!(
                    text,
                    "error {:.2e} of at most {:.2e}  relative {:.2e}  cosine {cosine}  {verdict}",
                    line.error, line.bound, line.relative
                );
            }
        }
    }
    text
}
