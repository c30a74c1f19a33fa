//! `ragar budget`: the device memory of a training, from configurations alone.

use std::fmt::Write as _;

use crate::app::budget::{Budget, Line, Shapes};
use crate::app::session::Session;

const CARDS: [u64; 2] = [40, 80];

/// Prints the budget of the session's configuration.
pub fn run(session: &Session) -> anyhow::Result<()> {
    let config = &session.config;
    let shapes = Shapes::read(config)?;
    let budget = Budget::of(config, &shapes, &session.devices()?)?;
    session.output.result(describe(&budget), &budget)
}

fn gigabytes(bytes: u64) -> f64 {
    bytes as f64 / (1u64 << 30) as f64
}

fn describe(budget: &Budget) -> String {
    let mut text = String::new();
    let sections: [(&str, &[Line]); 5] = [
        ("Frozen weights", &budget.weights),
        ("Training", &budget.training),
        ("While learning, together", &budget.step),
        ("While drawing, the larger of", &budget.transient),
        ("Before training, then gone", &budget.preparation),
    ];
    for (title, lines) in sections {
        let _ = writeln!(text, "{title}");
        for line in lines {
            let numbers = match line.numbers {
                0 => String::new(),
                count => format!("{:.2} M {}", count as f64 / 1e6, line.dtype),
            };
            let _ = writeln!(
                text,
                "  {:<34} {numbers:>18} {:>9.2} GiB",
                line.what,
                gigabytes(line.bytes)
            );
        }
    }
    let _ = writeln!(
        text,
        "Kept by device and driver (estimate) {:>27.2} GiB\n",
        gigabytes(budget.reserved)
    );
    for (what, bytes) in [
        ("Training, as configured", budget.total),
        (
            "Training, segments of one layer",
            budget.total_with_segments,
        ),
        ("Captions and keywords", budget.total_of_preparation),
    ] {
        let fits: Vec<String> = CARDS
            .iter()
            .map(|card| match bytes <= card << 30 {
                true => format!("fits {card} GB"),
                false => format!("does not fit {card} GB"),
            })
            .collect();
        let _ = writeln!(
            text,
            "{what:<36} {:>27.2} GiB  {}",
            gigabytes(bytes),
            fits.join(", ")
        );
    }
    text
}
