//! `[services.NAME]` as it stands in `rootcast.toml` (specs/configuration.md, F-90 to F-96).

use super::work::milliseconds;
use super::{
    AccountName, Hook, HostPath, How, Install, Patience, Phase, SHELL, Service, ServiceFault, ServiceName,
    Services, Signal, UnitAction, UnitName, Url, Work, placeholder,
};
use crate::limits::{HOOK_INTERVAL, HOOK_OUTPUT, HOOK_TIMEOUT};
use crate::path::ConfigPath;
use crate::pattern::{Pattern, PatternError};
use crate::settings::{SettingsError, Spanned, nearest};
use core::fmt;
use serde::Deserialize;
use serde::de::{Deserializer, Error, Visitor};
use std::collections::BTreeMap;

/// The table `services`, before its values are judged.
#[derive(Default, Deserialize)]
#[serde(transparent)]
pub struct WrittenServices(BTreeMap<String, Spanned<WrittenService>>);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenService {
    files: Spanned<Vec<Spanned<String>>>,
    #[serde(default)]
    install: Vec<Spanned<WrittenInstall>>,
    #[serde(default)]
    after: Vec<Spanned<String>>,
    #[serde(default)]
    validate: Vec<Spanned<WrittenHook>>,
    #[serde(default)]
    drain: Vec<Spanned<WrittenHook>>,
    #[serde(default)]
    pre: Vec<Spanned<WrittenHook>>,
    #[serde(default)]
    activate: Vec<Spanned<WrittenHook>>,
    #[serde(default)]
    check: Vec<Spanned<WrittenHook>>,
    #[serde(default)]
    undrain: Vec<Spanned<WrittenHook>>,
    #[serde(default)]
    test: Vec<Spanned<WrittenHook>>,
    #[serde(default)]
    post: Vec<Spanned<WrittenHook>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenInstall {
    from: Spanned<String>,
    to: Spanned<String>,
    how: Option<Spanned<String>>,
    owner: Option<Spanned<String>>,
    group: Option<Spanned<String>>,
    mode: Option<Spanned<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenHook {
    command: Option<Vec<Spanned<String>>>,
    #[serde(default)]
    shell: bool,
    signal: Option<Spanned<String>>,
    pid_file: Option<Spanned<String>>,
    unit: Option<Spanned<String>>,
    action: Option<Spanned<String>>,
    http: Option<Spanned<String>>,
    status: Option<u16>,
    tcp: Option<String>,
    timeout: Option<Seconds>,
    user: Option<Spanned<String>>,
    #[serde(default)]
    environment: BTreeMap<String, String>,
    output: Option<u64>,
    retries: Option<u64>,
    interval: Option<Seconds>,
    stable: Option<Seconds>,
}

/// Seconds as they are written, `10` or `0.5`; in milliseconds here.
struct Seconds(u64);

impl<'de> Deserialize<'de> for Seconds {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl Visitor<'_> for Reader {
            type Value = Seconds;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number of seconds")
            }
            fn visit_i64<E: Error>(self, value: i64) -> Result<Seconds, E> {
                let whole = u64::try_from(value).ok().and_then(|value| value.checked_mul(1000));
                whole
                    .map(Seconds)
                    .ok_or_else(|| E::custom("a number of seconds that is not negative or huge"))
            }
            fn visit_u64<E: Error>(self, value: u64) -> Result<Seconds, E> {
                value.checked_mul(1000).map(Seconds).ok_or_else(|| E::custom("too many seconds"))
            }
            fn visit_f64<E: Error>(self, value: f64) -> Result<Seconds, E> {
                if (0.0..1e9).contains(&value) {
                    return Ok(Seconds((value * 1000.0).round() as u64));
                }
                Err(E::custom("a number of seconds that is not negative or huge"))
            }
        }
        deserializer.deserialize_any(Reader)
    }
}

/// Puts a place before what is wrong there.
fn at<T>(
    text: &str,
    written: &Spanned<String>,
    read: impl FnOnce(&str) -> Result<T, ServiceFault>,
) -> Result<T, SettingsError> {
    read(written.get_ref()).map_err(|fault| SettingsError::at(text, written.span().start, fault.to_string()))
}

impl WrittenServices {
    /// The patterns of their files, each with the service's name.
    pub fn patterns(&self) -> impl Iterator<Item = (&str, &Spanned<String>)> {
        self.0.iter().flat_map(|(name, service)| {
            service.get_ref().files.get_ref().iter().map(move |files| (name.as_str(), files))
        })
    }

    /// What they install of the view, each with the service's name.
    pub fn installed(&self) -> impl Iterator<Item = (&str, &Spanned<String>)> {
        self.0.iter().flat_map(|(name, service)| {
            service.get_ref().install.iter().map(move |install| (name.as_str(), &install.get_ref().from))
        })
    }
}

impl Services {
    /// Judges what the settings say.
    ///
    /// # Errors
    /// The first thing that is wrong, with line and column.
    pub fn of(text: &str, written: &WrittenServices) -> Result<Self, SettingsError> {
        let mut services = Vec::new();
        for (name, written) in &written.0 {
            let start = written.span().start;
            let wrong = |fault: ServiceFault| SettingsError::at(text, start, fault.to_string());
            services.push(read_service(text, ServiceName::new(name).map_err(wrong)?, written.get_ref())?);
        }
        Self::new(services).map_err(|(name, fault)| {
            let found = written.0.get(name.as_str());
            let mut error = SettingsError::at(
                text,
                found.map_or(0, |found| found.span().start),
                format!("service `{name}` {fault}"),
            );
            if let ServiceFault::UnknownAfter { after } = &fault {
                let place = found.and_then(|found| {
                    found.get_ref().after.iter().find(|written| written.get_ref() == after.as_str())
                });
                if let Some(place) = place {
                    error = SettingsError::at(text, place.span().start, error.message);
                }
                let known: Vec<&str> = written.0.keys().map(String::as_str).collect();
                error.suggestion = nearest(after.as_str(), &known).map(str::to_owned);
            }
            error
        })
    }
}

fn read_service(text: &str, name: ServiceName, written: &WrittenService) -> Result<Service, SettingsError> {
    if written.files.get_ref().is_empty() {
        let message = format!("service `{name}` {}", ServiceFault::NoFiles);
        return Err(SettingsError::at(text, written.files.span().start, message));
    }
    let files = written.files.get_ref().iter().map(|pattern| {
        let wrong = |error: PatternError| SettingsError::at(text, pattern.span().start, error.to_string());
        Pattern::new(pattern.get_ref()).map(|read| read.to_string()).map_err(wrong)
    });
    let install = written.install.iter().map(|install| read_install(text, install));
    let after = written.after.iter().map(|after| at(text, after, ServiceName::new));
    let by_phase = [
        (Phase::Validate, &written.validate),
        (Phase::Drain, &written.drain),
        (Phase::Pre, &written.pre),
        (Phase::Activate, &written.activate),
        (Phase::Check, &written.check),
        (Phase::Undrain, &written.undrain),
        (Phase::Test, &written.test),
        (Phase::Post, &written.post),
    ];
    let hooks = by_phase.into_iter().flat_map(|(phase, hooks)| hooks.iter().map(move |hook| (phase, hook)));
    Ok(Service {
        name,
        files: files.collect::<Result<_, _>>()?,
        install: install.collect::<Result<_, _>>()?,
        after: after.collect::<Result<_, _>>()?,
        hooks: hooks.map(|(phase, hook)| read_hook(text, phase, hook)).collect::<Result<_, _>>()?,
    })
}

fn read_install(text: &str, written: &Spanned<WrittenInstall>) -> Result<Install, SettingsError> {
    let start = written.span().start;
    let WrittenInstall { from, to, how, owner, group, mode } = written.get_ref();
    let from = ConfigPath::new(from.get_ref())
        .map_err(|error| SettingsError::at(text, from.span().start, error.to_string()))?;
    let account = |written: &Option<Spanned<String>>| {
        written.as_ref().map(|written| at(text, written, AccountName::new)).transpose()
    };
    let (owner, group) = (account(owner)?, account(group)?);
    let mode = mode.as_ref().map(|written| at(text, written, read_mode)).transpose()?;
    let how = match how.as_ref().map(|how| (how.get_ref().as_str(), how.span().start)) {
        None | Some(("link", _)) if owner.is_some() || group.is_some() || mode.is_some() => {
            let message = "`owner`, `group` and `mode` are for `how = \"copy\"`: a link has none of its own";
            return Err(SettingsError::at(text, start, message));
        }
        None | Some(("link", _)) => How::Link,
        Some(("copy", _)) => How::Copy { owner, group, mode },
        Some((_, start)) => return Err(SettingsError::at(text, start, "`how` is \"link\" or \"copy\"")),
    };
    Ok(Install { from, to: at(text, to, HostPath::new)?, how })
}

fn read_mode(text: &str) -> Result<u16, ServiceFault> {
    let mode = u16::from_str_radix(text, 8).ok().filter(|mode| mode & !0o777 == 0 && text.len() <= 4);
    mode.ok_or_else(|| ServiceFault::Hook("`mode` is permission bits in octal, as \"0640\"".into()))
}

fn read_hook(text: &str, phase: Phase, spanned: &Spanned<WrittenHook>) -> Result<Hook, SettingsError> {
    let start = spanned.span().start;
    let wrong = |message: &str| SettingsError::at(text, start, message);
    let written = spanned.get_ref();
    let kinds = [
        written.command.is_some(),
        written.signal.is_some(),
        written.unit.is_some(),
        written.http.is_some(),
        written.tcp.is_some(),
    ];
    if kinds.into_iter().filter(|is| *is).count() != 1 {
        return Err(wrong("a hook is one of `command`, `signal`, `unit`, `http` and `tcp`"));
    }
    let stray = [
        (written.shell && written.command.is_none(), "`shell` goes with `command`"),
        (written.pid_file.is_some() != written.signal.is_some(), "`signal` and `pid_file` go together"),
        (written.action.is_some() && written.unit.is_none(), "`action` goes with `unit`"),
        (written.status.is_some() && written.http.is_none(), "`status` goes with `http`"),
    ];
    if let Some((_, message)) = stray.into_iter().find(|(is, _)| *is) {
        return Err(wrong(message));
    }
    let usual = Patience::default();
    let hook = Hook {
        phase,
        work: read_work(text, start, written)?,
        timeout: written.timeout.as_ref().map_or(milliseconds(HOOK_TIMEOUT), |seconds| seconds.0),
        user: written.user.as_ref().map(|user| at(text, user, AccountName::new)).transpose()?,
        environment: written.environment.clone(),
        output: written.output.unwrap_or(HOOK_OUTPUT),
        patience: Patience {
            retries: written.retries.unwrap_or(usual.retries),
            interval: written.interval.as_ref().map_or(milliseconds(HOOK_INTERVAL), |seconds| seconds.0),
            stable: written.stable.as_ref().map_or(usual.stable, |seconds| seconds.0),
        },
    };
    hook.check().map_err(|fault| match &fault {
        ServiceFault::Placeholder(unknown) => {
            let mut arguments = written.command.iter().flatten();
            let argument = arguments.find(|argument| placeholder::check(argument.get_ref()).is_err());
            let place = argument.map_or(start, |argument| argument.span().start);
            let mut error = SettingsError::at(text, place, format!("{}: {fault}", phase.as_str()));
            error.suggestion = nearest(unknown, &placeholder::PLACEHOLDERS).map(str::to_owned);
            error
        }
        _ => wrong(&fault.to_string()),
    })?;
    Ok(hook)
}

fn read_work(text: &str, start: usize, written: &WrittenHook) -> Result<Work, SettingsError> {
    let one_of = |words: Vec<&str>| format!("one of {}", words.join(", "));
    if let Some(command) = &written.command {
        let command = command.iter().map(|argument| argument.get_ref().clone());
        if !written.shell {
            return Ok(Work::Command(command.collect()));
        }
        let shell = [SHELL.to_owned(), "-c".to_owned()].into_iter();
        return Ok(Work::Command(shell.chain(command).collect()));
    }
    if let (Some(signal), Some(file)) = (&written.signal, &written.pid_file) {
        let known = Signal::ALL.iter().find(|known| known.as_str() == signal.get_ref());
        let words = || one_of(Signal::ALL.iter().map(|signal| signal.as_str()).collect());
        let known = known.ok_or_else(|| {
            SettingsError::at(text, signal.span().start, format!("`signal` is {}", words()))
        })?;
        return Ok(Work::Signal(*known, at(text, file, HostPath::new)?));
    }
    if let Some(unit) = &written.unit {
        let words = || one_of(UnitAction::ALL.iter().map(|action| action.as_str()).collect());
        let action = match &written.action {
            None => {
                return Err(SettingsError::at(text, start, format!("`unit` needs `action`, {}", words())));
            }
            Some(action) => {
                UnitAction::ALL.iter().find(|known| known.as_str() == action.get_ref()).ok_or_else(|| {
                    SettingsError::at(text, action.span().start, format!("`action` is {}", words()))
                })?
            }
        };
        return Ok(Work::Unit(at(text, unit, UnitName::new)?, *action));
    }
    if let Some(url) = &written.http {
        return Ok(Work::Http(at(text, url, Url::new)?, written.status.unwrap_or(200)));
    }
    Ok(Work::Tcp(written.tcp.clone().unwrap_or_default()))
}
