//! Curves of a training, from its `metrics.jsonl`.

use std::path::Path;

use serde_json::Value;

use crate::app::report::{Chart, Series};

/// Losses, rewards and ranks of the training in `folder`; nothing where there is no log.
pub fn charts(folder: &Path) -> Vec<Chart> {
    let text = std::fs::read_to_string(folder.join("metrics.jsonl")).unwrap_or_default();
    let lines: Vec<Value> = text
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect();
    let series = |name: &str, key: &str| Series {
        name: name.to_string(),
        points: lines
            .iter()
            .filter_map(|line| Some((line.get("step")?.as_f64()?, line.get(key)?.as_f64()?)))
            .collect(),
        ..Default::default()
    };
    let chart = |title: &str, parts: &[(&str, &str)]| Chart {
        title: title.to_string(),
        x_label: "step".into(),
        series: parts.iter().map(|(name, key)| series(name, key)).collect(),
        ..Default::default()
    };
    let charts = [
        chart(
            "Losses",
            &[("calibration", "calibration"), ("semantic", "semantic")],
        ),
        chart("Rank loss", &[("rank", "rank")]),
        chart("Reward", &[("mean reward of explored images", "reward")]),
        chart(
            "Scores by the ranking model",
            &[
                ("personalised", "score_personalised"),
                ("keywords", "score_keyword"),
                ("reference", "score_reference"),
            ],
        ),
    ];
    let drawn = |chart: &Chart| chart.series.iter().any(|series| !series.points.is_empty());
    charts.into_iter().filter(drawn).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_becomes_curves_and_no_log_none() {
        let folder = tempfile::tempdir().unwrap();
        assert!(charts(folder.path()).is_empty());
        let log = "{\"step\":0,\"reward\":-1.0}\n{\"step\":1,\"reward\":null}\n{\"step\":2,\"reward\":0.5}\nbroken\n";
        std::fs::write(folder.path().join("metrics.jsonl"), log).unwrap();
        let charts = charts(folder.path());
        assert_eq!(charts.len(), 1);
        assert_eq!(charts[0].series[0].points, [(0.0, -1.0), (2.0, 0.5)]);
    }
}
