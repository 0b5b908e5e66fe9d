//! What a hook does, and within which bounds.

use super::{AccountName, HostPath, ServiceFault, UnitName, placeholder};
use crate::encode_as_array;
use crate::limits::{
    HOOK_INTERVAL, HOOK_INTERVAL_MOST, HOOK_OUTPUT, HOOK_OUTPUT_MOST, HOOK_RETRIES_MOST, HOOK_STABLE_MOST,
    HOOK_TIMEOUT, HOOK_TIMEOUT_MOST, MAX_ARGUMENT, MAX_ARGUMENTS, MAX_HOOK_VARIABLES, MAX_URL,
};
use core::fmt;
use core::net::IpAddr;
use core::time::Duration;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The program of a command for which `shell = true` asks for a shell.
pub const SHELL: &str = "/bin/sh";

/// When a hook runs, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Phase {
    /// Judges the staged tree. Nothing has changed yet, and nothing does if it fails.
    Validate,
    /// Takes the host out of what sends it work.
    Drain,
    /// The last before the flip.
    Pre,
    /// Has the program take up its new files.
    Activate,
    /// Finds out whether it works.
    Check,
    /// Puts the host back to work.
    Undrain,
    /// Tries it from outside.
    Test,
    /// The last of all.
    Post,
}

impl Phase {
    /// All of them, in their order.
    pub const ALL: [Self; 8] = [
        Self::Validate,
        Self::Drain,
        Self::Pre,
        Self::Activate,
        Self::Check,
        Self::Undrain,
        Self::Test,
        Self::Post,
    ];

    /// One word: its key in `rootcast.toml`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Validate => "validate",
            Self::Drain => "drain",
            Self::Pre => "pre",
            Self::Activate => "activate",
            Self::Check => "check",
            Self::Undrain => "undrain",
            Self::Test => "test",
            Self::Post => "post",
        }
    }

    /// Whether a hook of this phase may be tried again and have to stay good.
    pub const fn is_tried_again(self) -> bool {
        matches!(self, Self::Check | Self::Test)
    }
}

macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $word:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum $name {
            $($(#[$variant_doc])* $variant),+
        }
        impl $name {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$variant),+];
            /// As it is written.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word),+ }
            }
        }
    };
}

words!(
    /// A signal that a program may be sent.
    Signal {
        /// SIGHUP
        Hup = "HUP",
        /// SIGINT
        Int = "INT",
        /// SIGQUIT
        Quit = "QUIT",
        /// SIGTERM
        Term = "TERM",
        /// SIGUSR1
        Usr1 = "USR1",
        /// SIGUSR2
        Usr2 = "USR2",
        /// SIGWINCH
        Winch = "WINCH",
    }
);
words!(
    /// What is asked of systemd for a unit.
    UnitAction {
        /// Reload it.
        Reload = "reload",
        /// Restart it.
        Restart = "restart",
        /// Start it.
        Start = "start",
        /// Stop it.
        Stop = "stop",
        /// Restart it if it runs.
        TryRestart = "try-restart",
        /// Reload it, or restart it where it cannot.
        ReloadOrRestart = "reload-or-restart",
        /// Ask whether it runs.
        IsActive = "is-active",
    }
);

/// An address that a check asks over HTTP: `http://HOST[:PORT]/PATH`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Url {
    text: String,
    authority: usize,
}

impl Url {
    /// Reads a URL.
    ///
    /// # Errors
    /// When it is none, or of another kind than `http`.
    pub fn new(text: &str) -> Result<Self, ServiceFault> {
        let wrong = || {
            let text: String = text.chars().take(120).collect();
            ServiceFault::Hook(format!(
                "`{}` is no URL as `http://127.0.0.1:8080/health`",
                text.escape_debug()
            ))
        };
        let rest = text.strip_prefix("http://").ok_or_else(wrong)?;
        let authority = rest.find('/').unwrap_or(rest.len());
        let host = rest.get(..authority).unwrap_or_default();
        let is_plain = text.len() <= MAX_URL && text.chars().all(|c| c.is_ascii_graphic());
        if !is_plain || host.contains('@') || split_port(host).is_none_or(|(host, _)| host.is_empty()) {
            return Err(wrong());
        }
        Ok(Self { text: text.to_owned(), authority })
    }

    /// As it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Host and port, as they stand in the URL.
    pub fn authority(&self) -> &str {
        self.text.get(7..7 + self.authority).unwrap_or_default()
    }

    /// Host and port to connect to.
    pub fn address(&self) -> (&str, u16) {
        split_port(self.authority()).unwrap_or_default()
    }

    /// What is asked for there.
    pub fn path(&self) -> &str {
        match self.text.get(7 + self.authority..) {
            None | Some("") => "/",
            Some(path) => path,
        }
    }

    /// Whether only this host can answer.
    pub fn is_loopback(&self) -> bool {
        is_loopback(self.address().0)
    }
}

impl TryFrom<String> for Url {
    type Error = ServiceFault;
    fn try_from(text: String) -> Result<Self, ServiceFault> {
        Self::new(&text)
    }
}

impl From<Url> for String {
    fn from(url: Url) -> Self {
        url.text
    }
}

/// Host, without brackets, and port of `HOST[:PORT]`; 80 without one.
fn split_port(text: &str) -> Option<(&str, u16)> {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, port) = rest.split_once(']')?;
            (host, port.strip_prefix(':').or(port.is_empty().then_some("80"))?)
        }
        None => text.split_once(':').unwrap_or((text, "80")),
    };
    Some((host, port.parse().ok().filter(|port| *port > 0)?))
}

fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// What a hook does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Work {
    /// Runs a program: its absolute path, and its arguments.
    Command(Vec<String>),
    /// Sends a signal to the process whose number a file holds.
    Signal(Signal, HostPath),
    /// Asks systemd.
    Unit(UnitName, UnitAction),
    /// Asks over HTTP, and wants an answer with this status.
    Http(Url, u16),
    /// Connects to `HOST:PORT`.
    Tcp(String),
}

impl Work {
    /// Host and port of [`Work::Tcp`].
    pub fn tcp_address(text: &str) -> Option<(&str, u16)> {
        text.contains(':').then(|| split_port(text)).flatten().filter(|(host, _)| !host.is_empty())
    }

    /// Whether only this host can answer; of no meaning for what asks nobody.
    pub fn is_loopback(&self) -> bool {
        match self {
            Self::Http(url, _) => url.is_loopback(),
            Self::Tcp(address) => Self::tcp_address(address).is_some_and(|(host, _)| is_loopback(host)),
            Self::Command(_) | Self::Signal(..) | Self::Unit(..) => true,
        }
    }
}

impl fmt::Display for Work {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Command(arguments) => f.write_str(&arguments.join(" ")),
            Self::Signal(signal, file) => write!(f, "signal {} to {file}", signal.as_str()),
            Self::Unit(unit, action) => write!(f, "systemctl {} {unit}", action.as_str()),
            Self::Http(url, status) => write!(f, "{} is {status}", url.as_str()),
            Self::Tcp(address) => write!(f, "tcp {address}"),
        }
    }
}

/// How often a check is tried, and for how long it has to stay good. Times in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// Tries after the first that failed.
    pub retries: u64,
    /// Between two tries.
    pub interval: u64,
    /// For how long every try must be good after the first that was.
    pub stable: u64,
}
encode_as_array!(Patience { retries, interval, stable });

impl Default for Patience {
    fn default() -> Self {
        Self { retries: 0, interval: milliseconds(HOOK_INTERVAL), stable: 0 }
    }
}

/// A duration in milliseconds.
pub(super) const fn milliseconds(duration: Duration) -> u64 {
    duration.as_secs() * 1000 + duration.subsec_millis() as u64
}

/// One thing that is done in a phase (F-94).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hook {
    /// When.
    pub phase: Phase,
    /// What.
    pub work: Work,
    /// After how many milliseconds it counts as failed, and what it started is ended.
    pub timeout: u64,
    /// As whom a command runs; as the agent's own user where that is not said.
    pub user: Option<AccountName>,
    /// All that a command finds in its environment.
    pub environment: BTreeMap<String, String>,
    /// How many bytes of output a command may write; more counts as failed.
    pub output: u64,
    /// How a check is tried.
    pub patience: Patience,
}
encode_as_array!(Hook { phase, work, timeout, user, environment, output, patience });

impl Hook {
    /// A hook with the usual bounds.
    pub fn new(phase: Phase, work: Work) -> Self {
        Self {
            phase,
            work,
            timeout: milliseconds(HOOK_TIMEOUT),
            user: None,
            environment: BTreeMap::new(),
            output: HOOK_OUTPUT,
            patience: Patience::default(),
        }
    }

    /// The arguments of a command, with the directories of the trees in their places.
    pub fn arguments(&self, staged: &str, current: &str) -> Vec<String> {
        let Work::Command(arguments) = &self.work else { return Vec::new() };
        arguments.iter().map(|text| placeholder::filled_in(text, staged, current)).collect()
    }

    /// Checks what no type does.
    pub(super) fn check(&self) -> Result<(), ServiceFault> {
        let wrong = |text: String| Err(ServiceFault::Hook(format!("{}: {text}", self.phase.as_str())));
        match &self.work {
            Work::Command(arguments) => {
                let Some(program) = arguments.first() else {
                    return wrong("`command` is empty".into());
                };
                if HostPath::new(program).is_err() || program.contains('{') {
                    let program: String = program.chars().take(120).collect();
                    let why =
                        if program.contains('{') { ", and nothing stands for another in it" } else { "" };
                    return wrong(format!(
                        "the program `{}` is no absolute path{why}",
                        program.escape_debug()
                    ));
                }
                arguments.iter().try_for_each(|text| placeholder::check(text))?;
                if arguments.len() > MAX_ARGUMENTS || arguments.iter().any(|text| !is_argument(text)) {
                    return wrong(format!(
                        "at most {MAX_ARGUMENTS} arguments of at most {MAX_ARGUMENT} bytes without NUL"
                    ));
                }
            }
            Work::Http(_, status) if !(100..=599).contains(status) => {
                return wrong(format!("`status` {status} is none of HTTP's"));
            }
            Work::Tcp(address) if Work::tcp_address(address).is_none() => {
                return wrong("`tcp` is HOST:PORT, as `127.0.0.1:5432`".into());
            }
            Work::Http(..) | Work::Tcp(_) if !self.phase.is_tried_again() => {
                return wrong("`http` and `tcp` are for `check` and `test`".into());
            }
            Work::Signal(..) | Work::Unit(..) | Work::Http(..) | Work::Tcp(_) => {}
        }
        if !matches!(self.work, Work::Command(_)) && (self.user.is_some() || !self.environment.is_empty()) {
            return wrong("`user` and `environment` are for a `command`".into());
        }
        let is_variable = |(name, value): (&String, &String)| {
            !name.is_empty() && !name.contains(['=', '\0']) && is_argument(name) && is_argument(value)
        };
        if self.environment.len() > MAX_HOOK_VARIABLES || !self.environment.iter().all(is_variable) {
            return wrong(format!("`environment` has at most {MAX_HOOK_VARIABLES} variables with names"));
        }
        let elsewhere = match &self.work {
            Work::Signal(_, file) => Some(file.as_str()),
            Work::Http(url, _) => Some(url.as_str()),
            Work::Command(_) | Work::Unit(..) | Work::Tcp(_) => None,
        };
        let elsewhere = elsewhere.into_iter().chain(self.environment.values().map(String::as_str));
        if let Some(stray) = elsewhere.filter_map(placeholder::stray).next() {
            return wrong(format!("`{stray}` stands for a directory in the arguments of a command only"));
        }
        let Patience { retries, interval, stable } = self.patience;
        let bounds = [
            ("timeout", self.timeout, 1, milliseconds(HOOK_TIMEOUT_MOST)),
            ("output", self.output, 0, HOOK_OUTPUT_MOST),
            ("retries", retries, 0, HOOK_RETRIES_MOST),
            ("interval", interval, 10, milliseconds(HOOK_INTERVAL_MOST)),
            ("stable", stable, 0, milliseconds(HOOK_STABLE_MOST)),
        ];
        for (key, value, least, most) in bounds {
            if !(least..=most).contains(&value) {
                return wrong(format!("`{key}` is out of its range (specs/configuration.md, F-95)"));
            }
        }
        if self.patience != Patience::default() && !self.phase.is_tried_again() {
            return wrong("`retries`, `interval` and `stable` are for `check` and `test`".into());
        }
        Ok(())
    }
}

fn is_argument(text: &str) -> bool {
    text.len() <= MAX_ARGUMENT && !text.contains('\0')
}
