//! What `rlcheck` prints, logs, or hands over as JSON.

use super::Test;
use crate::terminal::{Tone, paint, wants_colours};
use jiff::Timestamp;
use model::node_config::NodeConfig;
use serde_json::{Value, json};
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, fchown};
use std::path::{Path, PathBuf};

/// Most findings of a test that are listed.
const LISTED_MAX: usize = 10;

/// What a test found. Nothing found is a pass.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Findings {
    /// What is wrong and what to do, a sentence each.
    pub failures: Vec<String>,
    /// What should be otherwise, with the command that makes it so.
    pub warnings: Vec<String>,
    /// What to know.
    pub notes: Vec<String>,
}

impl Findings {
    /// One failure.
    pub fn failure(text: impl Into<String>) -> Self {
        Self {
            failures: vec![text.into()],
            ..Self::default()
        }
    }

    /// One note.
    pub fn note(text: impl Into<String>) -> Self {
        Self {
            notes: vec![text.into()],
            ..Self::default()
        }
    }

    /// Adds a failure.
    pub fn fail(&mut self, text: impl Into<String>) {
        self.failures.push(text.into());
    }
}

/// How a test ended.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Outcome {
    findings: Findings,
}

impl Outcome {
    /// Judges findings; `strict`: warnings are failures.
    #[must_use]
    pub fn of(mut findings: Findings, strict: bool) -> Self {
        if strict {
            findings.failures.append(&mut findings.warnings);
        }
        for list in [&mut findings.failures, &mut findings.warnings] {
            let more = list.len().saturating_sub(LISTED_MAX);
            if more > 0 {
                list.truncate(LISTED_MAX);
                list.push(format!("and {more} more"));
            }
        }
        Self { findings }
    }

    /// Whether the test failed.
    #[must_use]
    pub fn failed(&self) -> bool {
        !self.findings.failures.is_empty()
    }

    const fn word(&self) -> &'static str {
        if !self.findings.failures.is_empty() {
            "fail"
        } else if self.findings.warnings.is_empty() {
            "pass"
        } else {
            "warn"
        }
    }

    /// Each line and how it is meant.
    fn lines(&self) -> Vec<(String, Tone)> {
        let mut lines = Vec::new();
        if !self.failed() {
            lines.push(("PASS".to_owned(), Tone::Good));
        }
        let findings = &self.findings;
        lines.extend(
            findings
                .failures
                .iter()
                .map(|text| (format!("FAIL {text}"), Tone::Bad)),
        );
        lines.extend(
            findings
                .warnings
                .iter()
                .map(|text| (format!("WARN {text}"), Tone::Warn)),
        );
        lines.extend(
            findings
                .notes
                .iter()
                .map(|text| (format!("note: {text}"), Tone::Plain)),
        );
        lines
    }
}

/// The run as it goes.
#[derive(Debug)]
pub struct Report {
    json: bool,
    colours: bool,
    log: Option<File>,
    ended: Vec<(Test, Option<Outcome>)>,
}

impl Report {
    /// Begins: opens the log, prints the banner.
    #[must_use]
    pub fn begin(config: &NodeConfig, file_path: Option<&Path>, json: bool) -> Self {
        let path = log_path(config, file_path);
        let log = match open_log(&path) {
            Ok(file) => Some(file),
            Err(error) => {
                complain(&format!(
                    "note: no log is written to {}: {error}",
                    path.display()
                ));
                None
            }
        };
        let mut report = Self {
            json,
            colours: wants_colours(),
            log,
            ended: Vec::new(),
        };
        report.log(&format!("rlcheck begins on {}", config.address));
        report.line("##### Welcome to Mainstay settings verification utility ####");
        report
    }

    /// A test begins.
    pub fn running(&mut self, test: Test) {
        self.line(&format!("Running test: {}", test.name()));
    }

    /// A test was left out.
    pub fn suppressed(&mut self, test: Test) {
        self.log(&format!("{}: suppressed", test.name()));
        self.ended.push((test, None));
    }

    /// A test failed and is tried again.
    pub fn retrying(&mut self, outcome: &Outcome, delay: u64) {
        for failure in &outcome.findings.failures {
            self.line(&format!("\tnot yet: {failure}"));
        }
        self.line(&format!("\ttrying again in {delay} s"));
    }

    /// A test ended.
    pub fn ended(&mut self, test: Test, outcome: Outcome) {
        for (line, tone) in outcome.lines() {
            self.log(&format!("{}: {line}", test.name()));
            if !self.json {
                print(&format!("\t{}\n", paint(&line, tone, self.colours)));
            }
        }
        self.ended.push((test, Some(outcome)));
    }

    /// Prints the summary; says whether all passed.
    pub fn finish(mut self) -> bool {
        let run: Vec<(Test, &Outcome)> = self
            .ended
            .iter()
            .filter_map(|(test, o)| Some((*test, o.as_ref()?)))
            .collect();
        let failed: Vec<Test> = run
            .iter()
            .filter(|(_, o)| o.failed())
            .map(|(t, _)| *t)
            .collect();
        let warned: Vec<Test> = run
            .iter()
            .filter(|(_, o)| o.word() == "warn")
            .map(|(t, _)| *t)
            .collect();
        let passed = failed.is_empty();
        if self.json {
            let text = self.to_json(passed).to_string();
            print(&format!("{text}\n"));
        } else {
            self.summary(&failed, &warned);
        }
        self.log(if passed {
            "rlcheck ends: passed"
        } else {
            "rlcheck ends: failed"
        });
        passed
    }

    fn summary(&self, failed: &[Test], warned: &[Test]) {
        let mut text = String::from("Summary:\n-------\n");
        for test in warned {
            text.push_str(&format!("{}: warnings, see above\n", test.name()));
        }
        if failed.is_empty() {
            text.push_str(&paint("ALL TESTS PASSED.", Tone::Good, self.colours));
        } else {
            for test in failed {
                text.push_str(&format!("{}: failed, see above\n", test.name()));
            }
            let count = match failed.len() {
                1 => "1 TEST FAILED.".to_owned(),
                many => format!("{many} TESTS FAILED."),
            };
            text.push_str(&paint(&count, Tone::Bad, self.colours));
        }
        text.push('\n');
        print(&text);
    }

    fn to_json(&self, passed: bool) -> Value {
        let tests: Vec<Value> = self
            .ended
            .iter()
            .map(|(test, outcome)| match outcome {
                None => json!({ "test": test.name(), "result": "suppressed" }),
                Some(outcome) => json!({
                    "test": test.name(),
                    "result": outcome.word(),
                    "failures": outcome.findings.failures,
                    "warnings": outcome.findings.warnings,
                    "notes": outcome.findings.notes,
                }),
            })
            .collect();
        json!({ "result": passed, "tests": tests })
    }

    fn line(&mut self, text: &str) {
        self.log(text.trim_start());
        if !self.json {
            print(&format!("{text}\n"));
        }
    }

    fn log(&mut self, text: &str) {
        if let Some(file) = &mut self.log {
            let time = Timestamp::now();
            let _ = writeln!(file, "{time:.3} {text}");
        }
    }
}

fn log_path(config: &NodeConfig, file_path: Option<&Path>) -> PathBuf {
    match file_path {
        Some(folder) if folder.is_dir() => folder.join("rlcheck.log"),
        Some(file) => file.to_path_buf(),
        None => config.log_dir().join("rlcheck.log"),
    }
}

/// Opens the log to append. Whoever runs `rlcheck` first makes it; all of the group go on with it.
fn open_log(path: &Path) -> std::io::Result<File> {
    if let Ok(file) = OpenOptions::new().append(true).open(path) {
        return Ok(file);
    }
    let file = OpenOptions::new()
        .create_new(true)
        .append(true)
        .mode(0o660)
        .open(path)?;
    if rustix::process::geteuid().is_root()
        && let Some(folder) = path.parent()
        && let Ok(meta) = std::fs::metadata(folder)
    {
        fchown(&file, Some(meta.uid()), Some(meta.gid()))?;
    }
    Ok(file)
}

/// Text to standard output. A reader that went away ends nothing.
pub fn print(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes());
    let _ = out.flush();
}

/// A line to standard error.
pub fn complain(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}
