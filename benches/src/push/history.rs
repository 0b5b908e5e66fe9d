//! A small repository to publish: a line changes with each commit.

use crate::error::BenchError;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

const FILES: usize = 200;
const LINES: usize = 40;

/// Makes it in `directory`; gives its commits, oldest first.
pub(super) fn create(directory: &Path, commits: usize) -> Result<Vec<String>, BenchError> {
    git(directory, &["init", "--quiet", "--bare", "."], None)?;
    let mut stream = String::new();
    for commit in 0..commits {
        let _ = write!(
            stream,
            "commit refs/heads/main\ncommitter A <a@example.org> {} +0000\ndata 1\n.\n",
            1_700_000_000 + commit
        );
        for file in 0..FILES {
            if commit == 0 || file == commit % FILES {
                let text = text(file, commit);
                let _ = write!(
                    stream,
                    "M 100644 inline services/service-{file}.conf\ndata {}\n{text}\n",
                    text.len()
                );
            }
        }
    }
    git(directory, &["fast-import", "--quiet"], Some(&stream))?;
    git(directory, &["symbolic-ref", "HEAD", "refs/heads/main"], None)?;
    let listed = git(directory, &["rev-list", "--reverse", "main"], None)?;
    Ok(listed.lines().map(str::to_owned).collect())
}

fn text(file: usize, commit: usize) -> String {
    let value = |line: usize| if line == 7 { commit * 31 + file } else { (file * 37 + line * line) % 997 };
    (0..LINES).map(|line| format!("service_{file}.limit_{line} = {}\n", value(line))).collect()
}

fn git(directory: &Path, arguments: &[&str], input: Option<&str>) -> Result<String, BenchError> {
    let failed = |what: String| BenchError::Program { program: "git".into(), what };
    let mut child = Command::new("git")
        .arg("-C")
        .arg(directory)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| failed(error.to_string()))?;
    if let (Some(mut stdin), Some(input)) = (child.stdin.take(), input) {
        stdin.write_all(input.as_bytes()).map_err(|error| failed(error.to_string()))?;
    }
    let output = child.wait_with_output().map_err(|error| failed(error.to_string()))?;
    if !output.status.success() {
        return Err(failed(format!("{arguments:?}: {}", output.status)));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
