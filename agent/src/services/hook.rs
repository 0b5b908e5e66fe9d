//! One hook: a command, a signal, a unit, or a question.

use super::newer::Newer;
use super::process::{Task, run};
use super::{ServiceError, account};
use rootcast::limits::{MAX_HTTP_ANSWER, PID_FILE_MOST};
use rootcast::service::{Hook, HostPath, Probe, Signal, Url, Verdict, Work};
use rustix::fs::{Mode, OFlags};
use rustix::process::{Pid, PidfdFlags, pidfd_open, pidfd_send_signal};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::Instant;

/// Where systemd's command is.
const SYSTEMCTL: [&str; 2] = ["/usr/bin/systemctl", "/bin/systemctl"];

/// The trees that arguments may name.
#[derive(Debug, Clone)]
pub(crate) struct Trees {
    /// The slot of the tree that is being activated.
    pub(crate) staged: PathBuf,
    /// The link `current`.
    pub(crate) current: PathBuf,
}

/// Does what a hook says, again and again where it is a check; and gives the end of its output.
pub(crate) async fn perform(
    hook: &Hook,
    trees: &Trees,
    newer: Option<&Newer>,
) -> (Result<(), ServiceError>, String) {
    let begun = Instant::now();
    let mut probe = Probe::new(hook.patience);
    loop {
        let at = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        let (outcome, output) = attempt(hook, trees).await;
        let wait = match probe.tried(at, outcome.is_ok()) {
            Verdict::Again(wait) => tokio::time::sleep(Duration::from_millis(wait)),
            Verdict::Good | Verdict::Bad => return (outcome, output),
        };
        match (outcome, newer) {
            (Err(error), Some(newer)) => tokio::select! {
                biased;
                () = newer.waits() => return (Err(ServiceError::Superseded(error.into())), output),
                () = wait => {}
            },
            _ => wait.await,
        }
    }
}

async fn attempt(hook: &Hook, trees: &Trees) -> (Result<(), ServiceError>, String) {
    let question = async {
        match &hook.work {
            Work::Signal(signal, file) => send(*signal, file),
            Work::Http(url, status) => ask(url, *status).await,
            Work::Tcp(address) => connect(Work::tcp_address(address).unwrap_or_default()).await.map(drop),
            Work::Command(_) | Work::Unit(..) => Ok(()),
        }
    };
    let (environment, user, arguments) = match &hook.work {
        Work::Command(_) => {
            let text = |path: &Path| path.to_string_lossy().into_owned();
            let user = match hook.user.as_ref().map(|name| (account::user(name), name.as_str())) {
                None => None,
                Some((Err(error), _)) => return (Err(error), String::new()),
                Some((Ok(user), _)) if user.uid == rustix::process::geteuid().as_raw() => None,
                Some((Ok(_), name)) if !rustix::process::geteuid().is_root() => {
                    return (Err(ServiceError::NotRoot(name.to_owned())), String::new());
                }
                Some((Ok(user), _)) => Some(user),
            };
            (hook.environment.clone(), user, hook.arguments(&text(&trees.staged), &text(&trees.current)))
        }
        Work::Unit(unit, action) => {
            let Some(program) = SYSTEMCTL.into_iter().find(|path| Path::new(path).exists()) else {
                return (Err(ServiceError::NoSystemd(unit.as_str().to_owned())), String::new());
            };
            let arguments =
                [program, "--no-pager", "--no-ask-password", action.as_str(), "--", unit.as_str()];
            (BTreeMap::new(), None, arguments.map(str::to_owned).into())
        }
        Work::Signal(..) | Work::Http(..) | Work::Tcp(_) => {
            let wait = Duration::from_millis(hook.timeout);
            let outcome = tokio::time::timeout(wait, question).await;
            return (outcome.unwrap_or(Err(ServiceError::TimedOut(hook.timeout))), String::new());
        }
    };
    let task = Task {
        arguments: &arguments,
        environment: &environment,
        user,
        timeout: hook.timeout,
        output: hook.output,
    };
    run(&task).await
}

/// Sends a signal to the process whose number a file holds.
fn send(signal: Signal, file: &HostPath) -> Result<(), ServiceError> {
    let path = Path::new(file.as_str());
    let io = |source| ServiceError::Io { doing: "read", path: path.to_owned(), source };
    let none = || ServiceError::NoProcess(path.to_owned());
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let opened = rustix::fs::open(path, flags, Mode::empty()).map_err(|errno| io(errno.into()))?;
    let opened = File::from(opened);
    let metadata = opened.metadata().map_err(io)?;
    if !metadata.is_file() {
        return Err(none());
    }
    if metadata.mode() & 0o022 != 0 {
        return Err(ServiceError::OpenPidFile(path.to_owned()));
    }
    let mut text = String::new();
    opened.take(PID_FILE_MOST).read_to_string(&mut text).map_err(io)?;
    let number = text.split_whitespace().next().and_then(|text| text.parse().ok());
    let pid = number.filter(|number| *number > 1).and_then(Pid::from_raw).ok_or_else(none)?;
    let process = pidfd_open(pid, PidfdFlags::empty()).map_err(|_| none())?;
    let signal = match signal {
        Signal::Hup => rustix::process::Signal::HUP,
        Signal::Int => rustix::process::Signal::INT,
        Signal::Quit => rustix::process::Signal::QUIT,
        Signal::Term => rustix::process::Signal::TERM,
        Signal::Usr1 => rustix::process::Signal::USR1,
        Signal::Usr2 => rustix::process::Signal::USR2,
        Signal::Winch => rustix::process::Signal::WINCH,
    };
    pidfd_send_signal(&process, signal).map_err(|errno| ServiceError::Io {
        doing: "send a signal by",
        path: path.to_owned(),
        source: errno.into(),
    })
}

async fn connect((host, port): (&str, u16)) -> Result<TcpStream, ServiceError> {
    let failed = |source| ServiceError::Unanswered { address: format!("{host}:{port}"), source };
    TcpStream::connect((host, port)).await.map_err(failed)
}

/// Asks for a URL, and reads no more of the answer than its status.
async fn ask(url: &Url, wanted: u16) -> Result<(), ServiceError> {
    let mut stream = connect(url.address()).await?;
    let failed = |source| ServiceError::Unanswered { address: url.authority().to_owned(), source };
    let request = format!(
        "GET {} HTTP/1.1\r\nHost: {}\r\nUser-Agent: rootcast\r\nAccept: */*\r\nConnection: close\r\n\r\n",
        url.path(),
        url.authority()
    );
    stream.write_all(request.as_bytes()).await.map_err(failed)?;
    let mut line = Vec::new();
    let mut answer = stream.take(MAX_HTTP_ANSWER);
    loop {
        match answer.read_u8().await {
            Ok(b'\n') => break,
            Ok(byte) => line.push(byte),
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => break,
            Err(error) => return Err(failed(error)),
        }
    }
    let line = String::from_utf8_lossy(&line);
    let status = line.strip_prefix("HTTP/1.").and_then(|rest| rest.split(' ').nth(1)).map(str::trim);
    if status.and_then(|status| status.parse().ok()) == Some(wanted) {
        return Ok(());
    }
    let found =
        status.map_or_else(|| "what is no HTTP".to_owned(), |status| status.escape_debug().to_string());
    Err(ServiceError::Status { found, wanted })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rootcast::service::{Patience, Phase};
    use std::os::unix::fs::PermissionsExt;
    use tokio::net::TcpListener;

    fn trees() -> Trees {
        Trees { staged: "/slots/b".into(), current: "/current".into() }
    }

    async fn outcome(phase: Phase, work: Work) -> Result<(), String> {
        perform(&Hook::new(phase, work), &trees(), None).await.0.map_err(|error| error.to_string())
    }

    /// Answers each request with the next of these.
    async fn server(answers: Vec<&'static str>) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        tokio::spawn(async move {
            for answer in answers {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut request = [0; 512];
                let _ = stream.read(&mut request).await;
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        });
        address
    }

    #[tokio::test]
    async fn checks_ask_and_want_an_answer() {
        let ok = "HTTP/1.1 200 OK\r\n\r\n";
        let address = server(vec![ok, "HTTP/1.0 503 Busy\r\n\r\n", "SSH-2.0\r\n", ok]).await;
        let work = || Work::Http(Url::new(&format!("http://{address}/x")).unwrap(), 200);
        assert_eq!(outcome(Phase::Check, work()).await, Ok(()));
        assert_eq!(outcome(Phase::Check, work()).await.unwrap_err(), "answered 503, where 200 is wanted");
        assert!(outcome(Phase::Check, work()).await.unwrap_err().contains("no HTTP"));
        assert_eq!(outcome(Phase::Check, Work::Tcp(address)).await, Ok(()));
        assert!(
            outcome(Phase::Check, Work::Tcp("127.0.0.1:1".into())).await.unwrap_err().contains("127.0.0.1:1")
        );
    }

    #[tokio::test]
    async fn f_96_a_check_is_tried_again() {
        let ok = "HTTP/1.1 200 OK\r\n\r\n";
        let address = server(vec!["HTTP/1.1 500 x\r\n\r\n", "", ok]).await;
        let work = Work::Http(Url::new(&format!("http://{address}/")).unwrap(), 200);
        let mut hook = Hook::new(Phase::Check, work);
        hook.patience = Patience { retries: 2, interval: 10, stable: 0 };
        perform(&hook, &trees(), None).await.0.unwrap();
    }

    #[tokio::test]
    async fn a_check_that_nobody_answers_takes_its_time_and_no_more() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = Url::new(&format!("http://{}/", listener.local_addr().unwrap())).unwrap();
        let mut hook = Hook::new(Phase::Check, Work::Http(url, 200));
        hook.timeout = 50;
        assert!(matches!(perform(&hook, &trees(), None).await.0, Err(ServiceError::TimedOut(50))));
    }

    #[tokio::test]
    async fn a_44_a_signal_goes_to_the_process_that_the_file_names() {
        let home = tempfile::tempdir().unwrap();
        let file = home.path().join("pid");
        let work = || Work::Signal(Signal::Term, HostPath::new(file.to_str().unwrap()).unwrap());
        assert!(outcome(Phase::Activate, work()).await.unwrap_err().contains("No such file"));
        for text in ["", "x", "1", "-5", "999999999"] {
            std::fs::write(&file, text).unwrap();
            let said = outcome(Phase::Activate, work()).await.unwrap_err();
            assert!(said.contains("no number of a running process"), "{text}: {said}");
        }
        let mut child = std::process::Command::new("/bin/sleep").arg("1000").spawn().unwrap();
        std::fs::write(&file, format!("{}\n", child.id())).unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o666)).unwrap();
        assert!(outcome(Phase::Activate, work()).await.unwrap_err().contains("by others"));
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
        outcome(Phase::Activate, work()).await.unwrap();
        use std::os::unix::process::ExitStatusExt;
        assert_eq!(child.wait().unwrap().signal(), Some(15));
    }

    #[tokio::test]
    async fn a_unit_that_is_not_there_is_told_with_what_systemd_says() {
        let work = Work::Unit(
            rootcast::service::UnitName::new("not-there-of-rootcast.service").unwrap(),
            rootcast::service::UnitAction::Reload,
        );
        assert!(outcome(Phase::Activate, work).await.is_err());
    }

    #[tokio::test]
    async fn a_command_gets_the_trees_in_its_arguments() {
        let arguments = ["/bin/echo", "{staged}/a", "-{current}"].map(str::to_owned);
        let (outcome, output) =
            perform(&Hook::new(Phase::Validate, Work::Command(arguments.into())), &trees(), None).await;
        outcome.unwrap();
        assert_eq!(output, "/slots/b/a -/current\n");
    }
}
