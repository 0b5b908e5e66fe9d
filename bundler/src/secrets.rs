//! Which files of a repository are secret, and who may read them
//! (specs/configuration.md, F-40 to F-44).

use rootcast::limits::{MAX_SECRET_PATTERNS, MAX_SECRET_RECIPIENTS};
use rootcast::path::ConfigPath;
use rootcast::pattern::Pattern;
use rootcast::settings::{SettingsError, Spanned};
use rootcast_age::Recipient;
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// How a recipient begins that is written out; no name of recipients begins so.
const KEY_START: &str = "age1";

/// One of the settings' `[[secrets]]`, before its values are judged.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct WrittenSecret {
    files: Spanned<Vec<Spanned<String>>>,
    recipients: Spanned<Vec<Spanned<String>>>,
}

/// The settings' `[recipients]`, before its values are judged.
pub(crate) type WrittenRecipients = BTreeMap<String, Spanned<Vec<Spanned<String>>>>;

/// Which files are secret, and to whom they are not.
#[derive(Debug, Clone, Default)]
pub struct Secrets {
    rules: Vec<Rule>,
}

/// A pattern of paths, and who may read the files.
#[derive(Debug, Clone)]
struct Rule {
    pattern: Pattern,
    recipients: Arc<BTreeSet<Recipient>>,
    /// Said where no file is under it; holds the place in the settings.
    unused: SettingsError,
}

/// Settings are the same when they make the same releases: where in the file they stand is no matter.
impl PartialEq for Secrets {
    fn eq(&self, other: &Self) -> bool {
        let said = |rule: &Rule| (rule.pattern.clone(), rule.recipients.clone());
        self.rules.iter().map(said).eq(other.rules.iter().map(said))
    }
}

impl Eq for Secrets {}

impl Secrets {
    /// Judges what the settings say.
    pub(crate) fn of(
        text: &str,
        groups: &WrittenRecipients,
        written: &[WrittenSecret],
    ) -> Result<Self, SettingsError> {
        let mut known = BTreeMap::new();
        for (name, keys) in groups {
            let wrong = |at: &Spanned<_>, message| SettingsError::at(text, at.span().start, message);
            if name.is_empty() || name.starts_with(KEY_START) {
                let message =
                    format!("recipients.{}: a name is not empty and is no key", name.escape_debug());
                return Err(SettingsError::at(text, keys.span().start, message));
            }
            let mut recipients = BTreeSet::new();
            for written in keys.get_ref() {
                let parsed = written.get_ref().parse::<Recipient>();
                recipients.insert(parsed.map_err(|error| wrong(written, refused(written.get_ref(), error)))?);
            }
            known.insert(name.as_str(), recipients);
        }
        let mut rules = Vec::new();
        for written in written {
            let recipients = Arc::new(read_recipients(text, &known, &written.recipients)?);
            if written.files.get_ref().is_empty() {
                let message = "no pattern, so nothing would be secret: name some files";
                return Err(SettingsError::at(text, written.files.span().start, message));
            }
            for pattern in written.files.get_ref() {
                rules.push(rule(text, pattern, &recipients)?);
                if rules.len() > MAX_SECRET_PATTERNS {
                    let message = format!("more than {MAX_SECRET_PATTERNS} patterns of secrets");
                    return Err(SettingsError::at(text, pattern.span().start, message));
                }
            }
        }
        Ok(Self { rules })
    }

    /// Whether no file is secret.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// Who may read a file of the source, in ascending order; `None` where everybody may.
    /// With several patterns for one file, all their recipients may.
    pub fn recipients(&self, path: &ConfigPath) -> Option<Vec<Recipient>> {
        let rules: Vec<&Rule> =
            self.rules.iter().filter(|rule| rule.pattern.matches(path.as_str())).collect();
        let all = || rules.iter().flat_map(|rule| rule.recipients.iter().copied());
        (!rules.is_empty()).then(|| all().collect::<BTreeSet<_>>().into_iter().collect())
    }

    /// The patterns that no file that is delivered is under: most likely a slip,
    /// and the files that it meant go out in the clear.
    pub fn unused<'p>(&self, files: impl Iterator<Item = &'p ConfigPath>) -> Vec<SettingsError> {
        let mut unused: Vec<&Rule> = self.rules.iter().collect();
        for path in files {
            unused.retain(|rule| !rule.pattern.matches(path.as_str()));
        }
        unused.into_iter().map(|rule| rule.unused.clone()).collect()
    }
}

/// A message about a recipient, who is public. What has another form may be a secret key in the wrong place.
fn refused(written: &str, error: rootcast_age::AgeError) -> String {
    if written.starts_with(KEY_START) {
        format!("`{}` {error}", written.escape_debug())
    } else {
        error.to_string()
    }
}

fn rule(
    text: &str,
    written: &Spanned<String>,
    recipients: &Arc<BTreeSet<Recipient>>,
) -> Result<Rule, SettingsError> {
    let (at, pattern) = (written.span().start, written.get_ref());
    let pattern = Pattern::new(pattern).map_err(|error| SettingsError::at(text, at, error.to_string()))?;
    let message = format!(
        "no file that is delivered is under `{}`, so nothing is made secret by it",
        pattern.as_str().escape_debug()
    );
    let unused = SettingsError::at(text, at, message);
    Ok(Rule { pattern, recipients: recipients.clone(), unused })
}

fn read_recipients(
    text: &str,
    known: &BTreeMap<&str, BTreeSet<Recipient>>,
    written: &Spanned<Vec<Spanned<String>>>,
) -> Result<BTreeSet<Recipient>, SettingsError> {
    let mut recipients = BTreeSet::new();
    for one in written.get_ref() {
        let wrong = |message| SettingsError::at(text, one.span().start, message);
        let name = one.get_ref().as_str();
        if name.starts_with(KEY_START) {
            recipients.insert(name.parse().map_err(|error| wrong(refused(name, error)))?);
            continue;
        }
        let group = known.get(name).ok_or_else(|| {
            let names: Vec<&str> = known.keys().copied().collect();
            let named = if names.is_empty() {
                "it is empty".into()
            } else {
                format!("it has `{}`", names.join("`, `"))
            };
            wrong(format!("`{}` is not in [recipients]; {named}", shortened(name)))
        })?;
        recipients.extend(group);
    }
    let wrong = |message| SettingsError::at(text, written.span().start, message);
    if recipients.is_empty() {
        return Err(wrong("no recipient, so nobody could read the secret: name a group or a key".into()));
    }
    if recipients.len() > MAX_SECRET_RECIPIENTS {
        return Err(wrong(format!(
            "{} recipients, over the limit of {MAX_SECRET_RECIPIENTS}",
            recipients.len()
        )));
    }
    Ok(recipients)
}

/// A name as a message repeats it. A secret key that was pasted here is not repeated.
fn shortened(name: &str) -> String {
    let upper = name.to_ascii_uppercase();
    if upper.starts_with("AGE-SECRET-KEY-") {
        "AGE-SECRET-KEY-…".into()
    } else {
        name.escape_debug().take(80).collect()
    }
}

#[cfg(test)]
mod tests {
    use crate::config::Rootcast;
    use rootcast::path::ConfigPath;
    use rootcast_age::{DecryptionKey, Recipient};

    fn key(seed: u8) -> Recipient {
        DecryptionKey::from_bytes([seed; 32].into()).recipient()
    }

    fn secret_for(config: &Rootcast, path: &str) -> Option<Vec<Recipient>> {
        config.secrets.recipients(&ConfigPath::new(path).unwrap())
    }

    fn sorted(mut keys: Vec<Recipient>) -> Option<Vec<Recipient>> {
        keys.sort();
        Some(keys)
    }

    #[test]
    fn f_42_f_43_patterns_say_what_is_secret_and_for_whom() {
        let text = format!(
            "[recipients]\nweb = ['{0}', '{1}']\n[[secrets]]\nfiles = ['**/*.key', 'host/web-1/db']\n\
             recipients = ['web']\n[[secrets]]\nfiles = ['base/tls/*']\nrecipients = ['{2}', '{2}']\n",
            key(1),
            key(2),
            key(3)
        );
        let config = Rootcast::parse(&text).unwrap();
        assert_eq!(secret_for(&config, "a.key"), sorted(vec![key(1), key(2)]));
        assert_eq!(secret_for(&config, "host/web-1/db"), sorted(vec![key(1), key(2)]));
        assert_eq!(secret_for(&config, "base/tls/x"), Some(vec![key(3)]));
        assert_eq!(secret_for(&config, "base/tls/x.key"), sorted(vec![key(1), key(2), key(3)]));
        for path in ["a.keys", "host/web-1/db/x", "base/tls/sub/x", "base/tls", "x/base/tls/x"] {
            assert_eq!(secret_for(&config, path), None, "{path}");
        }
        let moved = Rootcast::parse(&format!("# a comment\n\n{text}")).unwrap();
        assert_eq!(config, moved, "where it stands is no matter");
        assert_ne!(
            config,
            Rootcast::parse(&text.replacen(&key(1).to_string(), &key(4).to_string(), 1)).unwrap()
        );
        assert_ne!(config, Rootcast::parse("").unwrap());
    }

    #[test]
    fn f_44_a_pattern_without_a_file_is_told_with_its_place() {
        let text = format!("[[secrets]]\nfiles = [\n 'a/*',\n 'b/*' ]\nrecipients = ['{}']\n", key(1));
        let config = Rootcast::parse(&text).unwrap();
        let files = ["a/x", "c"].map(|path| ConfigPath::new(path).unwrap());
        let told: Vec<String> = config.secrets.unused(files.iter()).iter().map(ToString::to_string).collect();
        assert_eq!(told, ["4:2: no file that is delivered is under `b/*`, so nothing is made secret by it"]);
    }

    #[test]
    fn f_41_every_mistake_is_named_with_its_place() {
        let good = key(1).to_string();
        let mistyped = good.replace(&good[40..42], if &good[40..42] == "qq" { "pp" } else { "qq" });
        let secret = "AGE-SECRET-KEY-1EGTZVFFV20835NWYV6270LXYVK2VKNX2MMDKWYKLMGR48UAWX40Q2P2LM0";
        let rule = |files: &str, recipients: &str| {
            format!(
                "[recipients]\nweb = ['{good}']\nnone = []\n[[secrets]]\nfiles = {files}\nrecipients = {recipients}\n"
            )
        };
        let cases = [
            (rule("['a']", "[]"), "6:14: no recipient"),
            (rule("['a']", "['none']"), "6:14: no recipient"),
            (rule("['a']", "['wob']"), "6:15: `wob` is not in [recipients]; it has `none`, `web`"),
            (rule("['a']", &format!("['web', '{mistyped}']")), "6:22: `age1"),
            (rule("['a']", &format!("['{secret}']")), "6:15: `AGE-SECRET-KEY-…` is not in"),
            (rule("[]", "['web']"), "5:9: no pattern"),
            (rule("['a', '[']", "['web']"), "5:15: "),
            (rule("'a'", "['web']"), "5:9: invalid type"),
            (
                rule("['a']", "['web']\nrecipient = 1"),
                "7:1: unknown key `recipient`; did you mean `recipients`?",
            ),
            ("[[secrets]]\nfiles = ['a']\n".into(), "1:1: missing key `recipients`"),
            (format!("[recipients]\nweb = ['{mistyped}']\n"), "2:8: `age1"),
            (format!("[recipients]\nweb = [\n'{secret}']\n"), "3:1: is no age recipient"),
            (format!("[recipients]\n{good} = ['{good}']\n"), "2:"),
            ("[[secret]]\n".into(), "1:3: unknown key `secret`; did you mean `secrets`?"),
        ];
        for (text, start) in cases {
            let message = Rootcast::parse(&text).expect_err(&text).to_string();
            assert!(message.starts_with(start), "{text}\n{message}");
            assert!(!message.contains("EGTZ"), "{message}");
        }
    }
}
