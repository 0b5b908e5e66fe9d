//! Users and groups of this host, from `/etc/passwd` and `/etc/group`.

use super::ServiceError;
use rootcast::service::AccountName;
use std::path::Path;

/// A user with its first group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct User {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

/// The fields of the line of a name.
fn line(file: &Path, name: &str) -> Result<Option<Vec<String>>, ServiceError> {
    let text = std::fs::read_to_string(file).map_err(|source| ServiceError::Io {
        doing: "read",
        path: file.to_owned(),
        source,
    })?;
    let found = text.lines().map(|line| line.split(':')).find(|fields| fields.clone().next() == Some(name));
    Ok(found.map(|fields| fields.map(str::to_owned).collect()))
}

fn number(fields: &Option<Vec<String>>, at: usize) -> Option<u32> {
    fields.as_ref()?.get(at)?.parse().ok()
}

/// The user of a name.
///
/// # Errors
/// [`ServiceError::NoAccount`].
pub(crate) fn user(name: &AccountName) -> Result<User, ServiceError> {
    let fields = line(Path::new("/etc/passwd"), name.as_str())?;
    match (number(&fields, 2), number(&fields, 3)) {
        (Some(uid), Some(gid)) => Ok(User { uid, gid }),
        _ => Err(ServiceError::NoAccount { what: "user", name: name.as_str().to_owned() }),
    }
}

/// The group of a name.
///
/// # Errors
/// [`ServiceError::NoAccount`].
pub(crate) fn group(name: &AccountName) -> Result<u32, ServiceError> {
    let fields = line(Path::new("/etc/group"), name.as_str())?;
    number(&fields, 2)
        .ok_or_else(|| ServiceError::NoAccount { what: "group", name: name.as_str().to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accounts_are_found_by_name() {
        let name = |text| AccountName::new(text).unwrap();
        assert_eq!(user(&name("root")).unwrap(), User { uid: 0, gid: 0 });
        assert_eq!(group(&name("root")).unwrap(), 0);
        assert!(user(&name("nobody-of-this-name")).is_err() && group(&name("roo")).is_err());
    }
}
