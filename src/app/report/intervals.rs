//! Means with their intervals as a drawing of its own.

use std::fmt::Write as _;

use super::html::escape;
use crate::evaluation::interval::Interval;

const WIDTH: f64 = 590.0;
const LEFT: f64 = 190.0;
const RIGHT: f64 = 70.0;
const ROW: f64 = 26.0;
const HEAD: f64 = 30.0;

/// Panels of `(title, rows)`, each row a name and a mean with its interval, as an SVG file.
pub fn intervals(panels: &[(String, Vec<(String, Interval)>)]) -> String {
    let rows: usize = panels.iter().map(|(_, rows)| rows.len()).sum();
    let height = rows as f64 * ROW + panels.len() as f64 * HEAD + 10.0;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" font-family=\"sans-serif\" font-size=\"12\">\
         <rect width=\"{WIDTH}\" height=\"{height}\" fill=\"white\"/>"
    );
    let mut top = 0.0;
    for (title, rows) in panels {
        let _ = write!(
            svg,
            "<text x=\"8\" y=\"{:.1}\" font-weight=\"bold\">{}</text>",
            top + 20.0,
            escape(title)
        );
        top += HEAD;
        // From zero, so that lengths compare; zero moves to the right where there are values below it.
        let most = rows.iter().map(|(_, row)| row.high).fold(1e-9, f64::max);
        let least = rows.iter().map(|(_, row)| row.low).fold(0.0, f64::min);
        let x = |value: f64| LEFT + (value - least) / (most - least) * (WIDTH - LEFT - RIGHT);
        for (name, row) in rows {
            let middle = top + ROW / 2.0;
            let _ = write!(
                svg,
                "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>\
                 <rect x=\"{:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"14\" fill=\"#9db7d5\"/>\
                 <path d=\"M{:.1} {middle:.1}H{:.1}M{:.1} {:.1}v8M{:.1} {:.1}v8\" stroke=\"#223\" fill=\"none\"/>\
                 <text x=\"{:.1}\" y=\"{:.1}\">{:.4}</text>",
                LEFT - 8.0,
                middle + 4.0,
                escape(name),
                x(row.mean.min(0.0)),
                middle - 7.0,
                (x(row.mean) - x(0.0)).abs(),
                x(row.low),
                x(row.high),
                x(row.low),
                middle - 4.0,
                x(row.high),
                middle - 4.0,
                WIDTH - RIGHT + 8.0,
                middle + 4.0,
                row.mean
            );
            top += ROW;
        }
    }
    svg + "</svg>\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_is_drawn_and_names_are_escaped() {
        let row = |mean: f64| Interval {
            mean,
            low: mean - 0.1,
            high: mean + 0.1,
            count: 3,
        };
        let rows = vec![("a<b".to_string(), row(0.4)), ("c".into(), row(0.2))];
        let svg = intervals(&[("Recall".into(), rows)]);
        assert!(svg.contains("a&lt;b") && svg.contains("0.4000") && svg.contains("0.2000"));
        assert_eq!(svg.matches("<path").count(), 2);
    }

    #[test]
    fn values_below_zero_grow_to_the_left_of_it() {
        let row = |mean: f64| Interval {
            mean,
            low: mean - 0.5,
            high: mean + 0.5,
            count: 3,
        };
        let rows = vec![("up".to_string(), row(0.5)), ("down".into(), row(-0.5))];
        let svg = intervals(&[("Reward".into(), rows)]);
        let starts: Vec<f64> = svg
            .split("<rect x=\"")
            .skip(1)
            .map(|rest| rest.split('"').next().unwrap().parse().unwrap())
            .collect();
        let middle = (LEFT + WIDTH - RIGHT) / 2.0;
        assert!((starts[0] - middle).abs() < 0.1, "{starts:?}");
        assert!(starts[1] < middle && starts[1] > LEFT, "{starts:?}");
    }
}
