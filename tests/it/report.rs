//! `ragar report` over folders of trainings, whole and broken.

use std::path::Path;

use assert_cmd::Command;
use serde_json::Value;

fn report(run: &Path) -> (Option<i32>, Value, String, String) {
    let page = run.join("page.html");
    let output = Command::cargo_bin("ragar")
        .expect("the program")
        .args(["report", "--json"])
        .arg(run)
        .arg("--out")
        .arg(&page)
        .output()
        .expect("the program starts");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    let page = std::fs::read_to_string(page).unwrap_or_default();
    (output.status.code(), value, page, said)
}

fn write(path: &Path, text: &str) {
    std::fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
    std::fs::write(path, text).expect("a file");
}

fn picture(path: &Path, level: u8) {
    std::fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
    let pixels = image::RgbImage::from_pixel(300, 150, image::Rgb([level; 3]));
    pixels.save(path).expect("a picture");
}

#[test]
fn a_run_becomes_one_page() {
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path().join("a <run>");
    write(
        &run.join("config.toml"),
        "[training]\nsteps = 9\nseed = 4\n[data]\nfolder = \"stickers\"\n",
    );
    let log: String = (0..5)
        .map(|step| {
            format!(
                "{{\"step\":{step},\"loss\":{}.5,\"learning_rate\":0.001,\"unheard_of\":{step}}}\n",
                9 - step
            )
        })
        .collect();
    write(&run.join("metrics.jsonl"), &(log + "{\"step\":5,\"los"));
    write(
        &run.join("validation.jsonl"),
        "{\"step\":2,\"both@1\":0.25,\"both@1_low\":0.1,\"both@1_high\":0.4}\n{\"step\":4,\"both@1\":0.5,\"both@1_low\":0.3,\"both@1_high\":0.7}\n",
    );
    write(
        &run.join("events.jsonl"),
        "{\"step\":3,\"kind\":\"rollback\",\"text\":\"loss is <NaN>\"}\n{\"step\":4,\"kind\":\"best\",\"text\":\"both@1\"}\n",
    );
    for (step, level) in [("step-000002", 10), ("step-000004", 200)] {
        picture(&run.join("validation").join(step).join("u1.png"), level);
    }
    picture(&run.join("validation/reference/u1.png"), 90);
    write(&run.join("validation/step-000004/u2.png"), "no picture");

    let (code, data, page, said) = report(&run);
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(data["facts"][0]["value"], "5 of 9");
    assert_eq!(data["introduction"], "This training has not finished.");
    let titles: Vec<&str> = data["charts"]
        .as_array()
        .expect("charts")
        .iter()
        .filter_map(|chart| chart["title"].as_str())
        .collect();
    let expected = ["Loss", "Learning rate", "Unheard of", "Validation: both@1"];
    assert_eq!(titles, expected);
    assert_eq!(
        data["charts"][0]["series"][0]["points"][4],
        serde_json::json!([4.0, 5.5])
    );
    let rows = data["rows"].as_array().expect("rows");
    assert_eq!(rows.len(), 1, "a broken picture is left out: {rows:?}");
    let captions: Vec<&str> = rows[0]["pictures"]
        .as_array()
        .expect("pictures")
        .iter()
        .filter_map(|picture| picture[0].as_str())
        .collect();
    assert_eq!(captions, ["reference", "step 2", "step 4"]);

    assert_eq!(page.matches("data:image/png;base64,").count(), 3);
    assert!(page.contains("loss is &lt;NaN&gt;") && page.contains("class=\"mark\""));
    assert!(page.contains("a &lt;run&gt;") && page.contains("steps = 9"));
    let own = page.replace("http://www.w3.org/2000/svg", "");
    for outside in ["http://", "https://", "<script", "src=\"/", "<link"] {
        assert!(!own.contains(outside), "{outside}");
    }
}

#[test]
fn parts_that_are_missing_are_left_out() {
    let folder = tempfile::tempdir().unwrap();
    let (code, data, page, said) = report(folder.path());
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(data["introduction"], "Nothing has been written yet.");
    assert!(page.ends_with("</html>\n"));
    let (code, _, _, said) = report(&folder.path().join("nowhere"));
    assert_eq!(code, Some(1));
    assert!(said.contains("nowhere"), "{said}");
}
