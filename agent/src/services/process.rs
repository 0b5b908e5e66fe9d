//! One command: no shell, nothing in its environment but what is given, a group of its own, and an end.

use super::ServiceError;
use super::account::User;
use rootcast::limits::KEPT_OUTPUT;
use rootcast_replica::{Machine, System};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};
use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe::Receiver;
use tokio::time::Instant;

/// A command to run.
pub(crate) struct Task<'a> {
    /// Its program, by the absolute path, and its arguments.
    pub(crate) arguments: &'a [String],
    /// All of its environment.
    pub(crate) environment: &'a BTreeMap<String, String>,
    /// As whom, if not as the agent's own user.
    pub(crate) user: Option<User>,
    /// For how many milliseconds.
    pub(crate) timeout: u64,
    /// How many bytes it may write.
    pub(crate) output: u64,
}

/// The end of what a command wrote, and whether it wrote too much.
struct Output {
    kept: Vec<u8>,
    left: u64,
}

impl Output {
    /// Whether there is room for more.
    fn add(&mut self, bytes: &[u8]) -> bool {
        self.kept.extend_from_slice(bytes);
        let surplus = self.kept.len().saturating_sub(KEPT_OUTPUT);
        self.kept.drain(..surplus);
        match self.left.checked_sub(bytes.len() as u64) {
            Some(left) => self.left = left,
            None => return false,
        }
        true
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.kept).into_owned()
    }
}

/// A started command and all of its process group, which ends with this.
struct Group {
    child: Child,
    reaped: bool,
}

impl Group {
    /// Ends what is left of the group. Before the leader is reaped its number cannot be another's.
    fn kill(&self) {
        if !self.reaped {
            let _ = kill_process_group(Pid::from_child(&self.child), Signal::KILL);
        }
    }

    fn reap(&mut self) -> std::io::Result<ExitStatus> {
        self.reaped = true;
        self.child.wait()
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.kill();
        if !self.reaped {
            // It was killed just now.
            let _ = self.child.wait();
        }
    }
}

fn start(task: &Task<'_>) -> Result<(Group, Receiver), ServiceError> {
    let (program, arguments) = task.arguments.split_first().map_or(("", [].as_slice()), |(p, a)| (p, a));
    let failed = |source| ServiceError::Spawn { program: program.to_owned(), source };
    let (reader, writer) = std::io::pipe().map_err(failed)?;
    let mut command = Command::new(program);
    command.args(arguments).env_clear().envs(task.environment).current_dir("/").process_group(0);
    command.stdin(Stdio::null()).stdout(writer.try_clone().map_err(failed)?).stderr(writer);
    if let Some(user) = task.user {
        // As root this leaves all supplementary groups as well.
        command.gid(user.gid).uid(user.uid);
    }
    let child = command.spawn().map_err(failed)?;
    let group = Group { child, reaped: false };
    let reader = Receiver::from_owned_fd(OwnedFd::from(reader)).map_err(failed)?;
    Ok((group, reader))
}

/// Runs a command to its end. What it has written last comes with how it ended.
pub(crate) async fn run(task: &Task<'_>) -> (Result<(), ServiceError>, String) {
    let mut output = Output { kept: Vec::new(), left: task.output };
    let outcome = run_into(task, &mut output).await;
    (outcome, output.text())
}

async fn run_into(task: &Task<'_>, output: &mut Output) -> Result<(), ServiceError> {
    let end = Instant::now() + Duration::from_millis(task.timeout);
    let (mut group, mut reader) = start(task)?;
    let program = || task.arguments.first().cloned().unwrap_or_default();
    let failed = |source| ServiceError::Spawn { program: program(), source };
    let leader = WaitId::Pid(Pid::from_child(&group.child));
    // It waits without reaping, so that the number of the group stays taken until the group is ended.
    let machine: &dyn Machine = &System;
    let ended = machine.blocking(move || waitid(leader, WaitIdOptions::EXITED | WaitIdOptions::NOWAIT));
    tokio::pin!(ended);
    let mut buffer = vec![0; 16 * 1024];
    let mut open = true;
    loop {
        tokio::select! {
            biased;
            () = tokio::time::sleep_until(end) => return Err(ServiceError::TimedOut(task.timeout)),
            read = reader.read(&mut buffer), if open => match read {
                Ok(0) | Err(_) => open = false,
                Ok(count) => {
                    if !output.add(buffer.get(..count).unwrap_or_default()) {
                        return Err(ServiceError::TooMuch(task.output));
                    }
                }
            },
            _ = &mut ended => break,
        }
    }
    // What it left behind in its group goes, and lets go of the pipe.
    group.kill();
    // What it wrote before is in the pipe, whether the runtime has heard of that or not; who
    // has left the group may keep the pipe open.
    while open {
        match rustix::io::read(&reader, &mut buffer) {
            Ok(0) | Err(_) => open = false,
            Ok(count) => {
                if !output.add(buffer.get(..count).unwrap_or_default()) {
                    return Err(ServiceError::TooMuch(task.output));
                }
            }
        }
    }
    let status = group.reap().map_err(failed)?;
    match (status.code(), status.signal()) {
        (Some(0), _) => Ok(()),
        (Some(code), _) => Err(ServiceError::Code(code)),
        (None, signal) => Err(ServiceError::Signalled(signal.unwrap_or(0))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn shell(script: &str, timeout: u64, output: u64) -> (Result<(), ServiceError>, String) {
        let arguments = ["/bin/sh", "-c", script].map(String::from);
        let environment = BTreeMap::from([("GIVEN".to_owned(), "yes".to_owned())]);
        run(&Task { arguments: &arguments, environment: &environment, user: None, timeout, output }).await
    }

    /// Waits until a process is gone.
    fn gone(pid: &str) {
        let end = std::time::Instant::now() + Duration::from_secs(10);
        loop {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"));
            // One that nobody waits for any more stays as a zombie where pid 1 is idle.
            if stat.is_err() || stat.is_ok_and(|stat| stat.contains(") Z ")) {
                return;
            }
            assert!(std::time::Instant::now() < end, "{pid} still runs");
            std::thread::yield_now();
        }
    }

    #[tokio::test]
    async fn a_43_a_command_has_only_what_it_was_given() {
        let (outcome, output) =
            shell("echo $GIVEN $HOME; env | wc -l; pwd; read x || echo eof", 9000, 999).await;
        outcome.unwrap();
        // PWD and the like are the shell's own.
        assert!(output.starts_with("yes\n") && output.ends_with("/\neof\n"), "{output}");
    }

    #[tokio::test]
    async fn a_43_how_it_ended_is_told_with_the_last_that_it_wrote() {
        assert!(
            matches!(shell("echo no >&2; exit 7", 9000, 99).await, (Err(ServiceError::Code(7)), out) if out == "no\n")
        );
        assert!(matches!(shell("kill -9 $$", 9000, 99).await.0, Err(ServiceError::Signalled(9))));
        let (outcome, output) = shell("seq 1 2000; exit 1", 9000, 1 << 20).await;
        assert!(outcome.is_err() && output.len() <= KEPT_OUTPUT && output.ends_with("2000\n"));
        let missing = ["/not/there".to_owned()];
        let task =
            Task { arguments: &missing, environment: &BTreeMap::new(), user: None, timeout: 9000, output: 9 };
        assert!(matches!(run(&task).await.0, Err(ServiceError::Spawn { .. })));
    }

    #[tokio::test]
    async fn threat_27_a_hook_that_hangs_is_ended_with_its_children() {
        let (outcome, output) = shell("sleep 1000 & echo $!; sleep 1000", 300, 99).await;
        assert!(matches!(outcome, Err(ServiceError::TimedOut(300))), "{outcome:?}");
        gone(output.trim());
    }

    #[tokio::test]
    async fn threat_27_a_hook_that_floods_is_ended() {
        let (outcome, output) = shell("exec yes", 60_000, 100_000).await;
        assert!(matches!(outcome, Err(ServiceError::TooMuch(100_000))), "{outcome:?}");
        assert!(output.len() <= KEPT_OUTPUT);
    }

    #[tokio::test]
    async fn threat_27_what_a_hook_leaves_behind_ends_with_it() {
        let begun = std::time::Instant::now();
        let (outcome, output) = shell("sleep 1000 & echo $!", 60_000, 99).await;
        outcome.unwrap();
        assert!(begun.elapsed() < Duration::from_secs(30), "it is not waited for");
        gone(output.trim());
    }

    #[tokio::test]
    async fn threat_27_an_agent_that_stops_leaves_no_hook_behind() {
        let path = tempfile::tempdir().unwrap();
        let file = path.path().join("pid").display().to_string();
        let script = format!("echo $$ > {file}.new; mv {file}.new {file}; sleep 1000");
        let hook = tokio::spawn(async move { shell(&script, 60_000, 99).await.0.is_ok() });
        while !std::path::Path::new(&file).exists() {
            tokio::task::yield_now().await;
        }
        hook.abort();
        assert!(hook.await.is_err());
        gone(std::fs::read_to_string(&file).unwrap().trim());
    }
}
