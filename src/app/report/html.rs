//! The page.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::{
    Drawing, DrawingKind, Metric, Picture, PictureRow, ReportData, RowKind, ScoreRow, ScoreTable,
    UserPanel, chart,
};

const STYLE: &str = include_str!("style.css");

/// Text that cannot be mistaken for markup.
pub(super) fn escape(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => safe += "&amp;",
            '<' => safe += "&lt;",
            '>' => safe += "&gt;",
            '"' => safe += "&quot;",
            _ => safe.push(c),
        }
    }
    safe
}

fn image(picture: &Picture) -> String {
    format!(
        "<img alt=\"{0}\" title=\"{0}\" src=\"data:image/png;base64,{1}\">",
        escape(&picture.text),
        STANDARD.encode(&picture.png)
    )
}

/// The whole document.
pub(super) fn page(data: &ReportData) -> String {
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>{0}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<header>\n<h1>{0}</h1>\n<p>{1}</p>\n",
        escape(&data.title),
        escape(&data.introduction)
    );
    if !data.facts.is_empty() {
        page += "<dl class=\"facts\">";
        for fact in &data.facts {
            let _ = write!(
                page,
                "<div><dt>{}</dt><dd>{}</dd></div>",
                escape(&fact.label),
                escape(&fact.value)
            );
        }
        page += "</dl>\n";
    }
    page += "</header>\n<main>\n";
    for table in &data.tables {
        page += &score_table(table);
    }
    if !data.users.is_empty() {
        page += "<section><h2>Users</h2>\n<p class=\"note\">Each user's history, oldest first, with the retrieved items outlined (1: most related to the reference), and the item as each method draws it.</p>\n";
        for user in &data.users {
            page += &user_panel(user);
        }
        page += "</section>\n";
    }
    if !data.rows.is_empty() {
        page += "<section><h2>Pictures on the way</h2>\n<p class=\"note\">The same users, drawn for at successive steps.</p>\n";
        for row in &data.rows {
            page += &picture_row(row);
        }
        page += "</section>\n";
    }
    let charts: String = data.charts.iter().map(chart::figure).collect();
    if !charts.is_empty() {
        let _ = write!(
            page,
            "<section><h2>Training</h2>\n<div class=\"charts\">{charts}</div></section>\n"
        );
    }
    if !data.events.is_empty() {
        page += "<section><h2>Events</h2>\n<ul class=\"events\">";
        for event in &data.events {
            let _ = write!(
                page,
                "<li><i>step {}</i><b>{}</b>{}</li>",
                event.step,
                escape(&event.kind),
                escape(&event.text)
            );
        }
        page += "</ul></section>\n";
    }
    if !data.seconds.is_empty() {
        page += "<section><h2>Time</h2>\n<dl class=\"facts\">";
        for (part, seconds) in &data.seconds {
            let _ = write!(
                page,
                "<div><dt>{}</dt><dd>{seconds:.1} s</dd></div>",
                escape(part)
            );
        }
        page += "</dl></section>\n";
    }
    if !data.configuration.is_empty() {
        let _ = writeln!(
            page,
            "<section><details><summary>Configuration of this run</summary><pre>{}</pre></details></section>",
            escape(&data.configuration)
        );
    }
    page + "</main>\n</body>\n</html>\n"
}

fn score_table(table: &ScoreTable) -> String {
    let mut text = format!(
        "<section><h2>{}</h2>\n<p class=\"note\">{}</p>\n<div class=\"wide\"><table><thead><tr><th></th>",
        escape(&table.title),
        escape(&table.note)
    );
    for metric in &table.metrics {
        let arrow = if metric.higher_is_better {
            '↑'
        } else {
            '↓'
        };
        let _ = write!(text, "<th>{} {arrow}</th>", escape(&metric.label));
    }
    text += "</tr></thead><tbody>";
    for row in &table.rows {
        let class = match row.kind {
            RowKind::Ceiling => "ceiling",
            RowKind::Method => "method",
            RowKind::Floor => "floor",
        };
        let _ = write!(
            text,
            "<tr class=\"{class}\"><th>{}{}</th>",
            escape(&row.name),
            match row.kind {
                RowKind::Ceiling => " <span>ceiling</span>",
                RowKind::Floor => " <span>floor</span>",
                RowKind::Method => "",
            }
        );
        for metric in &table.metrics {
            text += &cell(row, metric, is_best(table, row, metric));
        }
        text += "</tr>";
    }
    text + "</tbody></table></div></section>\n"
}

/// Is this the best of the methods, and is any of them worse? Ceilings and floors do not compete.
fn is_best(table: &ScoreTable, row: &ScoreRow, metric: &Metric) -> bool {
    let value = |row: &ScoreRow| row.scores.get(&metric.key).map(|score| score.mean);
    let sign = if metric.higher_is_better { 1.0 } else { -1.0 };
    let methods = table.rows.iter().filter(|row| row.kind == RowKind::Method);
    let others: Vec<f64> = methods.filter_map(value).collect();
    row.kind == RowKind::Method
        && value(row).is_some_and(|own| {
            others.iter().all(|other| sign * own >= sign * other)
                && others.iter().any(|other| sign * own > sign * other)
        })
}

fn cell(row: &ScoreRow, metric: &Metric, best: bool) -> String {
    let Some(score) = row.scores.get(&metric.key) else {
        return "<td>–</td>".into();
    };
    let digits = metric.digits;
    let class = if best { " class=\"best\"" } else { "" };
    let mean = format!("{:.digits$}", score.mean);
    // Ceilings known from the whole held-out set may come without an interval.
    if score.low == score.high {
        return format!("<td{class}><b>{mean}</b></td>");
    }
    format!(
        "<td{class}><b>{mean}</b> <small>{:.digits$} … {:.digits$}</small></td>",
        score.low, score.high
    )
}

fn picture_row(row: &PictureRow) -> String {
    let mut text = format!(
        "<article><h3>{}</h3><div class=\"steps\">",
        escape(&row.user)
    );
    for (caption, picture) in &row.pictures {
        let _ = write!(
            text,
            "<figure>{}<figcaption>{}</figcaption></figure>",
            image(picture),
            escape(caption)
        );
    }
    text + "</div></article>\n"
}

fn user_panel(user: &UserPanel) -> String {
    let mut text = format!(
        "<article><h3>{}</h3><p class=\"note\">{}</p>\n<div class=\"history\">",
        escape(&user.user),
        escape(&user.taste)
    );
    for item in &user.history {
        let (class, rank) = match item.retrieved {
            Some(rank) => (" class=\"retrieved\"", rank.to_string()),
            None => ("", String::new()),
        };
        let _ = write!(
            text,
            "<figure{class}>{}<figcaption>{rank}</figcaption></figure>",
            image(&item.picture)
        );
    }
    text += "</div>\n";
    if !user.keywords.is_empty() || !user.summary.is_empty() {
        text += "<p class=\"keywords\">";
        for keyword in &user.keywords {
            let _ = write!(text, "<span>{}</span> ", escape(keyword));
        }
        let _ = writeln!(text, "<em>{}</em></p>", escape(&user.summary));
    }
    text += "<div class=\"drawings\">";
    for drawing in &user.drawings {
        text += &drawing_figure(drawing);
    }
    text + "</div></article>\n"
}

fn drawing_figure(drawing: &Drawing) -> String {
    let class = match drawing.kind {
        DrawingKind::Reference => "reference",
        DrawingKind::Other => "other",
        DrawingKind::Ours => "ours",
        DrawingKind::Target => "target",
    };
    let mut text = format!(
        "<figure class=\"{class}\">{}<figcaption><b>{}</b>",
        image(&drawing.picture),
        escape(&drawing.label)
    );
    if !drawing.marks.is_empty() {
        text += "<span class=\"marks\">";
        for (what, right) in &drawing.marks {
            let (class, mark) = if *right {
                ("right", '✓')
            } else {
                ("wrong", '✗')
            };
            let _ = write!(text, "<i class=\"{class}\">{mark} {}</i> ", escape(what));
        }
        text += "</span>";
    }
    if !drawing.note.is_empty() {
        let _ = write!(text, "<small>{}</small>", escape(&drawing.note));
    }
    text + "</figcaption></figure>"
}
