//! Line charts as inline SVG.

use std::fmt::Write as _;

use serde::Serialize;

use super::html::escape;

/// Curves over a common axis.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Chart {
    /// The heading.
    pub title: String,
    /// What the horizontal axis counts.
    pub x_label: String,
    /// The curves.
    pub series: Vec<Series>,
    /// Steps at which something happened, and what.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub marks: Vec<(f64, String)>,
}

/// One curve.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Series {
    /// Its name in the legend.
    pub name: String,
    /// (step, value); values that are not finite are left out.
    pub points: Vec<(f64, f64)>,
    /// (step, low, high): the interval around the curve.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub band: Vec<(f64, f64, f64)>,
}

const WIDTH: f64 = 460.0;
const HEIGHT: f64 = 240.0;
const LEFT: f64 = 52.0;
const RIGHT: f64 = 12.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = 34.0;

/// The extent of the data, widened where it is a single value.
fn extent(values: impl Iterator<Item = f64>) -> Option<(f64, f64)> {
    let (low, high) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| {
        (low.min(value), high.max(value))
    });
    if low > high {
        return None;
    }
    if high > low {
        return Some((low, high));
    }
    let margin = if low == 0.0 { 1.0 } else { low.abs() * 0.1 };
    Some((low - margin, high + margin))
}

/// Some four to six round numbers within `low..=high`.
fn ticks(low: f64, high: f64) -> Vec<f64> {
    let rough = (high - low) / 5.0;
    let power = 10f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0]
        .into_iter()
        .map(|factor| factor * power)
        .find(|step| *step >= rough)
        .unwrap_or(rough);
    let first = (low / step).ceil();
    (0..12)
        .map(|index| (first + f64::from(index)) * step)
        .take_while(|tick| *tick <= high + step * 1e-9)
        .collect()
}

/// A number as short as its axis allows.
fn label(value: f64, span: f64) -> String {
    let digits = (1.0 - span.log10().floor()).clamp(0.0, 6.0) as usize;
    let text = format!("{value:.digits$}");
    match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_string(),
        false => text,
    }
}

/// The mean over a window that widens with the curve's length.
fn smooth(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let reach = points.len() / 40;
    (0..points.len())
        .map(|at| {
            let window = &points[at.saturating_sub(reach)..(at + reach + 1).min(points.len())];
            let sum: f64 = window.iter().map(|(_, value)| value).sum();
            (points[at].0, sum / window.len() as f64)
        })
        .collect()
}

/// The chart as a `<figure>`; nothing where there is no finite point.
pub(super) fn figure(chart: &Chart) -> String {
    let series: Vec<(&str, Vec<(f64, f64)>)> = chart
        .series
        .iter()
        .map(|series| {
            let finite = series.points.iter().copied();
            let finite = finite.filter(|(x, y)| x.is_finite() && y.is_finite());
            (series.name.as_str(), finite.collect())
        })
        .collect();
    let all = || series.iter().flat_map(|(_, points)| points.iter());
    let bands = || chart.series.iter().flat_map(|series| series.band.iter());
    let ends = bands()
        .flat_map(|(_, low, high)| [*low, *high])
        .filter(|end| end.is_finite());
    let (Some((x_low, x_high)), Some((y_low, y_high))) = (
        extent(all().map(|point| point.0)),
        extent(all().map(|point| point.1).chain(ends)),
    ) else {
        return String::new();
    };
    let x = |value: f64| LEFT + (value - x_low) / (x_high - x_low) * (WIDTH - LEFT - RIGHT);
    let y =
        |value: f64| HEIGHT - BOTTOM - (value - y_low) / (y_high - y_low) * (HEIGHT - TOP - BOTTOM);
    let mut svg = format!(
        "<figure class=\"chart\"><figcaption>{}</figcaption><svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{}\" xmlns=\"http://www.w3.org/2000/svg\">",
        escape(&chart.title),
        escape(&chart.title),
    );
    for tick in ticks(y_low, y_high) {
        let at = y(tick);
        let _ = write!(
            svg,
            "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{:.1}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/><text class=\"tick\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            WIDTH - RIGHT,
            LEFT - 6.0,
            at + 3.5,
            label(tick, y_high - y_low)
        );
    }
    for tick in ticks(x_low, x_high) {
        let _ = write!(
            svg,
            "<text class=\"tick\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
            x(tick),
            HEIGHT - BOTTOM + 15.0,
            label(tick, x_high - x_low)
        );
    }
    let _ = write!(
        svg,
        "<text class=\"tick\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
        (LEFT + WIDTH - RIGHT) / 2.0,
        HEIGHT - 4.0,
        escape(&chart.x_label)
    );
    let line = |points: &[(f64, f64)], class: &str| {
        let mut text = format!("<polyline class=\"{class}\" points=\"");
        for (horizontal, vertical) in points {
            let _ = write!(text, "{:.1},{:.1} ", x(*horizontal), y(*vertical));
        }
        text + "\"/>"
    };
    for (at, what) in &chart.marks {
        if (x_low..=x_high).contains(at) {
            let _ = write!(
                svg,
                "<line class=\"mark\" x1=\"{0:.1}\" x2=\"{0:.1}\" y1=\"{TOP}\" y2=\"{1:.1}\"><title>{2}</title></line>",
                x(*at),
                HEIGHT - BOTTOM,
                escape(what)
            );
        }
    }
    for (index, band) in chart.series.iter().map(|series| &series.band).enumerate() {
        let finite = |(_, low, high): &&(f64, f64, f64)| low.is_finite() && high.is_finite();
        let band: Vec<_> = band.iter().filter(finite).collect();
        if band.is_empty() {
            continue;
        }
        let _ = write!(svg, "<polygon class=\"c{}\" points=\"", index % 5);
        let upper = band.iter().map(|(at, _, high)| (at, high));
        let lower = band.iter().rev().map(|(at, low, _)| (at, low));
        for (horizontal, vertical) in upper.chain(lower) {
            let _ = write!(svg, "{:.1},{:.1} ", x(*horizontal), y(*vertical));
        }
        svg += "\"/>";
    }
    for (index, (_, points)) in series.iter().enumerate() {
        let colour = format!("c{}", index % 5);
        if let [(horizontal, vertical)] = points[..] {
            let _ = write!(
                svg,
                "<circle class=\"{colour}\" cx=\"{:.1}\" cy=\"{:.1}\" r=\"3\"/>",
                x(horizontal),
                y(vertical)
            );
        }
        if points.len() >= 80 {
            svg += &line(points, &format!("raw {colour}"));
        }
        svg += &line(&smooth(points), &colour);
    }
    svg += "</svg><ul class=\"legend\">";
    for (index, (name, points)) in series.iter().enumerate() {
        let last = points.last().map_or(String::new(), |(_, value)| {
            format!(" <b>{}</b>", label(*value, (y_high - y_low) / 10.0))
        });
        let _ = write!(
            svg,
            "<li class=\"c{}\">{}{last}</li>",
            index % 5,
            escape(name)
        );
    }
    svg + "</ul></figure>"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_within() {
        assert_eq!(
            ticks(0.0, 1.0),
            [0.0, 0.2, 0.4, 0.6000000000000001, 0.8, 1.0]
        );
        for (low, high) in [(-3.0, 7.0), (0.001, 0.0012), (0.0, 4000.0)] {
            let ticks = ticks(low, high);
            assert!((3..=7).contains(&ticks.len()), "{ticks:?}");
            assert!(ticks.iter().all(|tick| *tick >= low - 1e-9));
        }
    }

    #[test]
    fn a_constant_curve_has_room_and_an_empty_one_is_no_figure() {
        assert_eq!(extent([2.0, 2.0].into_iter()), Some((1.8, 2.2)));
        assert_eq!(figure(&Chart::default()), "");
    }

    #[test]
    fn intervals_and_marks_are_drawn_within_the_chart() {
        let mut chart = Chart {
            series: vec![Series {
                points: vec![(0.0, 1.0), (10.0, 2.0)],
                band: vec![(0.0, 0.5, 1.5), (10.0, 1.0, f64::NAN)],
                ..Default::default()
            }],
            marks: vec![(5.0, "a <b>".into()), (50.0, "beyond".into())],
            ..Default::default()
        };
        let svg = figure(&chart);
        assert!(svg.contains("<polygon") && svg.contains("a &lt;b&gt;"));
        assert!(!svg.contains("beyond") && !svg.contains("NaN"), "{svg}");
        chart.series[0].points.truncate(1);
        assert!(figure(&chart).contains("<circle"), "one value is a point");
    }

    #[test]
    fn smoothing_keeps_length_and_constant() {
        let points: Vec<(f64, f64)> = (0..100).map(|x| (f64::from(x), 3.0)).collect();
        assert_eq!(smooth(&points), points);
    }
}
