//! A server's process: its start, its costs, its end.

use crate::error::BenchError;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;
use tokio::process::{Child, Command};

/// In what the system counts CPU time for programs to read, on every architecture that it runs on here.
const TICK: Duration = Duration::from_millis(10);

/// What a process has used so far.
#[derive(Debug, Clone, Copy)]
pub(super) struct Usage {
    /// User and system time of all its threads, in steps of 10 ms.
    pub(super) cpu: Duration,
    /// Bytes that are resident.
    pub(super) memory: u64,
}

impl Usage {
    /// What the system tells of a process (proc(5)).
    pub(super) fn of(id: u32) -> Result<Self, BenchError> {
        let read = |name: &str| {
            let path = format!("/proc/{id}/{name}");
            fs::read_to_string(&path).map_err(BenchError::io(Path::new(&path)))
        };
        let (stat, status) = (read("stat")?, read("status")?);
        // The name, which may hold anything, is in parentheses; fields 14 and 15, of which two are before.
        let fields = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace();
        let ticks: Vec<u64> = fields.skip(11).take(2).filter_map(|field| field.parse().ok()).collect();
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let resident = resident.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok());
        match (&ticks[..], resident) {
            ([user, system], Some(kib)) => {
                Ok(Self { cpu: TICK * u32::try_from(user + system).unwrap_or(u32::MAX), memory: kib * 1024 })
            }
            _ => {
                let program = format!("process {id}");
                Err(BenchError::Program { program, what: "/proc is not as proc(5) says".into() })
            }
        }
    }
}

/// A port of loopback that was free a moment ago.
pub(super) fn free_address() -> Result<SocketAddr, BenchError> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0));
    listener.and_then(|listener| listener.local_addr()).map_err(BenchError::io(Path::new("a socket")))
}

/// Starts a program that ends with this one; `None` where it is not installed.
pub(super) fn start(program: &str, home: &Path, arguments: &[&str]) -> Result<Option<Child>, BenchError> {
    let log = home.join("log");
    let log = fs::File::options().create(true).append(true).open(&log).map_err(BenchError::io(&log))?;
    let failed = |source: std::io::Error| BenchError::Program {
        program: program.into(),
        what: format!("could not be started: {source}"),
    };
    let errors = log.try_clone().map_err(failed)?;
    let started = Command::new(program)
        .args(arguments)
        .current_dir(home)
        .stdin(Stdio::null())
        .stdout(log)
        .stderr(errors)
        .kill_on_drop(true)
        .spawn();
    match started {
        Ok(child) => Ok(Some(child)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed(error)),
    }
}

/// The id of a process that was started here.
pub(super) fn id(child: &Child, program: &str) -> Result<u32, BenchError> {
    child.id().ok_or_else(|| BenchError::Program { program: program.into(), what: "it ended".into() })
}

/// Tries again and again, until a server that was just started answers.
pub(super) async fn patiently<T, F: Future<Output = Result<T, BenchError>>>(
    attempt: impl Fn() -> F,
) -> Result<T, BenchError> {
    const TRIES: usize = 100;
    const GAP: Duration = Duration::from_millis(50);
    let mut last = attempt().await;
    for _ in 0..TRIES {
        if last.is_ok() {
            break;
        }
        tokio::time::sleep(GAP).await;
        last = attempt().await;
    }
    last
}
