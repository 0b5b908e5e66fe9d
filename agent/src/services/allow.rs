//! What this host's operator permits releases to do (specs/activation.md, A-45).

use super::ServiceError;
use rootcast::service::{Service, Work};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// `[allow]` of the agent's configuration. What is not named is not permitted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Allow {
    /// Directories beneath which files may be installed, and single files.
    pub install: Vec<PathBuf>,
    /// Programs that may be run, by their absolute paths.
    pub commands: Vec<String>,
    /// systemd units that may be acted on.
    pub units: Vec<String>,
    /// Files whose processes may be sent signals.
    pub pid_files: Vec<String>,
    /// Users that commands may run as, other than the agent's own.
    pub users: Vec<String>,
    /// Beginnings of URLs, and `HOST:PORT`, that checks may ask beyond this host.
    pub checks: Vec<String>,
}

/// What services want that is not permitted: by key of `[allow]`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wanted {
    missing: BTreeMap<&'static str, BTreeSet<String>>,
    /// The first, in words.
    first: String,
}

impl Allow {
    /// Refuses services that want more than is permitted, all of it at once, with the lines that would permit it.
    ///
    /// # Errors
    /// [`ServiceError::NotPermitted`].
    pub fn judge<'s>(&self, services: impl IntoIterator<Item = &'s Service>) -> Result<(), ServiceError> {
        let mut wanted = Wanted::default();
        for service in services {
            for install in &service.install {
                if self.install_prefix(Path::new(install.to.as_str())).is_none() {
                    wanted.add(service, "install", install.to.as_str(), "installs");
                }
            }
            for hook in &service.hooks {
                let has = |list: &[String], text: &str| list.iter().any(|allowed| allowed == text);
                match &hook.work {
                    Work::Command(arguments) => {
                        let program = arguments.first().map_or("", String::as_str);
                        if !has(&self.commands, program) {
                            wanted.add(service, "commands", program, "runs");
                        }
                    }
                    Work::Signal(_, file) if !has(&self.pid_files, file.as_str()) => {
                        wanted.add(service, "pid_files", file.as_str(), "sends a signal by");
                    }
                    Work::Unit(unit, _) if !has(&self.units, unit.as_str()) => {
                        wanted.add(service, "units", unit.as_str(), "acts on the unit");
                    }
                    Work::Http(url, _) if !hook.work.is_loopback() && !self.may_ask(url.as_str()) => {
                        wanted.add(service, "checks", url.as_str(), "asks");
                    }
                    Work::Tcp(address) if !hook.work.is_loopback() && !has(&self.checks, address) => {
                        wanted.add(service, "checks", address, "asks");
                    }
                    Work::Signal(..) | Work::Unit(..) | Work::Http(..) | Work::Tcp(_) => {}
                }
                if let Some(user) = hook.user.as_ref().filter(|user| !has(&self.users, user.as_str())) {
                    wanted.add(service, "users", user.as_str(), "runs a command as");
                }
            }
        }
        if wanted.missing.is_empty() {
            return Ok(());
        }
        Err(ServiceError::NotPermitted { first: wanted.first.clone(), lines: self.lines(&wanted) })
    }

    /// The permitted directory or file that a place is in or is.
    pub(super) fn install_prefix(&self, place: &Path) -> Option<&Path> {
        self.install.iter().map(PathBuf::as_path).find(|prefix| place.starts_with(prefix))
    }

    /// A URL ends where its beginning does, or goes on with another segment or question.
    fn may_ask(&self, url: &str) -> bool {
        self.checks.iter().any(|allowed| {
            url.strip_prefix(allowed.as_str())
                .is_some_and(|rest| rest.is_empty() || allowed.ends_with('/') || rest.starts_with(['/', '?']))
        })
    }

    /// The lines of `[allow]` that would permit it, with what they permit already.
    fn lines(&self, wanted: &Wanted) -> String {
        let paths = self.install.iter().map(|path| path.display().to_string()).collect();
        let have = |key: &str| match key {
            "install" => &paths,
            "commands" => &self.commands,
            "units" => &self.units,
            "pid_files" => &self.pid_files,
            "users" => &self.users,
            _ => &self.checks,
        };
        let lines = wanted.missing.iter().map(|(key, missing)| {
            let all: Vec<String> = have(key).iter().chain(missing).map(|text| quoted(text)).collect();
            format!("{key} = [{}]", all.join(", "))
        });
        lines.collect::<Vec<_>>().join("\n")
    }
}

/// Text as TOML has it, in one line that drives no terminal.
fn quoted(text: &str) -> String {
    let mut quoted = String::from('"');
    for character in text.chars() {
        match character {
            '"' | '\\' => quoted.extend(['\\', character]),
            shown if character.escape_debug().len() == 1 || shown == '\'' => quoted.push(shown),
            other => quoted.push_str(&format!("\\U{:08X}", u32::from(other))),
        }
    }
    quoted.push('"');
    quoted
}

impl Wanted {
    fn add(&mut self, service: &Service, key: &'static str, what: &str, does: &str) {
        if self.first.is_empty() {
            self.first = format!("service `{}` {does} {}", service.name, what.escape_debug());
        }
        self.missing.entry(key).or_default().insert(what.to_owned());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rootcast::service::{Services, WrittenServices};

    fn services(text: &str) -> Services {
        #[derive(Deserialize)]
        struct File {
            services: WrittenServices,
        }
        let text = format!("[services.a]\nfiles = ['a']\n{text}");
        Services::of(&text, &rootcast::settings::parse::<File>(&text).unwrap().services).unwrap()
    }

    fn refusal(allow: &Allow, text: &str) -> Option<String> {
        allow.judge(services(text).iter()).err().map(|error| error.to_string())
    }

    #[test]
    fn a_45_what_is_not_permitted_is_named_with_the_lines_that_would_permit_it() {
        let text = "install = [{ from = 'a', to = '/etc/a/b' }]\n\
                    activate = [{ command = ['/bin/x', 'y'], user = 'web' }, { unit = 'u', action = 'reload' }]\n\
                    drain = [{ signal = 'HUP', pid_file = '/run/a.pid' }]\n\
                    check = [{ http = 'http://10.0.0.1/a' }, { tcp = '10.0.0.1:80' }, { tcp = '[::1]:80' }]\n";
        let allow = Allow { commands: vec!["/bin/z".into()], ..Allow::default() };
        let said = refusal(&allow, text).unwrap();
        let lines = "checks = [\"10.0.0.1:80\", \"http://10.0.0.1/a\"]; commands = [\"/bin/z\", \"/bin/x\"]; \
                     install = [\"/etc/a/b\"]; pid_files = [\"/run/a.pid\"]; units = [\"u\"]; users = [\"web\"]";
        assert!(said.contains("service `a` installs /etc/a/b") && said.contains(lines), "{said}");
        let all = Allow {
            install: vec!["/etc/a".into()],
            commands: vec!["/bin/x".into()],
            units: vec!["u".into()],
            pid_files: vec!["/run/a.pid".into()],
            users: vec!["web".into()],
            checks: vec!["10.0.0.1:80".into(), "http://10.0.0.1".into()],
        };
        assert_eq!(refusal(&all, text), None);
    }

    #[test]
    fn a_45_the_lines_can_be_pasted() {
        let text = "install = [{ from = 'a', to = '/etc/a \\u200b\\\"' }]\nactivate = [{ command = ['/bin/ü\\x', 'y'] }]\n"
            .replace("'/etc/a \\u200b\\\"'", "\"/etc/a \\u200b\\\"\"");
        let allow = Allow { install: vec!["/opt/o'clock".into()], ..Allow::default() };
        let Err(ServiceError::NotPermitted { lines, .. }) = allow.judge(services(&text).iter()) else {
            panic!("it is not permitted")
        };
        assert_eq!(
            lines,
            "commands = [\"/bin/ü\\\\x\"]\ninstall = [\"/opt/o'clock\", \"/etc/a \\U0000200B\\\"\"]"
        );
        let pasted: Allow = rootcast::settings::parse(&lines).unwrap();
        assert_eq!(refusal(&pasted, &text), None);
    }

    #[test]
    fn a_45_a_permission_ends_at_a_segment() {
        let allow = Allow {
            install: vec!["/etc/a".into()],
            commands: vec!["/bin/x".into()],
            checks: vec!["http://10.0.0.1".into()],
            ..Allow::default()
        };
        for text in [
            "install = [{ from = 'a', to = '/etc/ab' }]",
            "activate = [{ command = ['/bin/xx'] }]",
            "activate = [{ command = ['exit 1'], shell = true }]",
            "check = [{ http = 'http://10.0.0.10/' }]",
            "check = [{ http = 'http://10.0.0.1:81/' }]",
        ] {
            assert!(refusal(&allow, text).is_some(), "{text}");
        }
        assert_eq!(refusal(&allow, "install = [{ from = 'a', to = '/etc/a' }]"), None);
    }
}
