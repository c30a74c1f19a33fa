//! The command line as users meet it: exit codes, messages, machine-readable output.

use std::process::Output;

use assert_cmd::Command;

fn ragar(arguments: &[&str]) -> Output {
    Command::cargo_bin("ragar")
        .expect("the program is built")
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .env_remove("RUST_LOG")
        .args(arguments)
        .output()
        .expect("the program starts")
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The program ends with `code` and says each of `words` on standard error.
#[track_caller]
fn refuses(arguments: &[&str], code: i32, words: &[&str]) {
    let output = ragar(arguments);
    let said = stderr(&output);
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {said}");
    for word in words {
        assert!(said.contains(word), "{arguments:?}: no `{word}` in: {said}");
    }
    assert!(!said.contains("panicked"), "{said}");
}

#[test]
fn version_lists_the_compiled_backends() {
    let output = ragar(&["--version"]);
    assert!(output.status.success());
    let text = stdout(&output);
    assert!(text.contains("backends: "), "{text}");
    for backend in ragar::app::backend::BackendName::ALL {
        assert_eq!(
            text.contains(backend.word()),
            backend.is_compiled(),
            "{text}"
        );
    }
}

#[test]
fn help_is_not_an_error_and_nothing_is_a_usage_error() {
    assert!(ragar(&["--help"]).status.success());
    refuses(&[], 2, &["Usage", "devices"]);
    refuses(&["dance"], 2, &["dance"]);
    refuses(&["devices", "--unknown"], 2, &["--unknown"]);
}

#[test]
fn devices_are_listed_for_people_and_machines() {
    let people = ragar(&["devices"]);
    assert!(people.status.success(), "{}", stderr(&people));
    let machines = ragar(&["devices", "--json"]);
    let lines: serde_json::Value = serde_json::from_str(&stdout(&machines)).expect("JSON");
    let lines = lines.as_array().expect("a list");
    assert!(lines.len() >= 5);
    for line in lines {
        assert!(line["device"].is_string() && line["usable"].is_boolean());
        assert!(stdout(&people).contains(line["detail"].as_str().expect("a detail")));
    }
}

#[test]
fn configuration_mistakes_are_usage_errors() {
    refuses(
        &["devices", "--config", "no/such.toml"],
        2,
        &["error: no/such.toml"],
    );
    refuses(
        &["devices", "--set", "data.foldr=x"],
        2,
        &["--set data.foldr=x", "did you mean `data.folder`?"],
    );
    refuses(&["devices", "--set", "nonsense"], 2, &["section.key=value"]);
}
