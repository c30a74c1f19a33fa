//! Every number of a log as a curve, those that belong together in one chart.

use std::collections::BTreeMap;

use serde_json::Value;

use super::super::{Chart, Series};

/// Points of a curve; a longer one is drawn by the means of its parts.
const MAX_POINTS: usize = 1000;

/// Charts of `metrics.jsonl`: first what a training is about, then whatever else it logs.
pub fn of_training(lines: &[Value]) -> Vec<Chart> {
    let mut charts: Vec<(usize, Chart)> = Vec::new();
    for (key, points) in numbers(lines) {
        let (order, title) = place(&key);
        let series = Series {
            name: name(&key),
            points: thinned(points),
            ..Default::default()
        };
        match charts.iter_mut().find(|(_, chart)| chart.title == title) {
            Some((_, chart)) => chart.series.push(series),
            None => charts.push((order, chart(title, series))),
        }
    }
    charts.sort_by_key(|(order, _)| *order);
    charts.into_iter().map(|(_, chart)| chart).collect()
}

/// Charts of `validation.jsonl`, one a metric, with its interval where `…_low` and `…_high` stand beside it.
pub fn of_validation(lines: &[Value]) -> Vec<Chart> {
    let numbers = numbers(lines);
    let find = |key: &str| numbers.iter().find(|(name, _)| name == key);
    let is_end = |key: &str| {
        let metric = key
            .strip_suffix("_low")
            .or_else(|| key.strip_suffix("_high"));
        metric.is_some_and(|metric| find(metric).is_some())
    };
    let metrics = numbers.iter().filter(|(key, _)| !is_end(key));
    metrics
        .map(|(key, points)| {
            let ends = find(&format!("{key}_low")).zip(find(&format!("{key}_high")));
            let band = ends.map(|((_, low), (_, high))| {
                let high: BTreeMap<u64, f64> = high
                    .iter()
                    .map(|(at, high)| (at.to_bits(), *high))
                    .collect();
                let both = low
                    .iter()
                    .filter_map(|(at, low)| Some((*at, *low, *high.get(&at.to_bits())?)));
                both.collect()
            });
            let series = Series {
                name: name(key),
                points: points.clone(),
                band: band.unwrap_or_default(),
            };
            chart(format!("Validation: {}", name(key)), series)
        })
        .collect()
}

fn chart(title: String, series: Series) -> Chart {
    Chart {
        title,
        x_label: "step".into(),
        series: vec![series],
        ..Default::default()
    }
}

/// Where a number of the training log is drawn, and how far up on the page.
fn place(key: &str) -> (usize, String) {
    let begins = |prefix: &str| key.starts_with(prefix);
    let (order, title) = match key {
        "loss" => (0, "Loss"),
        "rank" | "calibration" | "semantic" => (1, "Losses by part"),
        _ if begins("reward") => (2, "Reward"),
        _ if begins("score") => (3, "Scores by the ranking model"),
        _ if begins("rank_") => (4, "Ranks"),
        _ if key.contains("alarm") => (5, "Alarms"),
        "learning_rate" => (6, "Learning rate"),
        _ if begins("gradient_norm") => (7, "Gradient norm"),
        _ if begins("seconds") => (9, "Seconds by part"),
        // Numbers of one object share a chart.
        _ => {
            let group = key.split_once('.').map_or(key, |(group, _)| group);
            return (8, sentence(&name(group)));
        }
    };
    (order, title.into())
}

fn name(key: &str) -> String {
    key.replace('_', " ").replace('.', ": ")
}

fn sentence(text: &str) -> String {
    let mut letters = text.chars();
    let first = letters.next().map(|c| c.to_uppercase().to_string());
    first.unwrap_or_default() + letters.as_str()
}

/// Every number of the lines by its key, in the order in which keys first come; those within objects as `outer.inner`,
/// truth as 0 and 1.
fn numbers(lines: &[Value]) -> Vec<(String, Vec<(f64, f64)>)> {
    let mut found: Vec<(String, Vec<(f64, f64)>)> = Vec::new();
    let mut places: BTreeMap<String, usize> = BTreeMap::new();
    for line in lines {
        let Some(step) = line.get("step").and_then(Value::as_f64) else {
            continue;
        };
        visit("", line, &mut |key, value| {
            if key == "step" {
                return;
            }
            let place = *places.entry(key.to_string()).or_insert_with(|| {
                found.push((key.to_string(), Vec::new()));
                found.len() - 1
            });
            found[place].1.push((step, value));
        });
    }
    found
}

fn visit(key: &str, value: &Value, each: &mut impl FnMut(&str, f64)) {
    match value {
        Value::Object(fields) => {
            for (inner, value) in fields {
                match key {
                    "" => visit(inner, value, each),
                    outer => visit(&format!("{outer}.{inner}"), value, each),
                }
            }
        }
        Value::Bool(truth) => each(key, f64::from(u8::from(*truth))),
        Value::Number(number) => {
            if let Some(number) = number.as_f64() {
                each(key, number);
            }
        }
        _ => {}
    }
}

/// At most [`MAX_POINTS`] points, each the mean of neighbours.
fn thinned(points: Vec<(f64, f64)>) -> Vec<(f64, f64)> {
    let size = points.len().div_ceil(MAX_POINTS).max(1);
    if size == 1 {
        return points;
    }
    let mean = |values: &mut dyn Iterator<Item = f64>, count: usize| -> f64 {
        values.sum::<f64>() / count as f64
    };
    points
        .chunks(size)
        .map(|part| {
            let horizontal = mean(&mut part.iter().map(|point| point.0), part.len());
            let vertical = mean(&mut part.iter().map(|point| point.1), part.len());
            (horizontal, vertical)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_number_is_drawn_and_neighbours_share_a_chart() {
        let lines = [
            json!({"step": 0, "loss": 2.0, "seconds": {"drawing": 1.5, "language": 0.5}, "users": ["a"], "alarm_reward": false}),
            json!({"step": 1, "loss": null, "score_reference": 3, "seconds": {"drawing": 2.5, "language": 0.5}}),
            json!({"no": "step", "loss": 7.0}),
        ];
        let charts = of_training(&lines);
        let titles: Vec<&str> = charts.iter().map(|chart| chart.title.as_str()).collect();
        let expected = [
            "Loss",
            "Scores by the ranking model",
            "Alarms",
            "Seconds by part",
        ];
        assert_eq!(titles, expected);
        assert_eq!(charts[0].series[0].points, [(0.0, 2.0)]);
        let names: Vec<&str> = charts[3].series.iter().map(|s| s.name.as_str()).collect();
        assert_eq!(names, ["seconds: drawing", "seconds: language"]);
    }

    #[test]
    fn intervals_belong_to_their_metric() {
        let lines = [
            json!({"step": 10, "style@1": 0.5, "style@1_low": 0.4, "style@1_high": 0.6, "below_low": 1.0}),
            json!({"step": 20, "style@1": 0.7, "style@1_low": 0.6}),
        ];
        let charts = of_validation(&lines);
        let titles: Vec<&str> = charts.iter().map(|chart| chart.title.as_str()).collect();
        assert_eq!(titles, ["Validation: style@1", "Validation: below low"]);
        let series = &charts[0].series[0];
        assert_eq!(series.points, [(10.0, 0.5), (20.0, 0.7)]);
        assert_eq!(series.band, [(10.0, 0.4, 0.6)]);
    }

    #[test]
    fn a_long_curve_is_thinned_by_means() {
        let points: Vec<(f64, f64)> = (0..2500).map(|x| (f64::from(x), 1.0)).collect();
        let thin = thinned(points);
        assert_eq!(thin.len(), 834);
        assert_eq!(thin[0], (1.0, 1.0));
    }
}
