//! What a run has to show: `report.html` for people, `report.json` for machines, from the same data.
//!
//! The page is one file: pictures and curves are inside it, and it needs neither scripts nor a network.

mod chart;
mod formats;
mod html;
mod intervals;
mod run;
mod sheet;
mod text;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::files;
use super::pictures::png;

pub use chart::{Chart, Series};
pub use intervals::intervals;
pub use run::of_run;

/// Everything that a report shows.
#[derive(Debug, Clone, Default, Serialize)]
pub struct ReportData {
    /// The heading.
    pub title: String,
    /// One or two sentences beneath it.
    pub introduction: String,
    /// The run in a few words: command, device, seed, data.
    pub facts: Vec<Fact>,
    /// Scores with intervals, ceilings and floors.
    pub tables: Vec<ScoreTable>,
    /// Losses and rewards over the training steps.
    pub charts: Vec<Chart>,
    /// Users, with pictures.
    pub users: Vec<UserPanel>,
    /// The same users' pictures at successive steps of a training.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub rows: Vec<PictureRow>,
    /// What happened on the way, the latest last.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub events: Vec<Event>,
    /// How long each part took, in seconds; the one thing here that a repeated run changes.
    pub seconds: Vec<(String, f64)>,
    /// The resolved configuration as TOML.
    pub configuration: String,
}

/// One label and its value.
#[derive(Debug, Clone, Serialize)]
pub struct Fact {
    /// What.
    pub label: String,
    /// Its value.
    pub value: String,
}

impl Fact {
    /// A fact of the run.
    pub fn new(label: &str, value: impl ToString) -> Self {
        Self {
            label: label.to_string(),
            value: value.to_string(),
        }
    }
}

/// Methods against metrics.
#[derive(Debug, Clone, Default, Serialize)]
pub struct ScoreTable {
    /// The heading.
    pub title: String,
    /// What the numbers mean and how the intervals were made.
    pub note: String,
    /// The columns.
    pub metrics: Vec<Metric>,
    /// The rows.
    pub rows: Vec<ScoreRow>,
}

/// A column of a table.
#[derive(Debug, Clone, Serialize)]
pub struct Metric {
    /// The name in JSON, `both@1`.
    pub key: String,
    /// The heading on the page.
    pub label: String,
    /// Is more better?
    pub higher_is_better: bool,
    /// Digits after the point on the page.
    pub digits: usize,
}

impl Metric {
    /// A metric with two digits where more is better.
    pub fn higher(key: &str) -> Self {
        Self {
            key: key.to_string(),
            label: key.to_string(),
            higher_is_better: true,
            digits: 2,
        }
    }

    /// A metric with two digits where less is better.
    pub fn lower(key: &str) -> Self {
        Self {
            higher_is_better: false,
            ..Self::higher(key)
        }
    }
}

/// What a row stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum RowKind {
    /// The best that the judge itself can say, on real images.
    Ceiling,
    /// A method under test.
    Method,
    /// What costs nothing.
    Floor,
}

/// A row of a table.
#[derive(Debug, Clone, Serialize)]
pub struct ScoreRow {
    /// The method.
    pub name: String,
    /// Method, ceiling or floor.
    pub kind: RowKind,
    /// Values by the metric's key; a missing one is shown as a dash.
    pub scores: BTreeMap<String, Score>,
}

/// A mean over users and its interval.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Score {
    /// The mean.
    pub mean: f64,
    /// The lower end of the 95 % interval.
    pub low: f64,
    /// The upper end.
    pub high: f64,
    /// Users behind it.
    pub count: usize,
}

/// An encoded picture with a name; the bytes go into the page, not into the JSON.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Picture {
    /// What it shows, read out to those who cannot see it.
    pub text: String,
    /// A PNG file.
    #[serde(skip)]
    pub png: Vec<u8>,
}

/// One user.
#[derive(Debug, Clone, Default, Serialize)]
pub struct UserPanel {
    /// The user's id.
    pub user: String,
    /// A sentence on the user's taste, where the data tell it.
    pub taste: String,
    /// The history, oldest first.
    pub history: Vec<HistoryPicture>,
    /// Keywords kept for the user.
    pub keywords: Vec<String>,
    /// The language model's one-line summary.
    pub summary: String,
    /// Reference, drawings, target, in the order shown.
    pub drawings: Vec<Drawing>,
}

/// An item of a history.
#[derive(Debug, Clone, Serialize)]
pub struct HistoryPicture {
    /// The item.
    pub picture: Picture,
    /// Its place among the retrieved items, 1 for the one most related to the reference.
    pub retrieved: Option<usize>,
}

/// A validation user's pictures, the reference first.
#[derive(Debug, Clone, Serialize)]
pub struct PictureRow {
    /// The user, as the picture's file is called.
    pub user: String,
    /// A caption and the picture each.
    pub pictures: Vec<(String, Picture)>,
}

/// Something that happened during a training.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Event {
    /// When.
    pub step: usize,
    /// `rollback`, `alarm`, `resumed`, `interrupted`, `best`.
    pub kind: String,
    /// A sentence.
    pub text: String,
}

/// What a drawing is, for its frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum DrawingKind {
    /// The item as it is.
    Reference,
    /// Drawn by another method.
    Other,
    /// Drawn by RAGAR.
    Ours,
    /// The right answer.
    Target,
}

/// One picture of a user's row.
#[derive(Debug, Clone, Serialize)]
pub struct Drawing {
    /// Reference, keywords, SD, RAGAR, target.
    pub label: String,
    /// For its frame.
    pub kind: DrawingKind,
    /// The picture.
    pub picture: Picture,
    /// Judgements, such as (`style`, right).
    pub marks: Vec<(String, bool)>,
    /// Further words, such as the rank.
    pub note: String,
}

impl ReportData {
    /// The page.
    pub fn to_html(&self) -> String {
        html::page(self)
    }

    /// Writes `report.html`, `report.json` and `sheet.png` into `folder` and returns the page's path.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn write(&self, folder: &Path) -> anyhow::Result<PathBuf> {
        let page = folder.join("report.html");
        files::write_json(&folder.join("report.json"), self)?;
        files::write(&page, html::page(self).as_bytes())?;
        if let Some(sheet) = sheet::sheet(&self.users)? {
            files::write(&folder.join("sheet.png"), &png(&sheet)?)?;
        }
        Ok(page)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picture(text: &str) -> Picture {
        Picture {
            text: text.into(),
            png: vec![1, 2, 3],
        }
    }

    fn data() -> ReportData {
        let score = Score {
            mean: 0.5,
            low: 0.25,
            high: 0.75,
            count: 12,
        };
        ReportData {
            title: "A <small> report".into(),
            tables: vec![ScoreTable {
                metrics: vec![Metric::higher("both@1"), Metric::lower("lpips")],
                rows: vec![ScoreRow {
                    name: "RAGAR".into(),
                    kind: RowKind::Method,
                    scores: [("both@1".to_string(), score)].into(),
                }],
                ..Default::default()
            }],
            charts: vec![Chart {
                title: "Loss".into(),
                x_label: "step".into(),
                series: vec![Series {
                    name: "total".into(),
                    points: vec![(0.0, 2.0), (1.0, f64::NAN), (2.0, 1.0)],
                    ..Default::default()
                }],
                ..Default::default()
            }],
            users: vec![UserPanel {
                user: "u<1>".into(),
                history: vec![HistoryPicture {
                    picture: picture("a \"fox\""),
                    retrieved: Some(2),
                }],
                drawings: vec![Drawing {
                    label: "RAGAR".into(),
                    kind: DrawingKind::Ours,
                    picture: picture("drawn"),
                    marks: vec![("style".into(), true), ("glyph".into(), false)],
                    note: "rank 3".into(),
                }],
                ..Default::default()
            }],
            ..Default::default()
        }
    }

    #[test]
    fn the_page_is_self_contained_and_escaped() {
        let page = html::page(&data());
        assert!(page.contains("A &lt;small&gt; report"));
        assert!(page.contains("u&lt;1&gt;") && page.contains("a &quot;fox&quot;"));
        assert!(page.contains("data:image/png;base64,AQID"));
        for outside in ["http://", "https://", "<script", "src=\"/"] {
            let inside = page.replace("http://www.w3.org/2000/svg", "");
            assert!(!inside.contains(outside), "{outside}");
        }
        assert!(!page.contains("NaN"), "a gap in a curve is left out");
    }

    #[test]
    fn files_hold_the_same_scores() {
        let folder = tempfile::tempdir().unwrap();
        let mut data = data();
        let real = png(&image::RgbImage::new(4, 4)).unwrap();
        data.users[0].history[0].picture.png.clone_from(&real);
        data.users[0].drawings[0].picture.png = real;
        let page = data.write(folder.path()).unwrap();
        assert!(page.is_file() && folder.path().join("sheet.png").is_file());
        let json = std::fs::read(folder.path().join("report.json")).unwrap();
        let json: serde_json::Value = serde_json::from_slice(&json).unwrap();
        let row = &json["tables"][0]["rows"][0];
        assert_eq!(row["scores"]["both@1"]["mean"], 0.5);
        assert_eq!(row["kind"], "method");
        assert!(json["users"][0]["drawings"][0]["picture"]["png"].is_null());
    }

    #[test]
    fn an_empty_report_is_still_a_page() {
        assert!(html::page(&ReportData::default()).ends_with("</html>\n"));
    }
}
